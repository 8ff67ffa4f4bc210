"""MixUp: a linear combination of two images and of their labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.draw import PairDraw, draw_pairs
from automix_transfer.mixing.losses import LossOptions, check_batch, check_loss, pair_loss
from automix_transfer.mixing.methods.vanilla import SingleEncoderMethod


@dataclass
class MixUpOptions(LossOptions):
    """``alpha``: λ ~ Beta(α, α). Appendix A.1: 1 for CIFAR and large encoders, 0.2 for ResNet-18 on
    Tiny-ImageNet and ImageNet."""

    alpha: float = 1.0


def apply_mixup(images: Tensor, draw: PairDraw) -> Tensor:
    """λ·x_i + (1-λ)·x_j for images (N, C, H, W)."""
    return torch.lerp(images[draw.permutation.to(images.device)], images, draw.lam)


class MixUp(SingleEncoderMethod):
    """Eq. 2 on linear combinations; one λ a batch."""

    def __init__(self, encoder: nn.Module, options: MixUpOptions | None = None) -> None:
        super().__init__(encoder)
        self.options = options or MixUpOptions()
        check_alpha(self.options.alpha)
        check_loss(self.options)

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        check_batch(images, labels)
        draw = draw_pairs(len(images), self.options.alpha, rng)
        mixed = apply_mixup(images, draw)
        loss = pair_loss(
            self.encoder(mixed), labels, labels[draw.permutation.to(labels.device)], draw.lam, self.options
        )
        mask = images.new_full((len(images), 1, *images.shape[2:]), draw.lam)
        return StepOutput(
            loss,
            {"loss_mce": loss.detach()},
            mixed=mixed,
            mask=mask,
            permutation=draw.permutation,
            lam=draw.lam,
        )


def check_alpha(alpha: float) -> None:
    """α of Beta(α, α) must be a positive number."""
    if not 0 < alpha < float("inf"):
        raise UserError(f"method.alpha is {alpha}; Beta(α, α) needs a positive number, e.g. 1.0")
