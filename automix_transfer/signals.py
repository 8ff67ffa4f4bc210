"""SIGINT (Ctrl-C), SIGTERM, SIGHUP (a closed terminal) and SIGUSR1 (a scheduler's warning): keep what is
done, say how to go on, and end with 128 + the signal's number.

`listening` holds for every command: a signal raises `Interrupted` where the program stands, and ends it at
once while it still imports. A training asks for more, by `StopRequest`: finish the step, and save. A hang-up
that was ignored when the program began (nohup) stays ignored.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from automix_transfer.host.launched import speaks_for_all

ALL = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
UNTOUCHED = "interrupted; what was written before is untouched"
_PR_SET_PDEATHSIG = 1


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; the message says what is kept, and how to go on.

    ``number`` is the signal's, ``code`` the exit code: 130 (Ctrl-C), 143 (SIGTERM), 129 (SIGHUP), 138
    (SIGUSR1).
    """

    def __init__(self, number: int = signal.SIGINT, message: str = UNTOUCHED) -> None:
        super().__init__(message)
        self.number, self.code = int(number), 128 + number


@contextmanager
def listening() -> Iterator[None]:
    """While it is entered, a signal raises `Interrupted`, or ends the process where that still imports."""
    before = _handle_all(_interrupt)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def kept(message: str) -> Iterator[None]:
    """An interruption of what is done inside says ``message``: what is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise Interrupted(getattr(stopped, "number", signal.SIGINT), message) from None


@contextmanager
def held() -> Iterator[None]:
    """Start processes inside: signals wait for the end of it, here, and in the new processes for
    `leave_to_parent`, so that none dies of one while it still imports."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent(hear_term: bool = True) -> None:
    """In a worker of a pool: its parent hears the signals of a terminal or a scheduler, and ends its workers.

    A SIGTERM ends it, also when the parent dies; without ``hear_term`` it stays `held`.
    """
    others = [number for number in ALL if number != signal.SIGTERM]
    for number in others:
        signal.signal(number, signal.SIG_IGN)
    if hear_term:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
    release(ALL if hear_term else others)


def release(numbers: Sequence[int] = ALL) -> None:
    """Hear in a new process what was `held` while it started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def end_with_parent() -> None:
    """Let the system send this process a SIGTERM when the process that started it dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def tied(command: list[str]) -> list[str]:
    """``command`` behind a word to the system: when this process dies, the command gets a SIGTERM (Linux).

    The thread that starts it must live as long as the process.
    """
    if sys.platform != "linux":
        return command
    code = (
        f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)})\n"
        f"if os.getppid() != {os.getpid()}: sys.exit({128 + signal.SIGTERM})\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-I", "-S", "-c", code, *command]


def say_last(stopped: KeyboardInterrupt) -> int:
    """Print what an interruption says, once for all processes of a launcher, and return the exit code.

    From here on another signal ends the process at once.
    """
    _handle_all(_leave)
    if speaks_for_all():
        with suppress(OSError):  # the terminal may be what went away
            print(str(stopped) or UNTOUCHED, file=sys.stderr, flush=True)
    return getattr(stopped, "code", 128 + signal.SIGINT)


class StopRequest:
    """While it is entered, a signal only sets ``number``.

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
            raise Interrupted(number)
        self.number = number

    def __enter__(self) -> StopRequest:
        self._before = _handle_all(self._handle)
        if outer := self._outer():
            self.number = outer.number
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)
        if outer := self._outer():
            outer.number = self.number

    def _outer(self) -> StopRequest | None:
        owner = getattr(self._before.get(signal.SIGTERM), "__self__", None)
        return owner if isinstance(owner, StopRequest) else None


def _handle_all(handler: Any) -> dict[int, Any]:
    """Set the handler of all signals; returns those before. Only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [n for n in ALL if n != getattr(signal, "SIGHUP", 0) or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        # an exception in the middle of an import may be swallowed, and leaves half a module behind
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave(number, None)
        frame = frame.f_back
    raise Interrupted(number)


def _leave(number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"{UNTOUCHED}\n".encode() if speaks_for_all() else b"")
    os._exit(128 + number)
