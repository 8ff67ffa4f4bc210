"""MixUp or CutMix by a coin: what DeiT and RSB train with (Table 12), switched as timm switches them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.checks import check_choice, check_range
from automix_transfer.mixing.draw import draw_beta
from automix_transfer.mixing.pairs import CoinMethod, CoinOptions, MixDraw, Mixed, blend, partners_of, paste
from automix_transfer.mixing.parts.boxes import Box, box_masks, box_share, centred_box, cut_side

PARTNERS = ("flip", "random")


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

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    switch_probability: float = 0.5
    smoothing: float = 0.1
    partner: str = "flip"


@dataclass(frozen=True)
class SwitchDraw(MixDraw):
    """The box of CutMix, or None for MixUp; ``lam`` is the realised share of image i."""

    box: Box | None


def draw_switch(
    count: int,
    size: tuple[int, int],
    options: MixUpCutMixOptions,
    rng: torch.Generator | None,
    lam: float | None = None,
) -> SwitchDraw:
    """Which of both, its λ, the partners, the box and the coin."""
    switch, coin = torch.rand(2, generator=rng).tolist()
    cut = options.cutmix_alpha > 0 and (options.mixup_alpha <= 0 or switch < options.switch_probability)
    drawn = draw_beta(options.cutmix_alpha if cut else options.mixup_alpha, rng)
    lam = drawn if lam is None else lam
    permutation = torch.randperm(count, generator=rng)
    if options.partner == "flip":
        permutation = torch.arange(count - 1, -1, -1)
    centre = int(torch.randint(size[0], (), generator=rng)), int(torch.randint(size[1], (), generator=rng))
    if not cut:
        return SwitchDraw(lam, permutation, coin < options.probability, None)
    box = centred_box(centre, (cut_side(size[0], lam), cut_side(size[1], lam)), size)
    return SwitchDraw(1 - box_share(box, size), permutation, coin < options.probability, box)


def apply_switch(images: Tensor, draw: SwitchDraw) -> Mixed:
    """The linear combination, or the partner's pixels in the box; label: λ, or the realised area."""
    partners = partners_of(images, draw)
    if draw.box is None:
        mask = images.new_full((len(images), 1, *images.shape[2:]), draw.lam)
        return Mixed(blend(images, partners, mask), mask, draw.lam)
    mask = box_masks([draw.box], images)
    return Mixed(paste(images, partners, mask), mask, draw.lam)


class MixUpCutMix(CoinMethod):
    """Eq. 2, or a binary cross-entropy, on MixUp or CutMix samples; one draw a batch."""

    options: MixUpCutMixOptions

    def __init__(self, encoder: nn.Module, options: MixUpCutMixOptions | None = None) -> None:
        options = options or MixUpCutMixOptions()
        super().__init__(encoder, options)
        check_range("mixup_alpha", options.mixup_alpha)
        check_range("cutmix_alpha", options.cutmix_alpha)
        check_range("switch_probability", options.switch_probability, 0, 1)
        check_choice("partner", options.partner, PARTNERS)
        if options.mixup_alpha == options.cutmix_alpha == 0:
            raise UserError(
                "method.mixup_alpha and method.cutmix_alpha are both 0, so nothing would be mixed; "
                "give one of them, or use method.name=vanilla"
            )

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> SwitchDraw:
        return draw_switch(count, size, self.options, rng, lam)

    def apply_draw(self, images: Tensor, labels: Tensor, draw: SwitchDraw) -> Mixed:
        return apply_switch(images, draw)
