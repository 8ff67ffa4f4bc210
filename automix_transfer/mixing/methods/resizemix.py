"""ResizeMix (Qin et al., 2020): the whole partner, made small, pasted into the image; the label follows the
area."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.checks import check_choice
from automix_transfer.mixing.draw import draw_beta
from automix_transfer.mixing.pairs import MixDraw, Mixed, PairMethod, PairOptions, partners_of
from automix_transfer.mixing.parts.boxes import Box, box_masks, box_share, centred_box

SCALES = ("uniform", "beta")


@dataclass
class ResizeMixOptions(PairOptions):
    """``scale``: the partner's side as a share τ of the image's, ``uniform`` in ``scope`` (the method's
    paper); or ``beta``: Beta(α, α), drawn again uniformly in the scope where it falls outside (the configs
    behind the tables; with α = 1 the same distribution)."""

    scale: str = "uniform"
    scope: tuple[float, float] = (0.1, 0.8)


@dataclass(frozen=True)
class ResizeMixDraw(MixDraw):
    """The clipped box that the partner fills; ``lam`` is the share of the image outside it."""

    box: Box


def draw_resizemix(
    count: int,
    size: tuple[int, int],
    options: ResizeMixOptions,
    rng: torch.Generator | None,
    lam: float | None = None,
) -> ResizeMixDraw:
    """τ, a box of sides int(τH), int(τW) around a uniform centre, clipped; with ``lam`` given τ = sqrt(1-λ)
    and the box is not clipped."""
    low, high = options.scope
    tau = low + (high - low) * float(torch.rand((), generator=rng))
    if options.scale == "beta" and low <= (drawn := draw_beta(options.alpha, rng)) <= high:
        tau = drawn
    permutation = torch.randperm(count, generator=rng)
    coin = float(torch.rand((), generator=rng))
    tau = tau if lam is None else math.sqrt(1 - lam)
    sides = int(tau * size[0]), int(tau * size[1])
    centre = int(torch.randint(size[0], (), generator=rng)), int(torch.randint(size[1], (), generator=rng))
    if lam is not None:  # a picture of λ: keep all of it inside
        y, x = (
            min(max(c, s // 2), length - s // 2) for c, s, length in zip(centre, sides, size, strict=True)
        )
        centre = (y, x)
    box = centred_box(centre, sides, size)
    return ResizeMixDraw(1 - box_share(box, size), permutation, coin < options.probability, box)


def apply_resizemix(images: Tensor, draw: ResizeMixDraw) -> Mixed:
    """Images (N, C, H, W) with their partners, resized by nearest neighbour, in the box."""
    top, bottom, left, right = draw.box
    mixed = images.clone()
    if bottom > top and right > left:
        # each image once, then permuted
        small = functional.interpolate(images, size=(bottom - top, right - left), mode="nearest")
        mixed[:, :, top:bottom, left:right] = partners_of(small, draw)
    return Mixed(mixed, box_masks([draw.box], images), draw.lam)


class ResizeMix(PairMethod):
    """Eq. 2 on images that hold their partner in small. One box a batch."""

    options: ResizeMixOptions

    def __init__(self, encoder: nn.Module, options: ResizeMixOptions | None = None) -> None:
        options = options or ResizeMixOptions()
        super().__init__(encoder, options)
        check_choice("scale", options.scale, SCALES)
        low, high = options.scope
        if not 0 < low <= high <= 1:
            raise UserError(
                f"method.scope={list(options.scope)} must be two shares of the side, 0 < smallest <= largest "
                "<= 1, "
                "e.g. [0.1, 0.8]"
            )

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> ResizeMixDraw:
        return draw_resizemix(count, size, self.options, rng, lam)

    def apply_draw(self, images: Tensor, labels: Tensor, draw: ResizeMixDraw) -> Mixed:
        return apply_resizemix(images, draw)
