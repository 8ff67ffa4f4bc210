"""MixUp or CutMix by a coin: what DeiT and RSB train with (Table 12), switched as timm switches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import between, one_of
from automix_transfer.mixing.draw import PairDraw, Rng, Size, draw_pairs
from automix_transfer.mixing.methods.cutmix import cut_and_paste
from automix_transfer.mixing.methods.mixup import combined
from automix_transfer.mixing.pairs import BoxDraw, CoinOptions, PairMethod
from automix_transfer.mixing.parts.boxes import box_share, cut_sides, random_box


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

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> PairDraw:
        """Which of both, its λ, the partners, the coin, and for CutMix the box."""
        options = self.options
        switch, coin = torch.rand(2, generator=rng).tolist()
        cut = options.cutmix_alpha > 0 and (options.mixup_alpha <= 0 or switch < options.switch_probability)
        pairs = draw_pairs(count, options.cutmix_alpha if cut else options.mixup_alpha, rng, lam)
        partners = torch.arange(count - 1, -1, -1) if options.partner == "flip" else pairs.permutation
        apply = coin < options.probability
        if not cut:
            return PairDraw(pairs.lam, partners, apply=apply)
        box = random_box(cut_sides(size, pairs.lam), size, rng)
        return BoxDraw(1 - box_share(box, size), partners, box, apply=apply)

    def mix(self, images: Tensor, labels: Tensor, draw: PairDraw) -> Mixed:
        return cut_and_paste(images, draw) if isinstance(draw, BoxDraw) else combined(images, draw)
