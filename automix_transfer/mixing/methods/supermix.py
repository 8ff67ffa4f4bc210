"""SuperMix (Dabouei et al., 2021): masks optimised until a trained network sees all of the mixed images.
Offline by nature.

`SuperMix.mix` mixes one batch, as its encoder sees it; `export/supermix_writer.py` writes a whole data set
of such batches with a trained network, and a run trains on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed, SingleEncoderMethod, StepOutput
from automix_transfer.mixing.checks import between, positive
from automix_transfer.mixing.draw import Draw, Rng, Size, draw_gamma
from automix_transfer.mixing.losses import LossOptions, label_loss, target_loss
from automix_transfer.mixing.precision import full_precision

if TYPE_CHECKING:
    from typing import Self


@dataclass
class SuperMixOptions(LossOptions):
    """Options of the mixing, named as in its paper; training on the result has those of the loss.

    Attributes:
        alpha: shares of the images ~ Dirichlet(α).
        images: K, images in a mix.
        sparsity: λ_s, the weight of masks that decide for one image.
        iterations: steps at most.
        mask_size: side of the masks before they are enlarged: 8 on CIFAR, 16 on ImageNet.
        sigma: of the Gaussian over their gradient: 1 on CIFAR, 2 on ImageNet.
        enough: share of a batch that must succeed before its optimisation ends (the released code: 0.3, and
            the others are dropped).
    """

    alpha: float = positive(3.0)
    images: int = between(2, 2, 64)
    sparsity: float = between(25.0)
    iterations: int = between(50, 1, 10**5)
    mask_size: int = between(8, 2, 4096)
    sigma: float = between(1.0, 0, 100)
    enough: float = between(1.0, 0, 1)


@dataclass(frozen=True)
class SuperMixDraw(Draw):
    """For each output the images it is made of and their shares, both (N, K)."""

    members: Tensor
    shares: Tensor

    def with_partners(self, permutation: Tensor) -> Self:
        """Each image with its partner and half of both."""
        members = torch.stack([torch.arange(len(permutation)), permutation], dim=1)
        return replace(self, members=members, shares=torch.full(members.shape, 0.5))


@dataclass(frozen=True)
class SuperMixed(Mixed):
    """``mask`` is of the first image; ``masks`` (N, K, H, W) of all sum to 1 in each pixel; ``success`` (N,):
    which outputs the network recognises."""

    masks: Tensor = field(kw_only=True)
    success: Tensor = field(kw_only=True)


def normalized_masks(parameters: Tensor, size: Size) -> Tensor:
    """Masks (N, K, H, W) of parameters (N, K, w, w): enlarged, through a sigmoid, divided by their sum."""
    large = functional.interpolate(parameters, size=list(size), mode="bilinear", align_corners=False)
    masks = large.sigmoid()
    return masks / masks.sum(dim=1, keepdim=True)


def gaussian(sigma: float) -> Tensor:
    """Odd weights that sum to 1, out to 2.5 standard deviations."""
    reach = int(2.5 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(1)
    return weights / weights.sum()


def smoothed(values: Tensor, kernel: Tensor) -> Tensor:
    """Maps (N, K, w, w) convolved with ``kernel`` in both directions; nothing lies beyond the border."""
    flat, reach = values.flatten(0, 1).unsqueeze(1), len(kernel) // 2
    flat = functional.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, reach)).view_as(values)


def descent(gradient: Tensor, loss: Tensor, kernel: Tensor) -> Tensor:
    """The step against a gradient (N, K, w, w) of the losses (N,): smoothed, of the length that would end the
    loss."""
    smooth = smoothed(gradient, kernel)
    length = loss.abs() / ((gradient * smooth).sum(dim=(1, 2, 3)) + 1e-10)
    return length.nan_to_num(nan=1e-4).clamp(1e-4, 2000).view(-1, 1, 1, 1) * smooth


class SuperMix(SingleEncoderMethod):
    """Cross-entropy on a data set that holds mixed images with soft labels beside the real ones
    (``data.mixed``)."""

    options_class = SuperMixOptions

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> SuperMixDraw:
        """A random cycle through the batch: output i holds K images that follow each other on it; Dirichlet
        shares."""
        images, alpha = self.options.images, self.options.alpha
        if count < images:
            raise UserError(
                f"a batch of {count} images cannot give mixes of method.images={images} different ones; "
                "use larger batches"
            )
        order = torch.randperm(count, generator=rng)
        members = torch.stack([order.roll(-shift) for shift in range(images)], dim=1)
        gamma = draw_gamma((count, images), alpha, rng)
        return SuperMixDraw(members, (gamma / gamma.sum(dim=1, keepdim=True)).float())

    def mix(self, images: Tensor, labels: Tensor, draw: SuperMixDraw) -> SuperMixed:
        """Mix images (N, C, H, W) by the encoder in eval mode, which says itself what they show: ``labels``
        are not looked at.

        Target: the shares of the classes that it gives the single images. Loss: KL(target ‖ encoder) +
        λ_s·mean|M(M - 1)|; a step along the smoothed gradient ĝ of length clamp(loss / (⟨g, ĝ⟩ + 1e-10),
        1e-4, 2000), until the classes of the target are the encoder's first ones.
        """
        options, members, size = self.options, draw.members.to(images.device), images.shape[2:]
        parts = images[members]  # (N, K, C, H, W)
        encoder = self.encoder.eval()
        with torch.no_grad():
            logits = encoder(images).float()
        targets = torch.zeros(len(images), logits.shape[1], device=images.device).scatter_add_(
            1, logits.argmax(dim=1)[members], draw.shares.to(images.device)
        )
        wanted, kernel = targets > 0, gaussian(options.sigma).to(images.device)
        parameters = torch.zeros(*members.shape, options.mask_size, options.mask_size, device=images.device)
        success = torch.zeros(len(images), dtype=torch.bool, device=images.device)

        def mixed() -> tuple[Tensor, Tensor]:
            masks = normalized_masks(parameters, size)
            return (masks.unsqueeze(2) * parts).sum(dim=1), masks

        for _ in range(options.iterations):
            parameters.requires_grad_(True)
            mixes, masks = mixed()
            shares = functional.log_softmax(encoder(mixes).float(), dim=1)
            loss = functional.kl_div(shares, targets, reduction="none").sum(dim=1)
            loss = loss + options.sparsity * (masks * (1 - masks)).mean(dim=(1, 2, 3))
            with full_precision(
                images.device.type
            ):  # a backward operation takes that of its forward operation
                (gradient,) = torch.autograd.grad(loss[~success].sum(), parameters)
                step = descent(gradient.nan_to_num(), loss.detach(), kernel)
            with torch.no_grad():
                parameters = torch.where(success.view(-1, 1, 1, 1), parameters, parameters - step).detach()
                seen = encoder(mixed()[0]).float()
                lowest = seen.masked_fill(~wanted, torch.inf).amin(dim=1)
                success = lowest > seen.masked_fill(wanted, -torch.inf).amax(dim=1)
            if success.float().mean() >= options.enough and success.any():
                break
        mixes, masks = mixed()
        return SuperMixed(mixes, masks[:, :1], targets=targets, masks=masks, success=success)

    def forward(self, images: Tensor, labels: Tensor, rng: Rng = None) -> StepOutput:
        logits = self.encoder(images)
        if labels.ndim == 2:
            loss = target_loss(logits.float(), labels.float(), self.options)
        else:
            loss = label_loss(logits, labels, self.options)
        return StepOutput(loss, {"loss_mce": loss.detach()})
