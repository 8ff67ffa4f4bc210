"""Fewer and smaller images, for the passes that an approximation saves."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def part_of(count: int, share: float) -> int:
    """How many of ``count`` images a share of them is: none, or at least two, which BatchNorm needs."""
    return min(max(round(share * count), 2), count) if share else 0


def shrunk(images: Tensor, scale: float) -> Tensor:
    """Images (N, C, H, W) with ``scale`` times their sides, each pixel the mean of those it covers."""
    if scale == 1:
        return images
    height, width = (max(round(side * scale), 1) for side in images.shape[2:])
    return functional.interpolate(images, size=(height, width), mode="area")
