"""Checkpoints: complete, never half-written, and never replaced by one that does not load.

``last.pt`` is the newest, ``previous.pt`` the one before it, ``best.pt`` the one with the best accuracy,
``epoch_NNNN.pt`` those of ``train.keep_epochs``. They are names of immutable files, so a second name costs no
second write (a hard link).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.host.writable import sync_folder
from automix_transfer.io import load_torch, save_torch, temporary_name
from automix_transfer.mixing.base import Method

FORMAT = "automix_transfer/1"
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
#: what every reader of a checkpoint counts on; the other fields are for going on
READ_BY_ALL = {"format", "encoder", "encoders", "model", "config", "step", "epoch"}


@dataclass
class Checkpoint:
    """Everything that a run needs to go on with the same bits, and others need to use its weights."""

    encoder: dict[str, Any]  # what is known of the encoders, see `EncoderInfo.to_dict`
    encoders: dict[str, str]  # name -> prefix in `model`, the one for inference first
    model: dict[str, Tensor]  # the tensors of the method's state
    model_extra: dict[str, Any]  # the rest of it
    config: dict[str, Any]  # the `Experiment`, with every option of its method
    step: int  # steps done
    epoch: int  # epochs done
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)  # the row of `history` with the best top-1
    history: list[dict[str, Any]] = field(default_factory=list)  # one row for each epoch
    averages: dict[str, list[float]] = field(default_factory=dict)  # under way: name -> [sum, number]
    seconds: float = 0.0  # of training, over all starts
    processes: int = 1
    samples: list[int] = field(default_factory=list)  # numbers of training and validation images
    images: list[str] = field(default_factory=list)  # digests of both, see `Listing.digest`; of 0.2 none

    @property
    def method(self) -> dict[str, Any]:
        """The method's state, for ``load_state_dict``."""
        return self.model | self.model_extra

    def to_dict(self) -> dict[str, Any]:
        """What is written: plain values and tensors, which ``torch.load(weights_only=True)`` reads."""
        return {"format": FORMAT, **vars(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Checkpoint:
        """The inverse of `to_dict`, from any version of this format."""
        known = {field.name for field in fields(cls)}
        return cls(**{"model_extra": {}, **{key: content[key] for key in content if key in known}})


def encoder_prefixes(method: Method) -> dict[str, str]:
    """Where each encoder lies in the method's state: ``{"k": "encoder_k.", ...}``, as `Method.encoders`."""
    names: dict[nn.Module, str] = {}
    for name, module in method.named_modules():
        names.setdefault(module, name)
    return {short: f"{names[encoder]}." for short, encoder in method.encoders().items()}


def split_state(method: Method) -> dict[str, Any]:
    """The method's state as ``model`` (tensors, for any reader of weights) and ``model_extra`` (the rest)."""
    state = method.state_dict()
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {"model": tensors, "model_extra": {key: state[key] for key in state if key not in tensors}}


def save(folder: Path, checkpoint: Checkpoint, names: Sequence[str] = (), trusted: bool = False) -> None:
    """Write ``last.pt``, and keep the old one as ``previous.pt`` if it loads.

    Args:
        names: other names that the file also gets, e.g. ``best.pt``.
        trusted: this process wrote the old one, so that it need not be read.

    Raises:
        UserError: the disk is full or the file does not read back; ``last.pt`` is then still the old one.
    """
    new, last = folder / "new.pt", folder / LAST
    try:
        save_torch(new, checkpoint.to_dict())
        read = load_torch(new)
        if read.get("step") != checkpoint.step or read.get("model", {}).keys() != checkpoint.model.keys():
            raise UserError(f"{new} does not read back as written; check the disk, {last} is untouched")
        if last.exists() and (trusted or loads(last)):
            _name(last, folder / PREVIOUS)
        os.replace(new, last)
    finally:
        new.unlink(missing_ok=True)
    for name in names:
        _name(last, folder / name)
    sync_folder(folder)


def others(folder: Path) -> list[Path]:
    """Checkpoints of a run besides its last two: the best, and those of ``train.keep_epochs``."""
    return [file for file in (folder / BEST, *sorted(folder.glob("epoch_*.pt"))) if file.is_file()]


def load_latest(folder: Path, say: Callable[[str], None] = lambda text: None) -> Checkpoint | None:
    """The newest checkpoint in ``folder`` that loads, None where there is none; ``say`` is told which.

    Where the last two are lost, it is the furthest of the `others`, rather than the beginning over them.

    Raises:
        UserError: there are checkpoints, but none of them loads.
    """
    problems: list[str] = []
    for paths in ([folder / LAST], [folder / PREVIOUS], others(folder)):
        loaded: list[tuple[Path, Checkpoint]] = []
        for path in paths:
            try:
                loaded += [(path, Checkpoint.from_dict(read(path)))] if path.exists() else []
            except UserError as error:
                problems.append(str(error))
        if loaded:
            path, found = max(loaded, key=lambda one: one[1].step)
            lost = [] if problems or path.name in (LAST, PREVIOUS) else [f"{folder / LAST} is missing"]
            why = "; ".join([*problems, *lost])
            say(f"resumed from {path}" + (f", because {why}" if why else ""))
            return found
    if problems:
        raise UserError(
            f"no checkpoint in {folder} can be used: {'; '.join(problems)}; choose another output to start "
            "afresh"
        )
    say(f"nothing to resume in {folder}: starting from the beginning")
    return None


def read(path: Path) -> dict[str, Any]:
    """One training checkpoint of ours as it is in the file; see `Checkpoint` for its keys.

    Raises:
        UserError: damaged, or not a checkpoint of this project.
    """
    content = load_torch(path)
    if not isinstance(content, dict) or not READ_BY_ALL <= content.keys() or content["format"] != FORMAT:
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
    """Give ``source`` the name ``target`` too, over what had it; a copy where there are no hard links."""
    temporary = temporary_name(target)
    try:
        with suppress(OSError):
            os.link(source, temporary)
        if not temporary.exists():
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"{target} could not be written ({error.strerror}); free space or choose another folder. "
            f"{source} is untouched"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
