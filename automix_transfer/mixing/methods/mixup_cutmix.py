"""MixUp or CutMix by a coin: what DeiT and RSB train with (Table 12), switched as timm switches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import between, one_of
from automix_transfer.mixing.draw import PairDraw, draw_beta
from automix_transfer.mixing.pairs import CoinOptions, PairMethod, blend, partners_of, paste
from automix_transfer.mixing.parts.boxes import Box, box_masks, box_share, cut_side, random_box


@dataclass
class MixUpCutMixOptions(CoinOptions):
    """Options of `MixUpCutMix`; the defaults are DeiT's. RSB A2 and A3: mixup_alpha 0.1, smoothing 0, loss
    bce.

    Attributes:
        mixup_alpha, cutmix_alpha: λ of MixUp and of CutMix; 0 leaves that one out.
        switch_probability: of CutMix, where both are there.
        partner: ``flip``: sample i meets sample N-1-i, as in timm (batches are shuffled); or a ``random``
            permutation.
    """

    mixup_alpha: float = between(0.8)
    cutmix_alpha: float = between(1.0)
    switch_probability: float = between(0.5, 0, 1)
    smoothing: float = between(0.1, 0, 0.99)
    partner: str = one_of("flip", "flip", "random")


@dataclass(frozen=True)
class SwitchDraw(PairDraw):
    """The box of CutMix, or None for MixUp; ``lam`` is the realised share of image i."""

    box: Box | None


class MixUpCutMix(PairMethod):
    """Eq. 2, or a binary cross-entropy, on MixUp or CutMix samples; one draw a batch."""

    options_class: ClassVar[type] = MixUpCutMixOptions

    def __init__(self, encoder: nn.Module, options: MixUpCutMixOptions | None = None) -> None:
        super().__init__(encoder, options)
        if self.options.mixup_alpha == self.options.cutmix_alpha == 0:
            raise UserError(
                "method.mixup_alpha and method.cutmix_alpha are both 0, so nothing would be mixed; "
                "give one of them, or use method.name=vanilla"
            )

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> SwitchDraw:
        """Which of both, its λ, the partners, the box and the coin."""
        options = self.options
        switch, coin = torch.rand(2, generator=rng).tolist()
        cut = options.cutmix_alpha > 0 and (options.mixup_alpha <= 0 or switch < options.switch_probability)
        drawn = draw_beta(options.cutmix_alpha if cut else options.mixup_alpha, rng)
        lam = drawn if lam is None else lam
        permutation = torch.randperm(count, generator=rng)
        if options.partner == "flip":
            permutation = torch.arange(count - 1, -1, -1)
        box = random_box((cut_side(size[0], lam), cut_side(size[1], lam)), size, rng) if cut else None
        share = lam if box is None else 1 - box_share(box, size)
        return SwitchDraw(share, permutation, box, apply=coin < options.probability)

    def mix(self, images: Tensor, labels: Tensor, draw: SwitchDraw) -> Mixed:
        partners = partners_of(images, draw)
        if draw.box is None:
            mask = images.new_full((len(images), 1, *images.shape[2:]), draw.lam)
            return Mixed(blend(images, partners, mask), mask, draw.lam)
        mask = box_masks([draw.box], images)
        return Mixed(paste(images, partners, mask), mask, draw.lam)
