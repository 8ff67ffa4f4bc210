"""Where the salient pixel of an image is, without a network: the fine-grained detector (Montabone and Soto,
2010) as OpenCV has it.

On-centre and off-centre differences between a pixel and the mean of windows of six sizes, summed. All
arithmetic that OpenCV does on bytes is done on integers here, so that results are equal on every device;
windows come from summed-area tables, a batch at a time.
"""

from __future__ import annotations

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
    total = _gaussian(gray.double()).long()
    return (total + 8) >> 4


def fine_grained(gray: Tensor, centre: Tensor | None = None) -> Tensor:
    """Saliency (N, H, W), 0 to 255, of smoothed gray images (N, H, W); ``centre`` (default: ``gray``) is
    compared with the windows.

    The result is a byte: where on- and off-centre parts add up to more than 255 it wraps, as in OpenCV.
    """
    centre = (gray if centre is None else centre).double()
    # table[y, x]: the sum of what is above and left
    table = functional.pad(gray.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    height, width = gray.shape[1:]
    rows, columns = (torch.arange(length, device=gray.device) for length in (height, width))
    on, off = torch.zeros_like(centre), torch.zeros_like(centre)
    for half in NEIGHBOURHOODS:
        top, bottom = (rows - half + 1).clamp(0, height - 1), (rows + half + 1).clamp(0, height - 1)
        left, right = (columns - half + 1).clamp(0, width - 1), (columns + half + 1).clamp(0, width - 1)
        between = table[:, bottom] - table[:, top]
        window = between[:, :, right] - between[:, :, left]
        others = ((bottom - top).view(-1, 1) * (right - left).view(1, -1) - 1).clamp(min=1)
        difference = centre - (window - centre) / others
        on += difference.clamp(min=0).floor_()
        off += difference.neg_().clamp_(min=0).floor_()
    total = _stretched(on) + _stretched(off)
    peak = total.new_full((), 255.0)  # the larger of both maxima, each stretched to 255
    return (255 * total / peak).floor().remainder(256)


def saliency_uint8(pixels: Tensor) -> Tensor:
    """As intended: saliency (N, H, W) of RGB bytes (N, 3, H, W)."""
    return fine_grained(smooth_bytes(smooth_bytes(gray_bytes(pixels))))


def saliency_as_published(images: Tensor) -> Tensor:
    """As SaliencyMix's released code has it: normalised floats (N, C, H, W) go in, and the detector compares
    the windows' means with the raw bytes of each row. It is noise (its peak lies inside the object about as
    often as chance); for comparing with its numbers."""
    values = images.float()
    weights = (0.114, 0.587, 0.299)  # the code hands RGB to a function that expects BGR
    gray = (
        sum(w * values[:, c] for c, w in enumerate(weights)) if images.shape[1] == 3 else values.mean(dim=1)
    )
    gray = (_gaussian(_gaussian(gray.double()) / 16) / 16).float()  # type: ignore[union-attr]
    # byte x of a row is a quarter of its pixel x // 4
    raw = gray.cpu().contiguous().view(torch.uint8)[:, :, : gray.shape[2]]
    return fine_grained(gray, raw.to(gray.device))


def _gaussian(values: Tensor) -> Tensor:
    """Sums weighted by (1 2 1) ⊗ (1 2 1); divide by 16."""
    for dimension in (1, 2):
        length = values.shape[dimension]
        place = torch.arange(-1, length + 1, device=values.device).abs()
        place = (length - 1 - (length - 1 - place).abs()).clamp(min=0)  # mirrored at the border
        padded = values.index_select(dimension, place)
        before, here, after = (padded.narrow(dimension, start, length) for start in range(3))
        values = before + 2 * here + after
    return values


def _stretched(values: Tensor) -> Tensor:
    """Scaled so that each image's maximum is 255, as bytes; an image without any stays 0."""
    peak = values.flatten(1).amax(dim=1).view(-1, 1, 1)
    return (255 * values / peak.clamp(min=1e-12)).floor().clamp(max=255) * (peak > 0)
