"""How long a network takes on this machine, measured, so that a plan can say its hours."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

from automix_transfer.errors import UserError
from automix_transfer.models.encoders import create_encoder

BATCH = 8  #: images of the step that is measured


@cache
def seconds_an_image(name: str, stem: str, size: int) -> tuple[float, float]:
    """(forward, training step) of an encoder on square images of ``size`` pixels, with the processor's one
    thread that each job has, or on the GPU; (0, 0), which is not known, where it does not take that size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder = create_encoder(name, 10, stem, size).to(device)
        images = torch.randn(BATCH, 3, size, size, device=device)
        labels = torch.zeros(BATCH, device=device).long()
        with torch.no_grad():
            forward = _timed(lambda: encoder(images), device)
        step = _timed(lambda: F.cross_entropy(encoder(images), labels).backward(), device)
    except (RuntimeError, ValueError, AssertionError, TypeError, UserError):
        return 0.0, 0.0
    finally:
        torch.set_num_threads(threads)
    return forward / BATCH, step / BATCH


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the faster of two, after one that is not counted."""
    found = []
    for _ in range(3):
        begin = time.monotonic()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.monotonic() - begin)
    return min(found[1:])
