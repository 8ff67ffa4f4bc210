"""What a mixup draws before it mixes: λ and the partners. Drawn on the CPU from the step's generator, so that
it can be replayed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import Self


Size = tuple[int, ...]  #: (H, W) in pixels, as ``images.shape[2:]``
Rng = torch.Generator | None  #: a CPU generator; None for torch's own


@dataclass(frozen=True)
class Draw:
    """Everything random of one step. ``apply``: whether this batch is mixed at all."""

    apply: bool = field(default=True, kw_only=True)

    def with_partners(self, permutation: Tensor) -> Self:
        """The same draw for partners (N,) of one's own choice; a draw without pairs stays as it is."""
        return self


@dataclass(frozen=True)
class PairDraw(Draw):
    """λ (share of image i) and, for each image i, the index of its partner j: (N,) int64."""

    lam: float
    permutation: Tensor

    def with_partners(self, permutation: Tensor) -> Self:
        return replace(self, permutation=permutation)

    def to(self, device: torch.device) -> Self:
        """With the partners on ``device``; a GPU is not waited for."""
        return replace(self, permutation=self.permutation.to(device, non_blocking=True))


def draw_pairs(
    count: int, alpha: float, rng: Rng, lam: float | None = None, derangement: bool = False
) -> PairDraw:
    """One λ ~ Beta(α, α), replaced by ``lam`` where it is given, and one permutation of ``count`` images;
    ``derangement``: one without fixed points, which takes e tries on average."""
    drawn = draw_beta(alpha, rng)
    permutation = torch.randperm(count, generator=rng)
    while derangement and count > 1 and bool((permutation == torch.arange(count)).any()):
        permutation = torch.randperm(count, generator=rng)
    return PairDraw(drawn if lam is None else lam, permutation)


def draw_beta(alpha: float, rng: Rng) -> float:
    """λ ~ Beta(α, α) as G_1 / (G_1 + G_2) of two Gamma(α) draws, from ``rng`` alone (torch.distributions
    takes no generator)."""
    first, second = torch._standard_gamma(
        torch.full((2,), alpha, dtype=torch.float64), generator=rng
    ).tolist()
    return first / (first + second) if first + second > 0 else float(torch.rand((), generator=rng) < 0.5)


def draw_gamma(shape: tuple[int, ...], alpha: float, rng: Rng) -> Tensor:
    """Gamma(α) draws (float64) of ``shape``, none of them 0; divided by their sum they are Dirichlet(α)."""
    gamma = torch._standard_gamma(torch.full(shape, alpha, dtype=torch.float64), generator=rng)
    return gamma.clamp(min=1e-300)
