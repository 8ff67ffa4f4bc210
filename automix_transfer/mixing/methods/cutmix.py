"""CutMix: a rectangle of the partner pasted into the image; the label follows the area that is really
covered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.draw import draw_pairs
from automix_transfer.mixing.losses import LossOptions, check_batch, check_loss, label_loss, pair_loss
from automix_transfer.mixing.methods.mixup import check_alpha
from automix_transfer.mixing.methods.vanilla import SingleEncoderMethod
from automix_transfer.mixing.parts.boxes import Box, box_masks, box_share, centred_box, cut_side


@dataclass
class CutMixOptions(LossOptions):
    """``alpha``: λ ~ Beta(α, α). ``probability`` of mixing a batch: 0.5 on CIFAR and 1 on ImageNet in its
    authors' code."""

    alpha: float = 1.0
    probability: float = 1.0


@dataclass(frozen=True)
class CutMixDraw:
    """Whether to mix, the partners (N,), and the box [top, bottom) × [left, right) that the partner fills."""

    apply: bool
    permutation: Tensor
    box: Box
    lam: float  #: share of image i after clipping the box at the border


def draw_cutmix(
    count: int, size: tuple[int, int], options: CutMixOptions, rng: torch.Generator | None
) -> CutMixDraw:
    """Box of sides H·sqrt(1-λ), W·sqrt(1-λ) around a uniform centre, clipped; λ becomes the realised area
    share."""
    pairs = draw_pairs(count, options.alpha, rng)
    coin = float(torch.rand((), generator=rng))
    centre = int(torch.randint(size[0], (), generator=rng)), int(torch.randint(size[1], (), generator=rng))
    box = centred_box(centre, (cut_side(size[0], pairs.lam), cut_side(size[1], pairs.lam)), size)
    return CutMixDraw(coin < options.probability, pairs.permutation, box, 1 - box_share(box, size))


def apply_cutmix(images: Tensor, draw: CutMixDraw) -> Tensor:
    """Images (N, C, H, W) with the partner's pixels inside the box."""
    top, bottom, left, right = draw.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[
        draw.permutation.to(images.device), :, top:bottom, left:right
    ]
    return mixed


class CutMix(SingleEncoderMethod):
    """Eq. 2 on cut-and-paste images; one box a batch."""

    def __init__(self, encoder: nn.Module, options: CutMixOptions | None = None) -> None:
        super().__init__(encoder)
        self.options = options or CutMixOptions()
        check_alpha(self.options.alpha)
        check_loss(self.options)
        if not 0 <= self.options.probability <= 1:
            raise UserError(
                f"method.probability is {self.options.probability}; give a probability from 0 to 1"
            )

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        check_batch(images, labels)
        draw = draw_cutmix(len(images), (images.shape[2], images.shape[3]), self.options, rng)
        if not draw.apply:
            loss = label_loss(self.encoder(images), labels, self.options)
            return StepOutput(loss, {"loss_ce": loss.detach()})
        mixed = apply_cutmix(images, draw)
        loss = pair_loss(
            self.encoder(mixed), labels, labels[draw.permutation.to(labels.device)], draw.lam, self.options
        )
        mask = box_masks([draw.box], images)
        return StepOutput(
            loss,
            {"loss_mce": loss.detach()},
            mixed=mixed,
            mask=mask,
            permutation=draw.permutation,
            lam=draw.lam,
        )
