"""One picture of all mixups: the same pairs through every method at λ = 0.5, the masks beside."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from automix_transfer.evaluation.mixed_samples import automix_mask
from automix_transfer.figures.samples import Cells, Pairs, _sheet, shares
from automix_transfer.figures.style import save
from automix_transfer.mixing import AutoMix
from automix_transfer.mixing.automix.mix_block import mix
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.methods.attentivemix import AttentiveMixOptions, apply_attentivemix
from automix_transfer.mixing.methods.comixup import CoMixupOptions, apply_comixup, draw_comixup
from automix_transfer.mixing.methods.fmix import FMixOptions, apply_fmix, draw_fmix
from automix_transfer.mixing.methods.mixup import apply_mixup
from automix_transfer.mixing.methods.mixup_cutmix import MixUpCutMixOptions, apply_switch, draw_switch
from automix_transfer.mixing.methods.puzzlemix import PuzzleMixDraw, PuzzleMixOptions, apply_puzzlemix
from automix_transfer.mixing.methods.resizemix import ResizeMixOptions, apply_resizemix, draw_resizemix
from automix_transfer.mixing.methods.saliencymix import SaliencyMixOptions, apply_saliencymix
from automix_transfer.mixing.methods.supermix import SuperMixDraw, SuperMixOptions, optimise_masks
from automix_transfer.mixing.pairs import MixDraw
from automix_transfer.mixing.parts.augmix_view import AugMixView
from automix_transfer.mixing.parts.saliency import input_saliency
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.models.taps import features
from automix_transfer.rng import derive_generator

LAM = 0.5
LAST_MAP = "layer3"  #: of the small encoder: 4×4 cells at 64 px, where its last has 2×2


def mixups_picture(path: Path, pairs: Pairs, automix: AutoMix, seed: int = 0) -> Path:
    """A method in a row, a pair in a column: mixed image and mask.

    Args:
        pairs: 4 of them are legible.
        automix: its Mix Block draws AutoMix's masks; its encoder is the network that saliency, attention and
            SuperMix ask.
    """
    rows = [("images", beside(pairs.pixels(pairs.images_i), pairs.pixels(pairs.images_j)))]
    for name, (mixed, mask) in mixed_by_all(pairs, automix, seed).items():
        rows.append(
            (
                name,
                beside(
                    pairs.pixels(mixed), shares(mask[:, 0].double().numpy()) if mask is not None else None
                ),
            )
        )
    return save(_sheet(rows, "λ = 0.5", ["i, mixed", "j, mask"] * len(pairs), cell=88), path)


def beside(left: Cells, right: Cells | None) -> Cells:
    """The cells of two rows in turn; nothing for a method without masks."""
    right = np.full_like(left, 255) if right is None else right
    return np.stack([left, right], axis=1).reshape(-1, *left.shape[1:])


def mixed_by_all(pairs: Pairs, automix: AutoMix, seed: int = 0) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Method -> mixed images (n, 3, H, W) and masks (n, 1, H, W) of the pairs. MixUp stands for the methods
    whose input is mixed so."""
    count, network = len(pairs), automix.inference_encoder()
    images = torch.cat([pairs.images_i, pairs.images_j])
    partners = torch.arange(2 * count).roll(count)
    size = (images.shape[2], images.shape[3])
    plain, draw = PairDraw(LAM, partners), MixDraw(LAM, partners, True)
    mean, std = tuple(pairs.mean), tuple(pairs.std)
    found: dict[str, tuple[Tensor, Tensor | None]] = {
        "MixUp": (apply_mixup(images, plain), torch.full((len(images), 1, *size), LAM))
    }

    def rng() -> torch.Generator:
        return derive_generator(seed, "picture of mixups")

    generator = rng()
    boxes = (draw_switch(2, size, MixUpCutMixOptions(mixup_alpha=0), generator, LAM) for _ in range(1000))
    cut = next((box for box in boxes if abs(box.lam - LAM) < 0.05), None)  # one that the border does not clip
    with eval_mode(automix):
        saliency = input_saliency(network, images, network(images).argmax(dim=1)).detach()
        attention = (
            features(network, images, LAST_MAP).mean(dim=1).detach()
            if has_layer(network, LAST_MAP)
            else saliency[:, ::8, ::8]
        )
        mask = automix_mask(automix, images, partners, LAM, rng())
        joint = CoMixupOptions(partition=2 * count)
        together = apply_comixup(
            images,
            torch.zeros(len(images)).long(),
            draw_comixup(len(images), joint, rng()),
            saliency,
            2,
            joint,
        )
        members = torch.stack([torch.arange(2 * count), partners], dim=1)
        superb = optimise_masks(
            network, images, SuperMixDraw(members, torch.full(members.shape, 0.5)), SuperMixOptions()
        )
    resize = draw_resizemix(2, size, ResizeMixOptions(), rng(), LAM)
    mixes = {
        "CutMix": apply_switch(
            images,
            dataclasses.replace(
                cut or draw_switch(2, size, MixUpCutMixOptions(mixup_alpha=0), rng(), LAM),
                permutation=partners,
            ),
        ),
        "Saliency\nMix": apply_saliencymix(images, draw, SaliencyMixOptions(), mean, std),
        "Attentive\nMix": apply_attentivemix(images, draw, attention, AttentiveMixOptions(cells=0)),
        "FMix": apply_fmix(
            images,
            dataclasses.replace(draw_fmix(2, size, FMixOptions(), rng(), LAM), permutation=partners),
            FMixOptions(),
        ),
        "ResizeMix": apply_resizemix(images, dataclasses.replace(resize, permutation=partners)),
        "PuzzleMix": apply_puzzlemix(
            images, PuzzleMixDraw(LAM, partners, True, 8), saliency, PuzzleMixOptions(), mean, std
        ),
    }
    found |= {name: (one.images, one.mask) for name, one in mixes.items()}
    found["Co-Mixup"] = (together[0], together[2])
    found["SuperMix"] = (superb.images, superb.masks[:, :1])
    found["AugMix"] = (augmented(pairs, seed).repeat(2, 1, 1, 1), None)
    found["AutoMix"] = (mix(images, images[partners], mask), mask)
    return {
        name: (mixed[:count].detach(), None if one is None else one[:count].detach().cpu())
        for name, (mixed, one) in found.items()
    }


def has_layer(network: nn.Module, layer: str) -> bool:
    """Whether the network has a submodule of that name."""
    return any(name == layer for name, _ in network.named_modules())


def augmented(pairs: Pairs, seed: int) -> Tensor:
    """One of AugMix's views of each image i, normalised."""
    from PIL import Image

    views = []
    for number, pixels in enumerate(pairs.pixels(pairs.images_i)):
        np.random.seed(seed + number)
        views.append(torch.from_numpy(AugMixView()(Image.fromarray(pixels))).permute(2, 0, 1) / 255)
    return (torch.stack(views) - torch.tensor(pairs.mean).view(3, 1, 1)) / torch.tensor(pairs.std).view(
        3, 1, 1
    )
