"""The device that a command line names."""

from __future__ import annotations

import torch

from automix_transfer.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of ``--device NAME``; ``auto`` is a GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is unknown; choose cpu, cuda (cuda:1, ...) or auto") from error
    if device.type != "cpu" and (device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(
            f"--device {name} is not there: torch sees {torch.cuda.device_count()} GPUs; choose cpu or auto"
        )
    return device
