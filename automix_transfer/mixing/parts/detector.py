"""Where the salient pixel of an image is, without a network: the fine-grained detector (Montabone and Soto,
2010) as OpenCV has it.

On-centre and off-centre differences between a pixel and the mean of windows of six sizes, summed. Windows
are cut where the image ends and come from summed-area tables, a batch at a time. What OpenCV does on bytes is
exact here, so results are equal on every device; what it does in float32 is rounded as there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NEIGHBOURHOODS = (12, 24, 48, 28, 56, 112)  #: half sides of the windows, in pixels


def gray_bytes(pixels: Tensor) -> Tensor:
    """Luminance (N, H, W) of RGB bytes (N, 3, H, W) as int64, rounded as OpenCV does; other channel counts:
    their mean."""
    values = pixels.long()
    if pixels.shape[1] != 3:
        return values.float().mean(dim=1).round().long()
    return (values[:, 0] * 9798 + values[:, 1] * 19235 + values[:, 2] * 3735 + (1 << 14)) >> 15


def smooth_bytes(gray: Tensor) -> Tensor:
    """A 3×3 Gaussian (1 2 1 / 4 in both directions) on integers (N, H, W), mirrored at the border,
    rounded."""
    return (_gaussian(gray.double()) + 0.5).long()


def fine_grained(gray: Tensor, centre: Tensor | None = None) -> Tensor:
    """Saliency (N, H, W), 0 to 255, of smoothed gray images (N, H, W); ``centre`` (default: ``gray``) is
    compared with the windows.

    Integers are summed exactly. Floats are summed on the CPU in float32, row by row from the left, as OpenCV
    does. The result is a byte: where on- and off-centre parts add up to more than 255 it wraps, as there, and
    so does each scale (a mean below 0 may lie 256 below a byte).
    """
    if gray.is_floating_point():
        table = torch.from_numpy(np.cumsum(np.cumsum(gray.cpu().numpy(), axis=2), axis=1))
    else:
        table = gray.double().cumsum(2).cumsum(1)
    centre = (gray if centre is None else centre).to(table)
    table = functional.pad(table, (1, 0, 1, 0))  # table[y, x]: the sum of what is above and left
    height, width = gray.shape[1:]
    rows, columns = (torch.arange(length, device=table.device) for length in (height, width))
    on, off = torch.zeros_like(centre), torch.zeros_like(centre)
    for half in NEIGHBOURHOODS:
        top, bottom = (rows - half + 1).clamp(min=0), (rows + half + 1).clamp(max=height)
        left, right = (columns - half + 1).clamp(min=0), (columns + half + 1).clamp(max=width)
        above, below = table[:, top], table[:, bottom]
        window = below[:, :, right] + above[:, :, left] - below[:, :, left] - above[:, :, right]
        others = ((bottom - top).view(-1, 1) * (right - left).view(1, -1) - 1).clamp(min=1)
        difference = centre - (window - centre) / others
        on += difference.clamp(min=0).floor_().remainder_(256)
        off += difference.neg_().clamp_(min=0).floor_().remainder_(256)
    total = _stretched(on) + _stretched(off)
    return total.remainder(256).to(gray.device)


def saliency_uint8(pixels: Tensor) -> Tensor:
    """As intended: saliency (N, H, W) of RGB bytes (N, 3, H, W)."""
    return fine_grained(smooth_bytes(smooth_bytes(gray_bytes(pixels))))


def saliency_as_published(images: Tensor) -> Tensor:
    """As SaliencyMix's released code has it: normalised floats (N, C, H, W) go in, and the detector compares
    the windows' means with the raw bytes of each row. It is noise (its peak lies inside the object about as
    often as chance); for comparing with its numbers. Bit for bit that of OpenCV."""
    values = images.float()
    if images.shape[1] == 3:  # the code hands RGB to a function that expects BGR
        red, green, blue = values.unbind(1)
        gray = _fused(blue, 0.299, _fused(red, 0.114, green * 0.587))
    else:
        gray = values.mean(dim=1)
    gray = _gaussian(_gaussian(gray))
    # byte x of a row is a quarter of its pixel x // 4
    raw = gray.cpu().contiguous().view(torch.uint8)[:, :, : gray.shape[2]]
    return fine_grained(gray, raw)


def _fused(values: Tensor, weight: float, others: Tensor) -> Tensor:
    """values · weight + others in float32, rounded once."""
    return (values.double() * float(np.float32(weight)) + others.double()).float()


def _gaussian(values: Tensor) -> Tensor:
    """Means weighted by (1 2 1 / 4) ⊗ (1 2 1 / 4), along the rows first, which are mirrored at their ends."""
    for dimension in (2, 1):
        length = values.shape[dimension]
        place = torch.arange(-1, length + 1, device=values.device).abs()
        place = (length - 1 - (length - 1 - place).abs()).clamp(min=0)
        padded = values.index_select(dimension, place)
        before, here, after = (padded.narrow(dimension, start, length) for start in range(3))
        values = (before + after) * 0.25 + here * 0.5
    return values


def _stretched(values: Tensor) -> Tensor:
    """Scaled so that each image's maximum is 255, as bytes; an image without any stays 0. The quotient is in
    float32, as in OpenCV."""
    peak = values.flatten(1).amax(dim=1).view(-1, 1, 1)
    share = values.float() / peak.clamp(min=1e-12).float()
    return (255 * share.double()).floor().clamp(max=255) * (peak > 0)
