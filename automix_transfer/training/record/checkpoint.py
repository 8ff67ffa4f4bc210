"""Checkpoints: complete, never half-written, and never replaced by one that has not been verified to load.

``last.pt`` is the newest, ``previous.pt`` the one before it, ``best.pt`` the one with the best accuracy,
``epoch_NNNN.pt`` those of ``train.keep_epochs``. They are separate names of immutable files, so ``best.pt``
costs no second write (a hard link).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch, save_torch, sync_folder
from automix_transfer.mixing.base import Method

FORMAT = "automix_transfer/1"
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"


def encoder_prefixes(method: Method) -> dict[str, str]:
    """Where each encoder lies in the method's state dict: ``{"k": "encoder_k.", "q": "encoder_q."}``, the one
    for inference first."""
    names: dict[nn.Module, str] = {}
    for name, module in method.named_modules():
        names.setdefault(module, name)
    return {short: f"{names[encoder]}." for short, encoder in method.encoders().items()}


def split_state(method: Method) -> dict[str, Any]:
    """The method's state as ``model`` (tensors only, so that any reader of weights can use it) and
    ``model_extra`` (the rest)."""
    state = method.state_dict()
    return {
        "model": {k: v for k, v in state.items() if isinstance(v, torch.Tensor)},
        "model_extra": {k: v for k, v in state.items() if not isinstance(v, torch.Tensor)},
    }


def save(folder: Path, content: dict[str, Any], best: bool = False, trusted: bool = False) -> None:
    """Write ``last.pt`` and keep what was there as ``previous.pt``; with ``best`` also under the name
    ``best.pt``.

    What was there must load, or it does not take the place of a ``previous.pt`` that does; ``trusted``: it
    was written by this process.

    Raises:
        UserError: the disk is full or the file does not read back; ``last.pt`` is then still the old one.
    """
    new, last = folder / "new.pt", folder / LAST
    try:
        save_torch(new, content)
        read = load_torch(new)
        if read.get("step") != content["step"] or read.get("model", {}).keys() != content["model"].keys():
            raise UserError(
                f"{new} does not read back as it was written; check the disk, {last} is untouched"
            )
        if last.exists() and (trusted or loads(last)):
            _name(last, folder / PREVIOUS)
        os.replace(new, last)
    finally:
        new.unlink(missing_ok=True)
    if best:
        _name(last, folder / BEST)
    keep = content.get("config", {}).get("train", {}).get("keep_epochs", ())
    ends = [row.get("step") for row in content.get("history", ())]
    if content.get("epoch") in keep and content["step"] in ends[-1:]:  # not within the next epoch
        _name(last, folder / f"epoch_{content['epoch']:04d}.pt")
    sync_folder(folder)


def load_latest(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The newest checkpoint in ``folder`` that loads, and one sentence on what was found; None where there is
    none.

    Raises:
        UserError: there are checkpoints, but none of them loads.
    """
    problems: list[str] = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return read(path), f"resumed from {path}" + (
                f", because {'; '.join(problems)}" if problems else ""
            )
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(
            f"no checkpoint in {folder} can be used: {'; '.join(problems)}; choose another output to start "
            "afresh"
        )
    return None, f"nothing to resume in {folder}: starting from the beginning"


def read(path: Path) -> dict[str, Any]:
    """One training checkpoint of ours.

    Raises:
        UserError: damaged, or not a checkpoint of this project.
    """
    content = load_torch(path)
    wanted = {"format", "encoder", "encoders", "model", "config", "step", "epoch"}
    if not isinstance(content, dict) or not wanted <= content.keys() or content["format"] != FORMAT:
        raise UserError(
            f"{path} is not a training checkpoint of format {FORMAT}; to start from other weights give "
            f"encoder.weights={path}"
        )
    return content


def loads(path: Path) -> bool:
    """Whether ``path`` is a checkpoint that can be resumed from."""
    try:
        read(path)
    except UserError:
        return False
    return True


def _name(source: Path, target: Path) -> None:
    """Give ``source`` the second name ``target``, replacing what had it; a copy where the file system has no
    hard links."""
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"{target} could not be written ({error.strerror}); free space or choose another folder. "
            f"{source} is untouched"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
