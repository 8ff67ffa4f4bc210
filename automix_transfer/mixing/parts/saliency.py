"""Saliency of an image for its label: the size of the loss's gradient with respect to each pixel, and its
shares in blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.mixing.losses import PLAIN, LossOptions, summed_loss
from automix_transfer.mixing.precision import in_float16
from automix_transfer.models.eval_mode import eval_mode


def input_saliency(encoder: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """s = sqrt(mean over channels of (∂CE/∂x)²), (N, H, W) float32, with the encoder in eval mode and no
    gradient for its weights.

    Costs two passes. The loss is summed, not averaged, so that a larger batch does not push gradients under
    half precision's least number.
    """
    with eval_mode(encoder), torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        loss = functional.cross_entropy(encoder(inputs).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, inputs)
    return gradient.float().square().mean(dim=1).sqrt()


def saliency_with_loss(
    encoder: nn.Module, images: Tensor, labels: Tensor, options: LossOptions = PLAIN
) -> tuple[Tensor, Tensor]:
    """Saliency (N, H, W) as above, but in the encoder's own mode, and the mean loss of the clean images,
    which may be trained on.

    One backward pass gives both: the loss's gradients for the weights are kept and come back as a term that
        is linear in the weights,
    so three passes and not four. Under float16 autocast it is four, for there those gradients need the
    scaler's factor on their whole way.
    """
    weights = [p for p in encoder.parameters() if p.requires_grad]
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        loss = summed_loss(encoder(inputs).float(), labels, options)
        if in_float16(images.device.type):
            (gradient,) = torch.autograd.grad(loss, inputs, retain_graph=True)
            return gradient.float().square().mean(dim=1).sqrt(), loss / len(images)
        gradient, *for_weights = torch.autograd.grad(loss, [inputs, *weights], allow_unused=True)
        linear = torch.stack(
            [
                (p.float() * (g.float() / len(images))).sum()
                for p, g in zip(weights, for_weights, strict=True)
                if g is not None
            ]
        ).sum()
        mean = loss.detach() / len(images)
        return gradient.float().square().mean(dim=1).sqrt(), mean + linear - linear.detach()


def block_means(values: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) or (N, H, W) averaged to blocks (h, w), which must divide H and W."""
    return functional.avg_pool2d(values, (values.shape[-2] // blocks[0], values.shape[-1] // blocks[1]))


def block_shares(saliency: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Each block's share (N, h, w) of its image's saliency (N, H, W); rows sum to 1.

    NaN and infinite values count as none; an image without any saliency has the same share everywhere.
    """
    pooled = block_means(saliency.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), blocks)
    # no overflow in the sum
    pooled = pooled / pooled.flatten(1).amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny).view(-1, 1, 1)
    total = pooled.flatten(1).sum(dim=1).view(-1, 1, 1)
    return torch.where(
        total > 0, pooled / total.clamp(min=1e-12), torch.full_like(pooled, 1 / (blocks[0] * blocks[1]))
    )


def enlarge(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """A grid (N, h, w) as a mask (N, 1, H, W), each cell a rectangle."""
    return functional.interpolate(grid.unsqueeze(1), size=size, mode="nearest")
