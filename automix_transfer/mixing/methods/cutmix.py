"""CutMix: a rectangle of the partner pasted into the image; the label follows the area that is really
covered."""

from __future__ import annotations

from torch import Tensor

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.draw import Rng, Size
from automix_transfer.mixing.pairs import BesideClean, BoxDraw, partners_of, paste
from automix_transfer.mixing.parts.boxes import box_masks, box_share, cut_sides, random_box


def cut_and_paste(images: Tensor, draw: BoxDraw) -> Mixed:
    """Images with a box of their partners; the label's share is the area that is left."""
    mask = box_masks([draw.box], images)
    return Mixed(paste(images, partners_of(images, draw), mask), mask, draw.lam)


class CutMix(BesideClean):
    """Eq. 2 on cut-and-paste images; one box a batch. Its authors' code mixes with a ``probability`` of 0.5
    on CIFAR and of 1 on ImageNet."""

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> BoxDraw:
        """A box of sides H·sqrt(1-λ), W·sqrt(1-λ) around a uniform centre, clipped, unless λ is given; λ
        becomes the realised share."""
        pairs = super().draw(count, size, rng, lam)
        box = random_box(cut_sides(size, pairs.lam), size, rng, inside=lam is not None)
        return BoxDraw(1 - box_share(box, size), pairs.permutation, box, apply=pairs.apply)

    def mix(self, images: Tensor, labels: Tensor, draw: BoxDraw) -> Mixed:
        return cut_and_paste(images, draw)
