"""What a mixup draws before it mixes: λ and the partners. Drawn on the CPU from the step's generator, so that
it can be replayed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairDraw:
    """λ (share of image i) and, for each image i, the index of its partner j: (N,) int64."""

    lam: float
    permutation: Tensor

    def to(self, device: torch.device) -> PairDraw:
        """With the partners on ``device``; a GPU is not waited for."""
        return replace(self, permutation=self.permutation.to(device, non_blocking=True))


def draw_pairs(count: int, alpha: float, rng: torch.Generator | None) -> PairDraw:
    """One λ ~ Beta(α, α) and one permutation for a batch of ``count`` images."""
    return PairDraw(draw_beta(alpha, rng), torch.randperm(count, generator=rng))


def draw_beta(alpha: float, rng: torch.Generator | None) -> float:
    """λ ~ Beta(α, α) as G_1 / (G_1 + G_2) of two Gamma(α) draws, from ``rng`` alone (torch.distributions
    takes no generator)."""
    first, second = torch._standard_gamma(
        torch.full((2,), alpha, dtype=torch.float64), generator=rng
    ).tolist()
    return first / (first + second) if first + second > 0 else float(torch.rand((), generator=rng) < 0.5)
