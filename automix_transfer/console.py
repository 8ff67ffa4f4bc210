"""What a process prints: whatever becomes of its outputs, the work goes on.

A pipe that was closed, a terminal that is gone, a full disk behind a redirection and an encoding that lacks a
letter are no part of the work. `open_outputs` puts streams that know this in the place of ``sys.stdout`` and
``sys.stderr``, so that it holds for everything that prints: our commands, argparse, tracebacks, logging.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

from automix_transfer.shown import clean_lines

LOGGER = logging.getLogger("automix_transfer")  #: of notes, warnings and progress
PATIENCE = 10.0  #: seconds that an output which takes nothing now is waited for, if it can be waited for


class Device(io.RawIOBase):
    """A file descriptor whose failures are kept in ``failure`` instead of raised; -1 takes and drops all."""

    name = "<output>"

    def __init__(self, number: int) -> None:
        self.number = number
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self.number < 0:
            raise io.UnsupportedOperation("fileno")
        return self.number

    def isatty(self) -> bool:
        return self.number >= 0 and os.isatty(self.number)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while self.number >= 0 and left:
                try:
                    left = left[os.write(self.number, left) :]
                except BlockingIOError:  # whoever shares the pipe or terminal with us made it so
                    if not select.select((), (self.number,), (), PATIENCE)[1]:
                        raise
        except OSError as error:
            self.failure = error
        return size


class Output(io.TextIOWrapper):
    """Text for a `Device`, line by line, cleaned of what would steer a terminal."""

    def __init__(self, device: Device, encoding: str, cleaned: bool = True) -> None:
        super().__init__(device, encoding, "backslashreplace", line_buffering=True)
        self.device, self.cleaned = device, cleaned

    def write(self, text: str) -> int:
        super().write(clean_lines(text) if self.cleaned else text)
        return len(text)


def open_outputs() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` such outputs, if they are still the interpreter's own."""
    _occupy_descriptors()
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # of a test, a notebook, or of an earlier call
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Output(Device(-1), "utf-8"))
        else:
            with suppress(OSError):
                stream.flush()
            setattr(sys, name, Output(Device(number), stream.encoding))


def _occupy_descriptors() -> None:
    """Open what is closed of 0, 1 and 2, lest a checkpoint become what C libraries and children print to."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, os.O_RDWR)
            os.dup2(found, number)
            if found > 2:
                os.close(found)


class _Lines(logging.Handler):
    """Messages as they are, on whatever ``sys.stderr`` is now."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def show_log() -> None:
    """Show the log of the library on stderr, progress included: the command line does, and nobody else."""
    if not any(isinstance(handler, _Lines) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Lines())
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False


def say(text: str) -> None:
    """Print ``text`` now; nothing where it is empty."""
    if text:
        print(text, flush=True)


def show(text: str, end: str = "\n") -> None:
    """Print what stands nowhere else.

    Raises:
        OSError: a full disk, say, took only a part. A reader that has seen enough (``| head``) is no error.
    """
    print(text, end=end, flush=True)
    failure = getattr(getattr(sys.stdout, "device", None), "failure", None)
    if failure is not None and failure.errno != errno.EPIPE:
        raise OSError(failure.errno, failure.strerror, "standard output")


def terminal() -> TextIO:
    """The standard output for a program that steers the terminal itself: uncleaned, but as lenient."""
    stream = sys.stdout
    if not isinstance(stream, Output):
        return stream
    return Output(Device(stream.device.number), stream.encoding, cleaned=False)
