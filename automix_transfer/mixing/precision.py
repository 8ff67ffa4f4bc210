"""Autocast, where a device has it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(device_type: str) -> AbstractContextManager:
    """Within the block, operations run in the precision of their tensors, on devices that know no autocast
    too."""
    return (
        torch.autocast(device_type, enabled=False)
        if torch.amp.is_autocast_available(device_type)
        else nullcontext()
    )


def in_float16(device_type: str) -> bool:
    """Whether autocast to float16 is on, under which gradients need a scaler's factor on their whole way."""
    return (
        torch.amp.is_autocast_available(device_type)
        and torch.is_autocast_enabled(device_type)
        and torch.get_autocast_dtype(device_type) == torch.float16
    )


def at_least_float32(values: Tensor) -> Tensor:
    """In float32 where ``values`` are half as wide; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
