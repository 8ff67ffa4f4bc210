"""Pictures of mixed samples: the same pairs under every method, and under every λ.

Orange is image i and purple image j everywhere: in the labels, and in the masks, whose colour says whose
pixel it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import MIXERS, Mixer, automix_mask, automix_mixer, mix_block_of
from automix_transfer.figures.style import DPI, INK, save
from automix_transfer.mixing import AutoMix, Method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.rng import derive_generator

SHARES = colormaps["PuOr_r"]  # 0: purple, 1: orange, white between; told apart by colour-blind eyes
COLOUR_I, COLOUR_J = "#b35806", "#542788"  # its two ends, dark enough for text
GAP = 4
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
        plain = images.float().cpu() * torch.tensor(self.std).view(3, 1, 1) + torch.tensor(self.mean).view(
            3, 1, 1
        )
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
            f"the data set of {len(dataset)} images has {len(chosen)} pairs of two classes, but {count} are "
            "to be drawn; "
            "ask for fewer"
        )
    return chosen


def pairs_of(dataset: ClassificationDataset, info: EncoderInfo, chosen: Sequence[tuple[int, int]]) -> Pairs:
    """The images of chosen pairs."""
    images = [torch.stack([dataset[index][0] for index in side]) for side in zip(*chosen, strict=True)]
    return Pairs(images[0], images[1], info.mean, info.std)


def methods_figure(path: Path, pairs: Pairs, automix: Method, lam: float = 0.5) -> Path:
    """The product's picture: a pair in a column; image i, image j, MixUp, CutMix, AutoMix's mask and its mix
    at one λ."""
    return save(pixel_sheet(_methods(pairs, mix_block_of(automix), lam), f"λ = {lam:g}"), path)


def lam_figure(
    path: Path,
    pairs: Pairs,
    automix: Method,
    lams: Sequence[float] = (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1),
    count: int = 3,
) -> Path:
    """AutoMix by λ (Figs. 4, 12): a λ in a column, for the first ``count`` pairs mask and mix; between image
    j and image i."""
    block = mix_block_of(automix)
    some = pairs.first(count)
    masks = np.stack([shares(some.masks(block, lam)) for lam in lams], axis=1)
    mixes = np.stack([some.mixed(automix_mixer(block), lam) for lam in lams], axis=1)
    ends = some.pixels(some.images_j)[:, None], some.pixels(some.images_i)[:, None]
    blank = np.full_like(ends[0], 255)
    rows = []
    for mask, mix, left, right, nothing in zip(masks, mixes, *ends, blank, strict=True):
        rows += [
            ("mask", np.concatenate([nothing, mask, nothing])),
            ("mixed", np.concatenate([left, mix, right])),
        ]
    return save(
        pixel_sheet(rows, "", ["image j", *(f"λ = {lam:g}" for lam in lams), "image i"], cell=96), path
    )


def shares(masks: NDArray[np.float64]) -> Cells:
    """Masks (n, H, W) in colours: orange where the pixel is image i's, purple where it is j's, white where
    half and half."""
    return (SHARES(np.clip(masks, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def _methods(pairs: Pairs, block: AutoMix, lam: float) -> list[tuple[str, Cells]]:
    return [
        ("image i", pairs.pixels(pairs.images_i)),
        ("image j", pairs.pixels(pairs.images_j)),
        ("MixUp", pairs.mixed(MIXERS["mixup"], lam)),
        ("CutMix", pairs.mixed(MIXERS["cutmix"], lam)),
        ("AutoMix\nmask", shares(pairs.masks(block, lam))),
        ("AutoMix", pairs.mixed(automix_mixer(block), lam)),
    ]


def pixel_sheet(
    rows: Sequence[tuple[str, Cells]], corner: str, columns: Sequence[str] = (), cell: int = 128
) -> Figure:
    """Rows of cells with their names at the left, ``columns`` above them, pixel for pixel."""
    count, height, width = rows[0][1].shape[:3]
    high, wide = (cell, max(1, round(cell * width / height)))
    picture = np.full((len(rows) * (high + GAP) - GAP, count * (wide + GAP) - GAP, 3), 255, dtype=np.uint8)
    for r, (name, cells) in enumerate(rows):
        # a mask's cells are what the network decided
        smooth = Image.Resampling.NEAREST if "mask" in name else Image.Resampling.BICUBIC
        for c, image in enumerate(cells):
            scaled = np.asarray(Image.fromarray(image).resize((wide, high), smooth))
            picture[
                r * (high + GAP) : r * (high + GAP) + high, c * (wide + GAP) : c * (wide + GAP) + wide
            ] = scaled
    left, top, margin = 92, 30 if columns or corner else 10, 10
    full = (picture.shape[1] + left + margin, picture.shape[0] + top + margin)
    figure = Figure(figsize=(full[0] / DPI, full[1] / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes(
        (left / full[0], margin / full[1], picture.shape[1] / full[0], picture.shape[0] / full[1])
    )
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.axis("off")
    for r, (name, _) in enumerate(rows):
        axes.text(
            -10,
            r * (high + GAP) + high / 2,
            name,
            ha="right",
            va="center",
            fontsize=7.5,
            color=_ink(name),
            fontweight="bold" if name.startswith(("image", "AutoMix")) else "normal",
        )
    for c, name in enumerate(columns):
        axes.text(
            c * (wide + GAP) + wide / 2, -8, name, ha="center", va="bottom", fontsize=7, color=_ink(name)
        )
    if corner:
        axes.text(-10, -9, corner, ha="right", va="bottom", fontsize=8, fontweight="bold", color=INK)
    if any("mask" in name for name, _ in rows) and not columns:
        end = picture.shape[1]
        for offset, text, ink in (
            (0, "orange: image i", COLOUR_I),
            (130, "purple: image j", COLOUR_J),
            (262, "mask", INK),
        ):
            axes.text(end - offset, -9, text, ha="right", va="bottom", fontsize=7, color=ink)
    return figure


def _ink(name: str) -> str:
    return {"image i": COLOUR_I, "image j": COLOUR_J}.get(name, INK)
