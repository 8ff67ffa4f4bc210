"""Checkpoints written beside the training: the loop waits for a copy in memory, and a thread writes it.

The copy is complete before the next step changes anything, so the file holds one moment of the run. A write
that failed is raised in the loop, at its next look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch

from automix_transfer.device import PINNING, accelerator
from automix_transfer.training.record import checkpoint
from automix_transfer.training.record.checkpoint import Checkpoint


class Saver:
    """Writes one checkpoint at a time; as a context manager it is left only when the file is complete.

    It costs the memory of one checkpoint on the CPU, which is kept from one to the next: to fill it again is
    six times as fast as to ask for more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._copy: Any = None
        self._trusted = False  # whether last.pt is of this process

    def save(
        self,
        content: Checkpoint,
        names: Sequence[str] = (),
        approve: Callable[[Checkpoint], None] = lambda copy: None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy ``content`` and begin to write it; waits for the one before, should that still be under way.

        Args:
            names: as of `checkpoint.save`.
            approve: called with the copy before it is written; raises to refuse it.
            written: called when the file is complete.

        Raises:
            UserError: the checkpoint before could not be written.
        """
        self.wait()
        self._copy = _copied(content.to_dict(), self._copy)
        if accelerator() is not None:
            torch.accelerator.synchronize()  # the copies from it
        work = Checkpoint.from_dict(self._copy), names, approve, written
        self._thread = threading.Thread(target=self._write, args=work, name="checkpoint")
        self._thread.start()

    def look(self) -> None:
        """Raise the failure of a write that has ended; does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until the file is complete; raise what went wrong."""
        self.settle()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def settle(self) -> None:
        """Until nothing is being written, whatever came of it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(
        self,
        copy: Checkpoint,
        names: Sequence[str],
        approve: Callable[[Checkpoint], None],
        written: Callable[[], None],
    ) -> None:
        try:
            approve(copy)
            checkpoint.save(self.folder, copy, names, self._trusted)
            self._trusted = True
            written()
        except BaseException as error:  # raised in the loop
            self._failure = error

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.settle()
        if kind is None:
            self.wait()


def _copied(value: Any, before: Any) -> Any:
    """``value`` with its tensors copied to the CPU, into those of an earlier result of the same form."""
    if isinstance(value, torch.Tensor):
        if not isinstance(before, torch.Tensor) or _form(before) != _form(value):
            pin = value.device.type in PINNING
            before = torch.empty_like(value, device="cpu", pin_memory=pin, requires_grad=False)
        return before.copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        before = before if isinstance(before, dict) else {}
        return {key: _copied(item, before.get(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        olds = chain(before if isinstance(before, (list, tuple)) else (), repeat(None))
        return type(value)(_copied(item, old) for item, old in zip(value, olds, strict=False))
    return value


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.stride()
