"""Losses: Eq. 1 (CE) and Eq. 2 (MCE), smoothed or binary where a procedure asks for it (Table 12), and Eq. 7
(ℓ_λ).

Labels are integers (N,) or, where an image shows several classes, vectors (N, K) of 1, 0, and NaN where a
class is unknown. Of vectors Eqs. 1 and 2 are binary cross-entropies, of y_i and of λ·y_i + (1-λ)·y_j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.checks import between, one_of
from automix_transfer.mixing.precision import at_least_float32


@dataclass
class LossOptions:
    """How logits are compared with labels: options of every method (Table 12).

    Attributes:
        loss: ``ce``, Eqs. 1 and 2; or ``bce``, a binary cross-entropy for each class, averaged over the
            classes (RSB A2 and A3), which label vectors need.
        smoothing: label smoothing ε (DeiT: 0.1); of label vectors each class's own, 1 - ε/2 and ε/2.
        bce_threshold: with ``bce``, labels above it count as 1 and the others as 0 (timm's recipes of RSB);
            negative: as they are.
        weights: how often a label of each class counts, a tensor (K,) on the logits' device, or None: once.
            Not an option: the training sets it from its images (`Method.weigh_classes`).
    """

    weights: ClassVar[Any] = None
    loss: str = one_of("ce", "ce", "bce")
    smoothing: float = between(0.0, 0, 0.99)
    bce_threshold: float = between(0.2, -1, 0.99)


PLAIN = LossOptions()


def mixup_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    partner_labels: Tensor,
    lam: float | Tensor,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Eq. 2: λ·CE(logits, y_i) + (1-λ)·CE(logits, y_j).

    Args:
        logits: (N, K) for the mixed images.
        labels, partner_labels: (N,) integer labels y_i, y_j.
        lam: share of y_i; a number, or (N,) where it differs from sample to sample.
        smoothing: ε of both labels.
        weights: (K,) of the classes; None: 1. The mean is over samples, so the loss is linear in them.
    """
    own, partner = (
        functional.cross_entropy(logits, y, weights, reduction="none", label_smoothing=smoothing)
        for y in (labels, partner_labels)
    )
    return (lam * own + (1 - lam) * partner).mean()


def label_loss(logits: Tensor, labels: Tensor, options: LossOptions) -> Tensor:
    """Eq. 1 of logits (N, K) against labels (N,) or (N, K), smoothed or binary as ``options`` says."""
    if options.loss == "ce" and not options.smoothing and options.weights is None:
        return functional.cross_entropy(logits, labels)
    return pair_loss(logits, labels, labels, 1.0, options)


def summed_loss(logits: Tensor, labels: Tensor, options: LossOptions) -> Tensor:
    """`label_loss`, but the sum over the samples: the gradient at one image does not depend on how many there
    are."""
    if options.loss == "ce":
        smoothing = options.smoothing
        return functional.cross_entropy(
            logits, labels, options.weights, reduction="sum", label_smoothing=smoothing
        )
    return label_loss(logits, labels, options) * len(labels)


def pair_loss(
    logits: Tensor, labels: Tensor, partner_labels: Tensor, lam: float | Tensor, options: LossOptions
) -> Tensor:
    """Eq. 2 of logits (N, K), smoothed or binary as ``options`` says; ``lam``: the share of y_i."""
    if labels.ndim == 2:
        return vector_loss(logits, mixed_targets(labels, partner_labels, lam), options)
    if options.loss == "bce":
        targets = pair_targets(labels, partner_labels, lam, logits.shape[1], options.smoothing)
        return binary_cross_entropy(logits, targets, options)
    return mixup_cross_entropy(logits, labels, partner_labels, lam, options.smoothing, options.weights)


def target_loss(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """The same for labels that are distributions (N, K)."""
    if options.loss == "bce":
        targets = (1 - options.smoothing) * targets.float() + options.smoothing / logits.shape[1]
        return binary_cross_entropy(logits, targets, options)
    return functional.cross_entropy(logits, targets, options.weights, label_smoothing=options.smoothing)


def vector_loss(logits: Tensor, targets: Tensor, options: LossOptions) -> Tensor:
    """The binary cross-entropy of logits (N, K) against label vectors or mixes of them (N, K).

    A class that is unknown (NaN) adds nothing to the mean over samples and classes.
    """
    known = ~targets.isnan()
    targets = (1 - options.smoothing) * targets.nan_to_num() + options.smoothing / 2
    return binary_cross_entropy(logits, targets, options, known)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, options: LossOptions, known: Tensor | None = None
) -> Tensor:
    """The mean over samples and classes, of targets (N, K) that became 0 or 1 where there is a threshold;
    those that are not ``known`` (N, K) count as a loss of 0."""
    logits = at_least_float32(logits)
    if options.bce_threshold >= 0:
        targets = targets > options.bce_threshold
    weight = None if known is None else known.to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), weight)


def pair_targets(
    labels: Tensor, partner_labels: Tensor, lam: float | Tensor, classes: int, smoothing: float = 0.0
) -> Tensor:
    """Soft labels (N, K): λ of y_i and 1-λ of y_j, each smoothed by ε; every row sums to 1."""
    one_i, one_j = (functional.one_hot(y, classes).float() for y in (labels, partner_labels))
    return mixed_targets(one_i, one_j, lam, smoothing)


def mixed_targets(own: Tensor, partner: Tensor, lam: float | Tensor, smoothing: float = 0.0) -> Tensor:
    """λ of label vectors y_i (N, K) and 1-λ of y_j, smoothed by ε; ``lam`` a number or (N,)."""
    # a number stays on the CPU: a GPU would be waited for
    share = lam.float().reshape(-1, 1) if isinstance(lam, Tensor) else lam
    return (1 - smoothing) * (share * own + (1 - share) * partner) + smoothing / own.shape[1]


def lam_loss(mask: Tensor, lam: float, weight: float, margin: float = 0.1, over: str = "mask") -> Tensor:
    """Eq. 7: γ·max(|λ - mean(s_i)| - ε, 0), which teaches the Mix Block the size of its masks.

    Args:
        mask: (N, 1, H, W) share s_i of image i.
        weight: γ.
        margin: ε.
        over: ``mask``: the mean of Eq. 7 is over one mask's pixels; ``batch``: over the batch too (the
            published code; single masks may be far off).
    """
    means = mask.mean(dim=(1, 2, 3)) if over == "mask" else mask.mean()
    return weight * torch.clamp((means - lam).abs() - margin, min=0).mean()


def gamma_at(progress: float, steps: int, schedule: str) -> float:
    """What is left of γ when ``steps`` steps are done, which are the share ``progress`` of T: 1 at the start.

    ``linear`` and ``cosine`` fall to 0 at the end, ``constant`` stays. ``compounding`` is Π_t (1+cos πt/T)/2
    over t from 1 to ``steps``: the published code anneals the value of the step before.
    """
    if schedule == "compounding":
        return compounded(progress, steps)
    falling = {"linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2, "constant": 1.0}
    return falling[schedule]


def compounded(progress: float, steps: int) -> float:
    """Π_t (1+cos πt/T)/2 over t from 1 to ``steps``, T = steps/progress; 0 where it is less than 1e-30."""
    if steps == 0 or steps * (math.pi * progress) ** 2 / 12 > 70:  # its logarithm, by cos x ≤ 1 - x²/2 + ...
        return float(steps == 0)
    angles = torch.arange(1, steps + 1, dtype=torch.float64) * (math.pi * progress / steps)
    return float(((1 + torch.cos(angles)) / 2).prod())


def flat_mask_loss(mask: Tensor, lam: float, floor: float) -> Tensor:
    """max(σ_0·2·sqrt(λ(1-λ)) - std(s_i), 0), the mean over the batch: a penalty for masks (N, 1, H, W)
    without structure.

    ``floor`` σ_0 is the spatial standard deviation asked for at λ = 0.5. A mask of mean λ can reach
    sqrt(λ(1-λ)) at most, 0.5 at λ = 0.5, so towards λ = 0 and 1 less is asked for.
    """
    wanted = 2 * floor * (max(lam, 0.0) * max(1 - lam, 0.0)) ** 0.5
    # the square root's slope at 0 is infinite
    deviation = (mask.flatten(1).var(dim=1, unbiased=False) + 1e-12).sqrt()
    return torch.clamp(wanted - deviation, min=0).mean()


def check_batch(images: Tensor, labels: Tensor, vectors: bool = False) -> None:
    """Refuse what cannot be mixed: images that are not (N, C, H, W) floats, labels that are not (N,) integers
    nor, with ``vectors``, (N, K) floats, N < 2."""
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(
            f"images must be a float tensor (N, C, H, W), not {images.dtype} {tuple(images.shape)}"
        )
    several = labels.ndim == 2 and labels.is_floating_point() and len(labels) == len(images)
    if several and not vectors:
        raise UserError(
            f"labels are vectors {tuple(labels.shape)}, one an image; set method.loss=bce to train on them, "
            "or give integers (N,)"
        )
    if not several and (labels.shape != images.shape[:1] or labels.is_floating_point()):
        raise UserError(
            f"labels must be {images.shape[0]} integers of shape (N,), not {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    if len(images) < 2:
        raise UserError(
            "a batch of one image has no partner to mix with; use batches of two at least (drop the last one)"
        )
