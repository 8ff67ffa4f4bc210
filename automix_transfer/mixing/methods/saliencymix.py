"""SaliencyMix (Uddin et al., 2021): CutMix whose box lies around the most salient pixel of the image that it
is cut from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.mixing.checks import check_choice
from automix_transfer.mixing.pairs import MixDraw, Mixed, PairMethod, PairOptions, partners_of, paste
from automix_transfer.mixing.parts.boxes import box_masks, box_share, centred_box, cut_side
from automix_transfer.mixing.parts.detector import saliency_as_published, saliency_uint8

DETECTORS = ("uint8", "as_published")
BOXES = ("pair", "batch")


@dataclass
class SaliencyMixOptions(PairOptions):
    """``detector``: ``uint8`` sees the image, as intended; ``as_published`` sees the bytes of normalised
    floats, as in the released code, and points at noise. ``box``: each ``pair`` has its own, around its
    partner's salient pixel, as the method's paper says; or ``batch``: one for all, from the first partner, as
    in the released code."""

    detector: str = "uint8"
    box: str = "pair"


def salient_pixels(
    images: Tensor, options: SaliencyMixOptions, mean: tuple[float, ...], std: tuple[float, ...]
) -> list[tuple[int, int]]:
    """The (row, column) of each image's highest saliency, for normalised images (N, C, H, W)."""
    if options.detector == "as_published":
        maps = saliency_as_published(images)
    else:
        scale, shift = (
            torch.tensor(v, device=images.device, dtype=torch.float32).view(-1, 1, 1) for v in (std, mean)
        )
        plain = images.float() * scale + shift if images.shape[1] == len(mean) else images.float()
        maps = saliency_uint8((plain.nan_to_num() * 255).round().clamp(0, 255))
    width = images.shape[3]
    return [(place // width, place % width) for place in maps.flatten(1).argmax(dim=1).tolist()]


def apply_saliencymix(
    images: Tensor,
    draw: MixDraw,
    options: SaliencyMixOptions,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Mixed:
    """Images (N, C, H, W) with the surroundings of their partner's salient pixel; label: the realised area of
    each box."""
    size = (images.shape[2], images.shape[3])
    sides = cut_side(size[0], draw.lam), cut_side(size[1], draw.lam)
    partners = partners_of(images, draw)
    seen = partners[:1] if options.box == "batch" else partners
    boxes = [centred_box(centre, sides, size) for centre in salient_pixels(seen, options, mean, std)]
    mask = box_masks(boxes, images)
    shares = [1 - box_share(box, size) for box in boxes]
    lam = shares[0] if options.box == "batch" else torch.tensor(shares, device=images.device)
    return Mixed(paste(images, partners, mask), mask, lam)


class SaliencyMix(PairMethod):
    """Eq. 2 on images with the salient part of their partner."""

    options: SaliencyMixOptions

    def __init__(self, encoder: nn.Module, options: SaliencyMixOptions | None = None) -> None:
        options = options or SaliencyMixOptions()
        super().__init__(encoder, options)
        check_choice("detector", options.detector, DETECTORS)
        check_choice("box", options.box, BOXES)

    def apply_draw(self, images: Tensor, labels: Tensor, draw: MixDraw) -> Mixed:
        return apply_saliencymix(images, draw, self.options, self.mean, self.std)
