"""Maps of evidence for a class from features and gradients of its score, (N, C, h, w) -> (N, h, w).

Each keeps the sign of its source: CAM is not rectified (the reference's convention), the others are. Factors
of a whole map, such as the exp(score) of Grad-CAM++'s derivation, are left out: maps are divided by their
maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cam(features: Tensor, weights: Tensor) -> Tensor:
    """Mean over channels of weight · feature; ``weights`` (N, C) of the class (Zhou et al. 2016)."""
    return torch.einsum("nchw,nc->nhw", features, weights) / features.shape[1]


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """A channel weighs its mean gradient: CAM, rectified, for a linear head (Selvaraju et al. 2017)."""
    return torch.einsum("nchw,nc->nhw", features, gradients.mean((2, 3))).relu()


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """A place weighs α = g² / (2g² + g³ · Σ feature), a channel Σ α · relu(g) (Chattopadhyay et al. 2018)."""
    square = gradients.square()
    below = 2 * square + square * gradients * features.sum((2, 3), keepdim=True)
    safe = torch.where(below != 0, below, torch.ones_like(below))
    alpha = torch.where(below != 0, square / safe, torch.zeros_like(below))
    return torch.einsum("nchw,nc->nhw", features, (alpha * gradients.relu()).sum((2, 3))).relu()


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """Every place has its own weight, its rectified gradient (Jiang et al. 2021)."""
    return (gradients.relu() * features).sum(1).relu()


GRADIENT_FORMULAS = {"gradcam": gradcam, "gradcam++": gradcam_plus_plus, "layercam": layercam}
METHODS = ("cam", *GRADIENT_FORMULAS, "scorecam")
