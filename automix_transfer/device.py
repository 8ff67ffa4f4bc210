"""Devices by name: the CPU, and the accelerator that this torch was built for (``cuda``, ``mps`` or ``xpu``).

What is tested on which of them, and what is known of the others, is in docs/devices.md.
"""

from __future__ import annotations

import os
import platform

import torch

from automix_transfer.errors import UserError

PINNING = {"cuda", "xpu"}  #: types of devices that copy faster from pinned memory


def accelerator() -> torch.device | None:
    """The accelerator that can be used here, without a number; None where there is none."""
    return torch.accelerator.current_accelerator(check_available=True)


def choose_device(name: str, option: str = "--device ", number: int | None = None) -> torch.device:
    """The device called ``name``; ``auto`` is the accelerator where there is one, and the CPU elsewhere.

    Args:
        option: what gave the name, as messages begin: ``--device `` or ``train.device=``.
        number: of an accelerator whose name has none; None leaves the choice to torch.

    Raises:
        UserError: there is no such device here.
    """
    here, given = accelerator(), f"{option}{name}"
    try:
        device = torch.device((here or "cpu") if name == "auto" else name)
    except RuntimeError as error:
        choices = "auto, cpu, or an accelerator: cuda, cuda:1, mps, xpu"
        raise UserError(f"{given} is unknown; choose {choices}") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if number is not None and device.index is None:
        device = torch.device(device.type, number)
    count = torch.accelerator.device_count() if here is not None and here.type == device.type else 0
    if (device.index or 0) >= count:
        remedy = "choose cpu or auto" + (", or start fewer processes" if number else "")
        raise UserError(
            f"{given} is not there: torch sees {count} devices of type {device.type}"
            + (f", and number {device.index} is asked for" if device.index else "")
            + f"; {remedy}"
        )
    return device


def device_name(device: torch.device) -> str:
    """What the device calls itself; the processor where it has no name."""
    named = (
        None if device.type == "cpu" else getattr(torch.get_device_module(device), "get_device_name", None)
    )
    return named(device) if named else platform.processor() or platform.machine()


def device_memory(device: torch.device) -> float | None:
    """Bytes of an accelerator's memory, or of the machine's; None where it does not say."""
    if device.type == "cpu":
        return main_memory()
    module = torch.get_device_module(device)
    if hasattr(module, "get_device_properties"):
        return module.get_device_properties(device).total_memory
    return module.recommended_max_memory() if hasattr(module, "recommended_max_memory") else None


def main_memory() -> int | None:
    """Bytes of the machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def synchronize(device: torch.device) -> None:
    """Wait for what an accelerator has been asked to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def widest_float(device: torch.device) -> torch.dtype:
    """The widest floats that a device has: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
