"""MixUp: a linear combination of two images and of their labels."""

from __future__ import annotations

import torch
from torch import Tensor

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.pairs import BesideClean, partners_of


def combine(values: Tensor, draw: PairDraw) -> Tensor:
    """λ·h_i + (1-λ)·h_j of images, feature maps or tokens (N, ...)."""
    return torch.lerp(partners_of(values, draw), values, draw.lam)


def combined(images: Tensor, draw: PairDraw) -> Mixed:
    """Images mixed everywhere alike."""
    mask = images.new_full((len(images), 1, *images.shape[2:]), draw.lam)
    return Mixed(combine(images, draw), mask, draw.lam)


class MixUp(BesideClean):
    """Eq. 2 on linear combinations; one λ a batch. Appendix A.1: ``alpha`` 1 for CIFAR and large
    encoders, 0.2 for ResNet-18 on Tiny-ImageNet and ImageNet."""

    def mix(self, images: Tensor, labels: Tensor, draw: PairDraw) -> Mixed:
        return combined(images, draw)
