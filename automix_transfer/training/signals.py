"""Ctrl-C and SIGTERM: asked to stop, finish the step, then write a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """The run was stopped by a signal and has written its checkpoint.

    ``code`` is the exit code, 130 (Ctrl-C) or 143 (SIGTERM).
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


class StopRequest:
    """While it is entered, SIGINT and SIGTERM only set ``number``.

    Loader workers inherit that, so Ctrl-C does not kill them mid-batch. Inside another one it takes over what
    the other has been asked, and hands on what it was asked itself. With ``impatient`` a second Ctrl-C
    interrupts at once, for a step that hangs; not under torchrun, which repeats what the terminal has sent.
    """

    def __init__(self, impatient: bool = True) -> None:
        self.number = 0
        self.impatient = impatient
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.number > 0

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number and self.impatient:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            self._before = {
                number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
            }
        if outer := self._outer():
            self.number = outer.number
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if outer := self._outer():
            outer.number = self.number

    def _outer(self) -> StopRequest | None:
        owner = getattr(self._before.get(signal.SIGTERM), "__self__", None)
        return owner if isinstance(owner, StopRequest) else None
