"""NOT exact AutoMix: the same terms of Eq. 8, estimated from a part of the batch or from smaller images."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.step import AutoMix, AutoMixDraw, both
from automix_transfer.mixing.draw import PairDraw, Rng, Size
from automix_transfer.mixing.heads import classify_with
from automix_transfer.mixing.losses import pair_loss
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.taps import feature_grid


class FastAutoMix(AutoMix):
    """`AutoMix` with fewer passes; each option is a share, and 1 is the paper.

    q learns from the last ``mixed_share`` of the mixed images and the first ``clean_share`` of the clean
    ones, so that halves cover the batch. M learns from the first ``generator_share`` of the pairs. Masks are
    made from images with ``features_scale`` times their sides.
    """

    def __init__(self, encoder: nn.Module, *arguments: Any, **overrides: Any) -> None:
        super().__init__(encoder, *arguments, **overrides)
        self.options.cross_entropy &= self.options.clean_share > 0

    def prepare(self, info: EncoderInfo) -> None:
        """Refuse smaller images where the encoder is built for one size, or where masks have a single cell.

        Raises:
            UserError: names the option, the encoder and what to do.
        """
        super().prepare(info)
        scale = self.options.features_scale
        if scale == 1:
            return
        side, problem = max(round(info.image_size * scale), 1), f"method.features_scale={scale:g} gives"
        try:
            cells = feature_grid(self.encoder_q, self.layer, side)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{problem} images of {side} px, which {type(self.encoder_q).__name__} does not take (it is "
                f"built for {info.image_size} px); leave it at 1, or lower method.generator_share instead"
            ) from error
        if min(cells) < 2:
            raise UserError(
                f"{problem} masks of {cells[0]}x{cells[1]} cells at layer '{self.layer}'; raise it or choose "
                "an earlier method.feature_layer"
            )

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> AutoMixDraw:
        draw = super().draw(count, size, rng, lam)
        pairs = part_of(count, self.options.generator_share)
        return dataclasses.replace(draw, k=PairDraw(draw.k.lam, draw.k.permutation[:pairs]))

    def mask_features(self, images: Tensor) -> Tensor:
        return super().mask_features(shrunk(images, self.options.features_scale))

    def mixed_loss(self, mixed: Tensor, labels: Tensor, pairs: PairDraw) -> Tensor:
        first = len(mixed) - part_of(len(mixed), self.options.mixed_share)
        logits = classify_with(self.encoder_q, self.head_q, mixed[first:])
        own, partner = both(labels, pairs)
        return pair_loss(logits, own[first:], partner[first:], pairs.lam, self.options)

    def clean_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        count = part_of(len(images), self.options.clean_share)
        return super().clean_loss(images[:count], labels[:count])


def part_of(count: int, share: float) -> int:
    """How many of ``count`` images a share of them is; at least two, which BatchNorm needs."""
    return min(max(round(share * count), 2), count)


def shrunk(images: Tensor, scale: float) -> Tensor:
    """Images (N, C, H, W) with ``scale`` times their sides, each pixel the mean of those it covers."""
    if scale == 1:
        return images
    height, width = (max(round(side * scale), 1) for side in images.shape[2:])
    return functional.interpolate(images, size=(height, width), mode="area")
