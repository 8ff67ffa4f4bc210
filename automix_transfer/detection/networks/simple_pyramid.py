"""ViTDet's simple feature pyramid (arXiv 2203.16527, Section 3): every level of one map of stride 16."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from detectron2.layers import get_norm
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from automix_transfer.errors import UserError


class SimplePyramid(Backbone):
    """Maps {"p2": (N, C, H/4, W/4), ..., "p5", "p6"} of one map of stride 16; no level sees another.

    The map is made larger by deconvolutions (stride 4: two, with a norm and GELU between; stride 8: one) or
    smaller by max-pooling (32), then comes a 1×1 and a 3×3 convolution, each with a norm. The last level is
    pooled once more.

    Args:
        bottom_up: a backbone with one feature of stride 16.
        strides: of the levels, from the finest; some of 4, 8, 16 and 32 that follow each other.
        out_channels: C.
        norm: '' is LayerNorm, as in the paper, which release 0.6 of Detectron2 has no name for; else one of
            Detectron2's.
    """

    def __init__(self, bottom_up: Backbone, strides: Sequence[int], out_channels: int, norm: str) -> None:
        super().__init__()
        if not strides or any(2 * finer != coarser for finer, coarser in pairwise(strides)):
            raise UserError(
                "MODEL.FPN.IN_FEATURES must be levels that follow each other, from the finest: some of res2, "
                "res3, res4, res5"
            )
        ((_, shape),) = bottom_up.output_shape().items()
        self.bottom_up, self.top_block = bottom_up, LastLevelMaxPool()
        self.levels = nn.ModuleDict(
            {_level(stride): _layers(shape.channels, stride, out_channels, norm) for stride in strides}
        )
        self._strides = [*strides, 2 * strides[-1]]
        self._out_features = [_level(stride) for stride in self._strides]
        self._out_feature_strides = dict(zip(self._out_features, self._strides, strict=True))
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        (features,) = self.bottom_up(images).values()
        maps = [level(features) for level in self.levels.values()]
        return dict(zip(self._out_features, [*maps, *self.top_block(maps[-1])], strict=True))

    @property
    def size_divisibility(self) -> int:
        return max(16, self._strides[-2])


def _level(stride: int) -> str:
    return f"p{int(math.log2(stride))}"


def _layers(channels: int, stride: int, out_channels: int, norm: str) -> nn.Sequential:
    """From the map of stride 16 to the level of ``stride``."""

    def normed(width: int) -> nn.Module:
        return get_norm(norm, width) if norm else LayerNorm2d(width)

    half, quarter = channels // 2, channels // 4
    resized: dict[int, tuple[list[nn.Module], int]] = {
        4: (
            [
                nn.ConvTranspose2d(channels, half, 2, stride=2),
                normed(half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ],
            quarter,
        ),
        8: ([nn.ConvTranspose2d(channels, half, 2, stride=2)], half),
        16: ([], channels),
        32: ([nn.MaxPool2d(2)], channels),
    }
    layers, width = resized[stride]
    return nn.Sequential(
        *layers,
        nn.Conv2d(width, out_channels, 1, bias=False),
        normed(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        normed(out_channels),
    )
