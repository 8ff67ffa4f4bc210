"""SuperMix (Dabouei et al., 2021): masks optimised until a trained network sees all of the mixed images.
Offline by nature.

`optimise_masks` mixes one batch, `transfer/supermix_writer.py` writes a whole data set of them, and the
method here trains on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.checks import check_range
from automix_transfer.mixing.losses import LossOptions, check_loss, label_loss, target_loss
from automix_transfer.mixing.methods.mixup import check_alpha
from automix_transfer.mixing.methods.vanilla import SingleEncoderMethod


@dataclass
class SuperMixOptions(LossOptions):
    """Options of the mixing, named as in its paper; training on the result has those of the loss.

    Attributes:
        alpha: shares of the images ~ Dirichlet(α).
        images: K, images in a mix.
        sparsity: λ_s, the weight of masks that decide for one image.
        iterations: steps at most.
        mask_size: side of the masks before they are enlarged: 8 on CIFAR, 16 on ImageNet; ``sigma`` of the
            Gaussian over their gradient: 1 and 2.
        enough: share of a batch that must succeed before its optimisation ends (the released code: 0.3, and
            the others are dropped).
    """

    alpha: float = 3.0
    images: int = 2
    sparsity: float = 25.0
    iterations: int = 50
    mask_size: int = 8
    sigma: float = 1.0
    enough: float = 1.0


@dataclass(frozen=True)
class SuperMixDraw:
    """For each output the images it is made of and their shares, both (N, K)."""

    members: Tensor
    shares: Tensor


@dataclass(frozen=True)
class SuperMixed:
    """Images (N, C, H, W), masks (N, K, H, W) that sum to 1 in each pixel, targets (N, classes), and which of
    them succeeded (N,)."""

    images: Tensor
    masks: Tensor
    targets: Tensor
    success: Tensor


def check_supermix(options: SuperMixOptions) -> None:
    """Refuse options out of range."""
    check_alpha(options.alpha)
    check_loss(options)
    check_range("images", options.images, 2, 64)
    check_range("iterations", options.iterations, 1)
    check_range("mask_size", options.mask_size, 2)
    check_range("sparsity", options.sparsity)
    check_range("sigma", options.sigma, 0, 100)
    check_range("enough", options.enough, 0, 1)


def draw_supermix(count: int, options: SuperMixOptions, rng: torch.Generator | None) -> SuperMixDraw:
    """A random cycle through the batch: output i holds K images that follow each other on it; Dirichlet
    shares."""
    if count < options.images:
        raise UserError(
            f"a batch of {count} images cannot give mixes of method.images={options.images} different ones; "
            "use larger batches"
        )
    order = torch.randperm(count, generator=rng)
    members = torch.stack([order.roll(-shift) for shift in range(options.images)], dim=1)
    gamma = torch._standard_gamma(
        torch.full((count, options.images), options.alpha, dtype=torch.float64), generator=rng
    )
    gamma = gamma.clamp(min=1e-300)
    return SuperMixDraw(members, (gamma / gamma.sum(dim=1, keepdim=True)).float())


def normalized_masks(parameters: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, K, H, W) of parameters (N, K, w, w): enlarged, through a sigmoid, divided by their sum."""
    masks = torch.sigmoid(functional.interpolate(parameters, size=size, mode="bilinear", align_corners=False))
    return masks / masks.sum(dim=1, keepdim=True)


def optimise_masks(
    teacher: nn.Module, images: Tensor, draw: SuperMixDraw, options: SuperMixOptions
) -> SuperMixed:
    """Mix images (N, C, H, W) as the teacher sees them (its normalisation, eval mode).

    Target: the shares of the classes that it gives the single images. Loss: KL(target ‖ teacher) +
        λ_s·mean|M(M - 1)|; a step along the
    smoothed gradient ĝ of length clamp(loss / (⟨g, ĝ⟩ + 1e-10), 1e-4, 2000), until the classes of the target
    are the teacher's first ones.
    """
    members, size = draw.members.to(images.device), (images.shape[2], images.shape[3])
    teacher.eval()
    with torch.no_grad():
        logits = teacher(images).float()
    labels = logits.argmax(dim=1)[members]
    targets = torch.zeros(len(images), logits.shape[1], device=images.device).scatter_add_(
        1, labels, draw.shares.to(images.device)
    )
    wanted = targets > 0
    parts = images[members]  # (N, K, C, H, W)
    parameters = torch.zeros(
        len(images), members.shape[1], options.mask_size, options.mask_size, device=images.device
    )
    success = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    kernel = gaussian(options.sigma).to(images.device)
    for _ in range(options.iterations):
        parameters.requires_grad_(True)
        masks = normalized_masks(parameters, size)
        outputs = teacher((masks.unsqueeze(2) * parts).sum(dim=1)).float()
        loss = functional.kl_div(functional.log_softmax(outputs, dim=1), targets, reduction="none").sum(dim=1)
        loss = loss + options.sparsity * (masks * (1 - masks)).mean(dim=(1, 2, 3))
        (gradient,) = torch.autograd.grad(loss[~success].sum(), parameters)
        with torch.no_grad():
            gradient = gradient.nan_to_num()
            smooth = smoothed(gradient, kernel)
            length = (
                (loss.abs() / ((gradient * smooth).sum(dim=(1, 2, 3)) + 1e-10))
                .nan_to_num(nan=1e-4)
                .clamp(1e-4, 2000)
            )
            step = length.view(-1, 1, 1, 1) * smooth
            parameters = torch.where(success.view(-1, 1, 1, 1), parameters, parameters - step).detach()
            mixed = (normalized_masks(parameters, size).unsqueeze(2) * parts).sum(dim=1)
            seen = teacher(mixed).float()
            lowest = seen.masked_fill(~wanted, torch.inf).amin(dim=1)
            success = lowest > seen.masked_fill(wanted, -torch.inf).amax(dim=1)
        if success.float().mean() >= options.enough and success.any():
            break
    masks = normalized_masks(parameters, size)
    return SuperMixed((masks.unsqueeze(2) * parts).sum(dim=1), masks, targets, success)


def gaussian(sigma: float) -> Tensor:
    """Odd weights that sum to 1, out to 2.5 standard deviations."""
    reach = int(2.5 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(1)
    return weights / weights.sum()


def smoothed(values: Tensor, kernel: Tensor) -> Tensor:
    """Maps (N, K, w, w) convolved with ``kernel`` in both directions; nothing lies beyond the border."""
    flat, reach = values.flatten(0, 1).unsqueeze(1), math.floor(len(kernel) / 2)
    flat = functional.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, reach)).view_as(values)


class SuperMix(SingleEncoderMethod):
    """Cross-entropy on a data set that holds mixed images with soft labels beside the real ones
    (``data.mixed``)."""

    soft_labels = True

    def __init__(self, encoder: nn.Module, options: SuperMixOptions | None = None) -> None:
        super().__init__(encoder)
        self.options = options or SuperMixOptions()
        check_supermix(self.options)

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        logits = self.encoder(images)
        soft = labels.ndim == 2
        loss = (
            target_loss(logits.float(), labels.float(), self.options)
            if soft
            else label_loss(logits, labels, self.options)
        )
        return StepOutput(loss, {"loss_mce": loss.detach()})
