"""ResizeMix (Qin et al., 2020): the whole partner, made small, pasted into the image; the label follows the
area."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import checked, one_of
from automix_transfer.mixing.draw import Rng, Size, draw_beta
from automix_transfer.mixing.pairs import BoxDraw, PairMethod, PairOptions, partners_of
from automix_transfer.mixing.parts.boxes import box_masks, box_share, random_box


def scope_problem(scope: tuple[float, float]) -> str:
    """Why these are no shares of a side."""
    return (
        "" if 0 < scope[0] <= scope[1] <= 1 else "give two shares of the side, 0 < smallest <= largest <= 1"
    )


@dataclass
class ResizeMixOptions(PairOptions):
    """``scale``: the partner's side as a share τ of the image's, ``uniform`` in ``scope`` (the method's
    paper); or ``beta``: Beta(α, α), drawn again uniformly in the scope where it falls outside (the configs
    behind the tables; with α = 1 the same distribution). ``scope``: the smallest and the largest τ."""

    scale: str = one_of("uniform", "uniform", "beta")
    scope: tuple[float, float] = checked((0.1, 0.8), scope_problem)


class ResizeMix(PairMethod):
    """Eq. 2 on images that hold their partner in small. One box a batch."""

    options_class = ResizeMixOptions

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> BoxDraw:
        """τ, a box of sides int(τH), int(τW) around a uniform centre, clipped; with ``lam`` given τ =
        sqrt(1-λ) and the box is not clipped."""
        low, high = self.options.scope
        tau = low + (high - low) * float(torch.rand((), generator=rng))
        if self.options.scale == "beta" and low <= (drawn := draw_beta(self.options.alpha, rng)) <= high:
            tau = drawn
        permutation, apply = torch.randperm(count, generator=rng), self.toss(rng)
        tau = tau if lam is None else math.sqrt(1 - lam)
        box = random_box((int(tau * size[0]), int(tau * size[1])), size, rng, inside=lam is not None)
        return BoxDraw(1 - box_share(box, size), permutation, box, apply=apply)

    def mix(self, images: Tensor, labels: Tensor, draw: BoxDraw) -> Mixed:
        """The partners are resized by nearest neighbour."""
        top, bottom, left, right = draw.box
        mixed = images.clone()
        if bottom > top and right > left:
            # each image once, then permuted
            small = functional.interpolate(images, size=(bottom - top, right - left), mode="nearest")
            mixed[:, :, top:bottom, left:right] = partners_of(small, draw)
        return Mixed(mixed, box_masks([draw.box], images), draw.lam)
