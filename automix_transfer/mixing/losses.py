"""The losses of AutoMix: Eq. 1 (CE), Eq. 2 (MCE) and Eq. 7 (ℓ_λ)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from automix_transfer.errors import UserError


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 1: mean cross-entropy of logits (N, K) against integer labels (N,)."""
    return functional.cross_entropy(logits, labels)


def mixup_cross_entropy(logits: Tensor, labels: Tensor, partner_labels: Tensor, lam: float | Tensor) -> Tensor:
    """Eq. 2: λ·CE(logits, y_i) + (1-λ)·CE(logits, y_j).

    Args:
        logits: (N, K) for the mixed images.
        labels, partner_labels: (N,) integer labels y_i, y_j.
        lam: share of y_i; a number, or (N,) where it differs from sample to sample.
    """
    own = functional.cross_entropy(logits, labels, reduction="none")
    partner = functional.cross_entropy(logits, partner_labels, reduction="none")
    return (lam * own + (1 - lam) * partner).mean()


def lam_loss(mask: Tensor, lam: float, weight: float, margin: float = 0.1, over: str = "mask") -> Tensor:
    """Eq. 7: γ·max(|λ - mean(s_i)| - ε, 0), which teaches the Mix Block the size of its masks.

    Args:
        mask: (N, 1, H, W) share s_i of image i.
        weight: γ.
        margin: ε.
        over: ``mask``: the mean of Eq. 7 is over one mask's pixels; ``batch``: over the batch too (the published code; single masks may
            be far off).
    """
    means = mask.mean(dim=(1, 2, 3)) if over == "mask" else mask.mean()
    return weight * torch.clamp((means - lam).abs() - margin, min=0).mean()


def flat_mask_loss(mask: Tensor, lam: float, floor: float) -> Tensor:
    """max(σ_0·2·sqrt(λ(1-λ)) - std(s_i), 0), the mean over the batch: a penalty for masks (N, 1, H, W) without structure.

    ``floor`` σ_0 is the spatial standard deviation asked for at λ = 0.5. A mask of mean λ can reach sqrt(λ(1-λ)) at most, 0.5 at
    λ = 0.5, so towards λ = 0 and 1 less is asked for.
    """
    wanted = 2 * floor * (max(lam, 0.0) * max(1 - lam, 0.0)) ** 0.5
    deviation = (mask.flatten(1).var(dim=1, unbiased=False) + 1e-12).sqrt()  # the square root's slope at 0 is infinite
    return torch.clamp(wanted - deviation, min=0).mean()


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Refuse what cannot be mixed: images that are not (N, C, H, W) floats, labels that are not (N,) integers, N < 2."""
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(f"images must be a float tensor (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise UserError(f"labels must be {images.shape[0]} integers of shape (N,), not {labels.dtype} {tuple(labels.shape)}")
    if len(images) < 2:
        raise UserError("a batch of one image has no partner to mix with and no batch statistics; use a batch size of at least 2 "
                        "(drop the last batch)")
