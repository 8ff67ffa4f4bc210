"""The momentum pipeline's encoder k: Eq. 12 and the schedule of its coefficient m."""

from __future__ import annotations

import math

import torch
from torch import nn

BUFFERS = ("own", "ema", "copy")


@torch.no_grad()
def momentum_update(encoder_k: nn.Module, encoder_q: nn.Module, m: float, buffers: str = "own") -> None:
    """Eq. 12: θ_k ← m·θ_k + (1-m)·θ_q.

    ``buffers`` says what happens to BatchNorm's running statistics, of which Eq. 12 does not speak: ``own`` leaves those that k
    gathers from its own passes (the published code); ``ema`` moves them as Eq. 12 moves the parameters; ``copy`` takes q's.
    Integer buffers (counters) are copied unless they are k's own.
    """
    for parameter, source in zip(encoder_k.parameters(), encoder_q.parameters(), strict=True):
        parameter.lerp_(source, 1 - m)
    if buffers == "own":
        return
    for buffer, source_buffer in zip(encoder_k.buffers(), encoder_q.buffers(), strict=True):
        if buffers == "ema" and buffer.is_floating_point():
            buffer.lerp_(source_buffer, 1 - m)
        else:
            buffer.copy_(source_buffer)


def momentum_at(progress: float, start: float, end: float, hold: float = 0.0) -> float:
    """m at ``progress`` in [0, 1] of the training: ``start`` for the first share ``hold``, then a half cosine to ``end``.

    The paper's schedule is start 0.999, end 1, hold 0 (section 4.1).
    """
    share = min(max((progress - hold) / (1 - hold), 0.0), 1.0) if hold < 1 else 0.0
    return end - (end - start) * (math.cos(math.pi * share) + 1) / 2
