"""CutMix: a rectangle of the partner pasted into the image; the label follows the area that is really
covered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.pairs import BoxDraw, PairMethod, PairOptions, partners_of, paste
from automix_transfer.mixing.parts.boxes import box_masks, box_share, cut_side, random_box


@dataclass
class CutMixOptions(PairOptions):
    """``alpha``: λ ~ Beta(α, α). ``probability`` of mixing a batch: 0.5 on CIFAR and 1 on ImageNet in its
    authors' code."""


class CutMix(PairMethod):
    """Eq. 2 on cut-and-paste images; one box a batch."""

    options_class = CutMixOptions

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> BoxDraw:
        """A box of sides H·sqrt(1-λ), W·sqrt(1-λ) around a uniform centre, clipped, unless λ is given; λ
        becomes the realised share."""
        pairs = super().draw(count, size, rng, lam)
        sides = cut_side(size[0], pairs.lam), cut_side(size[1], pairs.lam)
        box = random_box(sides, size, rng, inside=lam is not None)
        return BoxDraw(1 - box_share(box, size), pairs.permutation, box, apply=pairs.apply)

    def mix(self, images: Tensor, labels: Tensor, draw: BoxDraw) -> Mixed:
        mask = box_masks([draw.box], images)
        return Mixed(paste(images, partners_of(images, draw), mask), mask, draw.lam)
