"""Adversarial images in pixel space: FGSM (Table 6) and PGD, within ε of the image and within [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.rng import derive_generator

EPSILON = 8 / 255
#: (network of pixels, pixels, labels, indices) -> attacked pixels
Attack = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class OfPixels(nn.Module):
    """A network of images (N, 3, H, W) in [0, 1], which normalises them and calls ``encoder``."""

    def __init__(self, encoder: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder((pixels - self.mean) / self.std)

    def pixels_of(self, images: Tensor) -> Tensor:
        """Normalised images back in [0, 1]; rounding that would leave the range is clamped."""
        return (images * self.std + self.mean).clamp(0, 1)


def fgsm(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    indices: Tensor | None = None,
    epsilon: float = EPSILON,
) -> Tensor:
    """x + ε · sign(∂CE/∂x), clamped to [0, 1]: pixels (N, 3, H, W), labels (N,); ``indices`` play no part."""
    return signed_step(pixels, gradient_of(network, pixels, labels)[0], epsilon)


def signed_step(pixels: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    """FGSM's step along a gradient that is known already."""
    return (pixels + epsilon * gradient.sign()).clamp(0, 1)


def pgd(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    indices: Tensor,
    epsilon: float = EPSILON,
    steps: int = 20,
    step_size: float = 2 / 255,
    seed: int = 0,
) -> Tensor:
    """``steps`` times x ← x + step_size · sign(∂CE/∂x), each clamped to the ε-ball and to [0, 1].

    The start is uniform in the ball and derives from (seed, index of the image), so that it does not depend
    on the batches.
    """
    generators = (derive_generator(seed, "pgd", int(index)) for index in indices)
    start = torch.stack([2 * torch.rand(pixels.shape[1:], generator=g) - 1 for g in generators])
    attacked = (pixels + epsilon * start.to(pixels)).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + step_size * gradient_of(network, attacked, labels)[0].sign()
        attacked = torch.minimum(torch.maximum(attacked, pixels - epsilon), pixels + epsilon).clamp(0, 1)
    return attacked


def gradient_of(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """∂(sum of CE)/∂x, and the logits (N, K) of the same pass; no parameter gets a gradient."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = network(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return torch.autograd.grad(loss, images)[0], logits.detach()
