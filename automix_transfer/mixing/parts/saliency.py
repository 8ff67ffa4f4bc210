"""Saliency of an image for its label: the size of the loss's gradient with respect to each pixel, and its
shares in blocks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.mixing.base import Mixed, StepOutput
from automix_transfer.mixing.draw import Size
from automix_transfer.mixing.losses import PLAIN, LossOptions, summed_loss
from automix_transfer.mixing.pairs import BesideClean
from automix_transfer.mixing.precision import full_precision, in_float16
from automix_transfer.models.eval_mode import eval_mode


def input_saliency(
    encoder: nn.Module, images: Tensor, labels: Tensor, options: LossOptions = PLAIN
) -> Tensor:
    """s = sqrt(mean over channels of (∂CE/∂x)²), (N, H, W) float32, with the encoder in eval mode and no
    gradient for its weights. CE is that of ``options``.

    Costs two passes. The loss is summed, not averaged, so that a larger batch does not push gradients under
    half precision's least number.
    """
    with eval_mode(encoder), torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        loss = summed_loss(encoder(inputs).float(), labels, options)
        with full_precision(
            images.device.type
        ):  # a backward operation takes its forward operation's precision
            (gradient,) = torch.autograd.grad(loss, inputs)
    return channel_norm(gradient)


def saliency_with_loss(
    encoder: nn.Module, images: Tensor, labels: Tensor, options: LossOptions = PLAIN
) -> tuple[Tensor, Tensor]:
    """Saliency (N, H, W) as above, but in the encoder's own mode, and the mean loss of the clean images,
    which may be trained on.

    One backward pass gives both, so they cost three passes and not four: the loss's gradients for the weights
    are kept and come back as a term that is linear in the weights. Under float16 autocast they cost four, for
    there those gradients need the scaler's factor on their whole way.
    """
    weights = [p for p in encoder.parameters() if p.requires_grad]
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        loss = summed_loss(encoder(inputs).float(), labels, options)
        half = in_float16(images.device.type)
        with full_precision(images.device.type):
            if half:
                (gradient,) = torch.autograd.grad(loss, inputs, retain_graph=True)
                mean = loss / len(images)
            else:
                gradient, *found = torch.autograd.grad(loss, [inputs, *weights], allow_unused=True)
                reached = [
                    (p.float(), g.float()) for p, g in zip(weights, found, strict=True) if g is not None
                ]
                linear = torch.stack([(p * (g / len(images))).sum() for p, g in reached]).sum()
                mean = loss.detach() / len(images) + linear - linear.detach()
    return channel_norm(gradient), mean


def channel_norm(gradient: Tensor) -> Tensor:
    """sqrt(mean over channels of g²), (N, H, W) float32."""
    return gradient.float().square().mean(dim=1).sqrt()


class SalientMethod(BesideClean):
    """Mixes by the saliency of the clean images. Where ``options.clean_weight`` is not 0, the pass that it
    takes trains on them, too."""

    def mix_salient(self, images: Tensor, labels: Tensor, draw: Any, saliency: Tensor) -> Mixed:
        """Normalised images (N, C, H, W) and labels, mixed by their saliency (N, H, W)."""
        raise NotImplementedError

    def mix(self, images: Tensor, labels: Tensor, draw: Any) -> Mixed:
        # of one label an image it is the gradient of CE whatever the loss is, as the methods' codes have it
        options = self.options if labels.ndim == 2 and self.options.loss == "bce" else PLAIN
        return self.mix_salient(images, labels, draw, input_saliency(self.encoder, images, labels, options))

    def step(self, images: Tensor, labels: Tensor, draw: Any) -> StepOutput:
        if not self.options.clean_weight:
            return super().step(images, labels, draw)
        saliency, clean = saliency_with_loss(self.encoder, images, labels, self.options)
        mixed = self.mix_salient(images, labels, draw, saliency)
        output = self.classified(self.encoder(mixed.images), labels, draw, mixed)
        self.add_clean(output, clean)
        return output


def block_means(values: Tensor, blocks: Size) -> Tensor:
    """(N, C, H, W) or (N, H, W) averaged to blocks (h, w), which must divide H and W."""
    return functional.avg_pool2d(values, (values.shape[-2] // blocks[0], values.shape[-1] // blocks[1]))


def block_shares(saliency: Tensor, blocks: Size) -> Tensor:
    """Each block's share (N, h, w) of its image's saliency (N, H, W); rows sum to 1.

    NaN and infinite values count as none; an image without any saliency has the same share everywhere.
    """
    pooled = block_means(saliency.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), blocks)
    peak = pooled.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    pooled = pooled / peak  # no overflow in the sum
    total = pooled.flatten(1).sum(dim=1).view(-1, 1, 1)
    even = torch.full_like(pooled, 1 / math.prod(blocks))
    return torch.where(total > 0, pooled / total.clamp(min=1e-12), even)


def enlarge(grid: Tensor, size: Size) -> Tensor:
    """A grid (N, h, w) as a mask (N, 1, H, W), each cell a rectangle."""
    return functional.interpolate(grid.unsqueeze(1), size=size, mode="nearest")
