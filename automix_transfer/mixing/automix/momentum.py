"""The momentum pipeline's encoder k: Eq. 12 and the schedule of its coefficient m."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BUFFERS = ("own", "ema", "copy")


@torch.no_grad()
def momentum_update(encoder_k: nn.Module, encoder_q: nn.Module, m: float, buffers: str = "own") -> None:
    """Eq. 12: θ_k ← m·θ_k + (1-m)·θ_q.

    ``buffers`` says what happens to BatchNorm's running statistics, of which Eq. 12 does not speak: ``own``
    leaves those that k gathers from its own passes (the published code); ``ema`` moves them as Eq. 12 moves
    the parameters; ``copy`` takes q's. Integer buffers (counters) are copied unless they are k's own.
    """
    move(list(encoder_k.parameters()), list(encoder_q.parameters()), m)
    if buffers == "own":
        return
    pairs = list(zip(encoder_k.buffers(), encoder_q.buffers(), strict=True))
    moved = [(own, other) for own, other in pairs if buffers == "ema" and own.is_floating_point()]
    copied = [(own, other) for own, other in pairs if buffers == "copy" or not own.is_floating_point()]
    move([own for own, _ in moved], [other for _, other in moved], m)
    if copied:
        torch._foreach_copy_([own for own, _ in copied], [other for _, other in copied])


def move(own: list[Tensor], other: list[Tensor], m: float) -> None:
    """own ← m·own + (1-m)·other, in place; on a GPU a few kernels for all tensors instead of one each."""
    if len(own) != len(other):
        raise ValueError(f"{len(own)} tensors cannot follow {len(other)}")
    if own:
        torch._foreach_lerp_(own, other, 1 - m)


def warmed_up(m: float, steps: int) -> float:
    """min(m, t/(t + 9)) after t steps: a moving average is never older than a tenth of the training."""
    return min(m, steps / (steps + 9))


def momentum_at(
    progress: float, start: float, end: float, hold: float = 0.0, curve: str = "after_hold"
) -> float:
    """m of Eq. 12 at ``progress`` in [0, 1]: ``start`` until ``hold``, then a half cosine to ``end``.

    The paper's schedule is start 0.999, end 1, hold 0 (section 4.1). The cosine begins where the hold ends,
    or with ``curve="whole"`` (the published code) at step 0: when the hold ends, m jumps onto it.
    """
    if curve == "whole":
        share = progress if progress >= hold else 0.0
    else:
        share = min(max((progress - hold) / (1 - hold), 0.0), 1.0) if hold < 1 else 0.0
    return end - (end - start) * (math.cos(math.pi * share) + 1) / 2
