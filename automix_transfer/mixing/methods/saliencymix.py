"""SaliencyMix (Uddin et al., 2021): CutMix whose box lies around the most salient pixel of the image that it
is cut from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import one_of
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.pairs import PairMethod, PairOptions, partners_of, paste
from automix_transfer.mixing.parts.boxes import box_masks, box_share, centred_box, cut_sides
from automix_transfer.mixing.parts.detector import saliency_as_published, saliency_uint8


@dataclass
class SaliencyMixOptions(PairOptions):
    """``detector``: ``uint8`` sees the image, as intended; ``as_published`` sees the bytes of normalised
    floats, as in the released code, and points at noise. ``box``: each ``pair`` has its own, around its
    partner's salient pixel, as the method's paper says; or ``batch``: one for all, from the first partner, as
    in the released code."""

    detector: str = one_of("uint8", "uint8", "as_published")
    box: str = one_of("pair", "pair", "batch")


class SaliencyMix(PairMethod):
    """Eq. 2 on images with the surroundings of their partner's salient pixel; label: the realised area of
    each box."""

    options_class = SaliencyMixOptions

    def salient_pixels(self, images: Tensor) -> list[tuple[int, int]]:
        """The (row, column) of each image's highest saliency, for normalised images (N, C, H, W)."""
        if self.options.detector == "as_published":
            maps = saliency_as_published(images)
        else:
            maps = saliency_uint8((self.plain(images).nan_to_num() * 255).round().clamp(0, 255))
        width = images.shape[3]
        return [divmod(place, width) for place in maps.flatten(1).argmax(dim=1).tolist()]

    def mix(self, images: Tensor, labels: Tensor, draw: PairDraw) -> Mixed:
        size, one_box, partners = images.shape[2:], self.options.box == "batch", partners_of(images, draw)
        centres = self.salient_pixels(partners[:1] if one_box else partners)
        boxes = [centred_box(centre, cut_sides(size, draw.lam), size) for centre in centres]
        mask, shares = box_masks(boxes, images), [1 - box_share(box, size) for box in boxes]
        lam = shares[0] if one_box else torch.tensor(shares, device=images.device)
        return Mixed(paste(images, partners, mask), mask, lam)
