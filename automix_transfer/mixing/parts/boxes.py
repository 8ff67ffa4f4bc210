"""Rectangles that methods cut, paste and weigh: one convention for all of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automix_transfer.mixing.draw import Rng, Size

Box = tuple[int, int, int, int]  #: [top, bottom) × [left, right), in pixels


def cut_sides(size: Size, lam: float) -> Size:
    """The image's sides times sqrt(1-λ), rounded down: of a box that leaves about the share λ of it."""
    return tuple(int(length * math.sqrt(max(1 - lam, 0.0))) for length in size)


def centred_box(centre: tuple[int, int], sides: Size, size: Size) -> Box:
    """The box [c - s//2, c + s//2) in both dimensions, clipped to an image of ``size`` (H, W)."""
    (y, x), (high, wide) = centre, sides
    return (
        max(y - high // 2, 0),
        min(y + high // 2, size[0]),
        max(x - wide // 2, 0),
        min(x + wide // 2, size[1]),
    )


def box_share(box: Box, size: Size) -> float:
    """Share of an image of ``size`` (H, W) that ``box`` covers."""
    top, bottom, left, right = box
    return max(bottom - top, 0) * max(right - left, 0) / (size[0] * size[1])


def box_masks(boxes: list[Box], like: Tensor) -> Tensor:
    """Masks (N, 1, H, W) for images like (N, C, H, W): 0 inside each image's box, 1 outside. One box may
    serve the whole batch."""
    height, width = like.shape[2:]
    edges = torch.tensor(boxes).to(like.device, non_blocking=True).view(-1, 4, 1, 1, 1)
    rows = torch.arange(height, device=like.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=like.device).view(1, 1, 1, -1)
    inside = (rows >= edges[:, 0]) & (rows < edges[:, 1]) & (columns >= edges[:, 2]) & (columns < edges[:, 3])
    return (~inside).to(like.dtype).expand(len(like), 1, height, width)


def random_box(sides: Size, size: Size, rng: Rng, inside: bool = False) -> Box:
    """A box of ``sides`` around a uniform centre in an image of ``size`` (H, W), clipped at the border; or
    moved ``inside``, so that none of it is lost."""
    y, x = (int(torch.randint(length, (), generator=rng)) for length in size)
    if inside:
        (high, wide), (height, width) = (side // 2 for side in sides), size
        y, x = min(max(y, high), height - high), min(max(x, wide), width - wide)
    return centred_box((y, x), sides, size)
