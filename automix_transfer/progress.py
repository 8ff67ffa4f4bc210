"""How far a long piece of work has come: one printer of lines for all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from automix_transfer import console

#: Seconds before the first line; shorter work stays silent.
FIRST = 5.0
#: The wait for the next line is this share of the time spent, so that a day's log stays short.
GROWTH = 0.1


def to_stderr(line: str, level: int = logging.WARNING) -> None:
    """One line where it does not mix with results: of the logger ``automix_transfer``, which the command line
    shows on stderr (`console.show_log`) and a program that embeds us may silence."""
    console.LOGGER.log(level, "%s", line)


def _step_of_work(line: str) -> None:
    to_stderr(line, logging.INFO)


def duration(seconds: float) -> str:
    """In the unit that suits: ``40 s``, ``12 min``, ``3.4 h`` or ``12 days``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:,.0f} days"


class Progress:
    """A line after five seconds and then at growing distances: what is done, how fast, and the time to go.

    The rate counts from the first call, so what an earlier run had done already does not make this one look
    fast.

    Args:
        what: in front of each line; may be empty.
        unit: of what is counted.
        write: where a line goes; default the log.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        what: str = "",
        unit: str = "images",
        write: Callable[[str], None] = _step_of_work,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prefix, self.unit, self.write, self.clock = f"{what}: " if what else "", unit, write, clock
        self.begin = clock()
        self.next = self.begin + FIRST
        self.first: tuple[int, float] | None = None  # done at the first call, and when that was

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Say that ``done`` of ``total`` are done, if it is time to; ``note`` is added to the line."""
        now = self.clock()
        self.first = self.first or (done, now)
        if now < self.next or done >= total:
            return
        self.next = now + max(FIRST, GROWTH * (now - self.begin))
        line = f"{self.prefix}{done:,} of {total:,} {self.unit}" + (f", {note}" if note else "")
        before, since = self.first
        if done > before and now > since:
            rate = (done - before) / (now - since)
            line += (
                f", {rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s, {(total - done) / rate:,.0f} s to go"
            )
        self.write(line)
