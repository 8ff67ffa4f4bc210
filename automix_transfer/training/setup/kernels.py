"""Where a method computes, and with which kernels."""

from __future__ import annotations

import os
import secrets

import torch

from automix_transfer.errors import UserError, first_line
from automix_transfer.mixing import Method
from automix_transfer.training.distributed import World


def try_to_compile(device: torch.device) -> None:
    """Compile one line, to know before anything is read whether this machine can.

    Raises:
        UserError: it has no compiler, or one that does not work.
    """
    size = 64 + secrets.randbelow(1 << 16)  # what was compiled before, and is kept, proves nothing
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(size, device=device))
    except Exception as error:  # of the compiler, of torch, of what torch imports for it
        raise UserError(
            f"train.compile=true: torch cannot compile here ({type(error).__name__}: {first_line(error)}); "
            "install a C++ compiler (g++), which GPUs need too, or set train.compile=false"
        ) from error


def place(method: Method, world: World, channels_last: bool) -> None:
    """Move a method to its device and into its memory layout."""
    method.to(world.device)
    if channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def choose_kernels(deterministic: bool) -> None:
    """GPU only: the fastest kernels, or those that give the same bits every time."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        # cuBLAS reads it when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
