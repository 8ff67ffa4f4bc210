"""TransMix (Chen et al., 2022): MixUp or CutMix by a coin, where CutMix's label also follows what the class
token attends to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.checks import between
from automix_transfer.mixing.draw import PairDraw, Size
from automix_transfer.mixing.methods.mixup_cutmix import MixUpCutMix, MixUpCutMixOptions
from automix_transfer.mixing.pairs import BoxDraw
from automix_transfer.mixing.parts.attention import attention_block, class_attention


@dataclass
class TransMixOptions(MixUpCutMixOptions):
    """``attention_weight``: of the attention in CutMix's label, beside the area."""

    attention_weight: float = between(0.5, 0, 1)


def attention_share(attention: Tensor, mask: Tensor, grid: Size) -> Tensor:
    """Share (N,) of the attention (N, h·w) that falls on image i, by its mask (N, 1, H, W) taken at the
    nearest pixel of each patch.

    Attention that is all zero or not finite counts as uniform.
    """
    small = functional.interpolate(mask.float(), size=grid, mode="nearest").flatten(1)
    total = attention.sum(dim=1)
    good = torch.isfinite(total) & (total > 0)
    share = (attention * small).sum(dim=1) / torch.where(good, total, torch.ones_like(total))
    return torch.where(good, share, small.mean(dim=1)).clamp(0, 1)


class TransMix(MixUpCutMix):
    """Eq. 2; on CutMix samples the label is half the area and half the attention of the same forward pass.
    Needs a class token. `mix` gives the area; `step` adds what the pass attends to."""

    options_class = TransMixOptions
    reads_layers = True

    def __init__(self, encoder: nn.Module, options: TransMixOptions | None = None) -> None:
        super().__init__(encoder, options)
        attention_block(encoder)

    def step(self, images: Tensor, labels: Tensor, draw: PairDraw) -> StepOutput:
        if not isinstance(draw, BoxDraw):
            return super().step(images, labels, draw)
        mixed = self.mix(images, labels, draw)
        with class_attention(self.encoder) as attention:
            logits = self.encoder(mixed.images)
        grid = self.grid(images.shape[2:], attention[0].shape[1])
        share = attention_share(attention[0], mixed.mask, grid)
        weight = self.options.attention_weight
        mixed = dataclasses.replace(mixed, lam=(1 - weight) * draw.lam + weight * share)
        output = self.classified(logits, labels, draw, mixed)
        output.metrics["attention_share"] = share.mean()
        return output

    def grid(self, size: Size, patches: int) -> tuple[int, int]:
        """Patches (h, w) of an image of ``size``."""
        side = getattr(getattr(self.encoder, "patch_embed", None), "patch_size", None)
        if side and size[0] // side[0] * (size[1] // side[1]) == patches:
            return size[0] // side[0], size[1] // side[1]
        return int(patches**0.5), patches // int(patches**0.5)
