"""Pictures of mixed samples: the same pairs under every method, and under every λ. In every mask orange is
image i and purple image j."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import MIXERS, Mixer, automix_mask, automix_mixer, mix_block_of
from automix_transfer.figures.sheet import Cell, Picture, save_parts, sheet
from automix_transfer.mixing import AutoMix, Method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.rng import derive_generator

SHARES = colormaps["PuOr_r"]  # 0: purple, 1: orange, white between; told apart by colour-blind eyes
LEGEND = "masks: orange keeps image i, purple image j, white mixes half and half"
LAMS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
Cells = NDArray[np.uint8]  # (n, H, W, 3)


@dataclass(frozen=True)
class Pairs:
    """Pairs of images of different classes, (n, 3, H, W) each, normalised with ``mean`` and ``std``."""

    images_i: Tensor
    images_j: Tensor
    mean: Sequence[float]
    std: Sequence[float]

    def __len__(self) -> int:
        return len(self.images_i)

    @property
    def images(self) -> Tensor:
        return torch.cat([self.images_i, self.images_j])

    @property
    def permutation(self) -> Tensor:
        """i's partner is j, j's partner is i."""
        return torch.arange(2 * len(self)).roll(len(self))

    def first(self, count: int) -> Pairs:
        """The first ``count`` pairs."""
        return Pairs(self.images_i[:count], self.images_j[:count], self.mean, self.std)

    @torch.no_grad()
    def mixed(self, mixer: Mixer, lam: float, seed: int = 0) -> Cells:
        """The pairs as ``mixer`` mixes them; places that it draws are the same for every λ."""
        return self.pixels(
            mixer(self.images, self.permutation, lam, derive_generator(seed, "picture"))[: len(self)]
        )

    def masks(self, method: AutoMix, lam: float, seed: int = 0) -> NDArray[np.float64]:
        """(n, H, W): the share of image i that the Mix Block chooses for every pixel."""
        mask = automix_mask(method, self.images, self.permutation, lam, derive_generator(seed, "picture"))
        return mask[: len(self), 0].double().cpu().numpy()

    def pixels(self, images: Tensor) -> Cells:
        """Normalised images as (n, H, W, 3) uint8."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        plain = images.float().cpu() * std + mean
        return (plain.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def example_pairs(dataset: ClassificationDataset, info: EncoderInfo, count: int = 6, seed: int = 0) -> Pairs:
    """``count`` pairs of two classes each, drawn from ``dataset``; no image twice.

    Raises:
        UserError: the data set has fewer pairs.
    """
    return pairs_of(dataset, info, choose_pairs(dataset, count, seed))


def choose_pairs(dataset: ClassificationDataset, count: int, seed: int) -> list[tuple[int, int]]:
    """The indices of `example_pairs`: (i, j) of each."""
    order = torch.randperm(len(dataset), generator=derive_generator(seed, "example pairs")).tolist()
    labels = dataset.labels
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count and order:
        first = order.pop()
        other = next((k for k in reversed(range(len(order))) if labels[order[k]] != labels[first]), None)
        if other is not None:
            chosen.append((first, order.pop(other)))
    if len(chosen) < count:
        raise UserError(
            f"the data set of {len(dataset)} images has {len(chosen)} pairs of two classes, not {count}; ask "
            "for fewer"
        )
    return chosen


def pairs_of(dataset: ClassificationDataset, info: EncoderInfo, chosen: Sequence[tuple[int, int]]) -> Pairs:
    """The images of chosen pairs."""
    images = [torch.stack([dataset[index][0] for index in side]) for side in zip(*chosen, strict=True)]
    return Pairs(images[0], images[1], info.mean, info.std)


def shares(masks: NDArray[np.float64]) -> Cells:
    """Masks (n, H, W) in colours: orange where the pixel is image i's, purple where it is j's, white where
    half and half."""
    return (SHARES(np.clip(masks, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def cells_of(images: Cells) -> list[Cell | None]:
    """Pictures as cells of a sheet."""
    return [Cell(image) for image in images]


def mask_cells(masks: NDArray[np.float64]) -> list[Cell | None]:
    """Masks (n, H, W) in colours, pixel for pixel."""
    return [Cell(mask, exact=True) for mask in shares(masks)]


def methods_figure(path: Path, pairs: Pairs, automix: Method, lam: float = 0.5) -> Path:
    """The product's picture: a pair in a column; image i, image j, MixUp, CutMix, AutoMix's mask and its mix
    at one λ."""
    block = mix_block_of(automix)
    rows = [
        ("image i", cells_of(pairs.pixels(pairs.images_i))),
        ("image j", cells_of(pairs.pixels(pairs.images_j))),
        ("MixUp", cells_of(pairs.mixed(MIXERS["mixup"], lam))),
        ("CutMix", cells_of(pairs.mixed(MIXERS["cutmix"], lam))),
        ("AutoMix\nmask", mask_cells(pairs.masks(block, lam))),
        ("AutoMix", cells_of(pairs.mixed(automix_mixer(block), lam))),
    ]
    return save_parts(path, [sheet(rows, title=f"λ = {lam:g}; orange: image i, purple: image j", side=128)])


def lam_figure(
    path: Path, pairs: Pairs, automix: Method, lams: Sequence[float] = LAMS, count: int = 3
) -> Path:
    """AutoMix by λ (Figs. 4, 12), for the first ``count`` pairs."""
    return save_parts(path, [lam_sheet(pairs.first(count), mix_block_of(automix), lams)[0]])


def lam_sheet(
    pairs: Pairs, block: AutoMix, lams: Sequence[float], seed: int = 0, title: str = ""
) -> tuple[Picture, list[NDArray[np.float64]]]:
    """Mask and mix of every pair in two rows, a λ in a column, between image j and image i; and the masks by
    λ, (n, H, W) each."""
    masks = [pairs.masks(block, lam, seed) for lam in lams]
    inner = [
        (mask_cells(some), cells_of(pairs.mixed(automix_mixer(block), lam, seed)))
        for some, lam in zip(masks, lams, strict=True)
    ]
    left, right = (cells_of(pairs.pixels(images)) for images in (pairs.images_j, pairs.images_i))
    rows: list[tuple[str, list[Cell | None]]] = []
    for pair in range(len(pairs)):
        rows.append(("mask", [None, *(mask[pair] for mask, _ in inner), None]))
        rows.append(("mixed", [left[pair], *(mixed[pair] for _, mixed in inner), right[pair]]))
    columns = ["image j", *(f"λ = {lam:g}" for lam in lams), "image i"]
    return sheet(rows, columns, title, side=102, breaks=range(2, len(rows), 2)), masks
