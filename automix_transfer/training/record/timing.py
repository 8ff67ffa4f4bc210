"""Clocks of a run: images a second, the share of time spent waiting for data, and seconds in all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

STARVING = 0.2  # share of the time waited for data above which a run is told so
PATIENCE = 30.0  # seconds of an epoch before it is judged

T = TypeVar("T")


class Timer:
    """Measures the log's rows, epochs, and the time between checkpoints. ``clock`` gives seconds."""

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lap = clock()
        self._said = False
        self.start_epoch(step)

    def start_epoch(self, step: int) -> None:
        """Begin an epoch at ``step``, or what is left of it."""
        self._epoch = self._row = (self.clock(), step)
        self._row_waits = self._epoch_waits = 0.0
        # when the first batch was there: starting the loader's workers is no starving
        self._first: float | None = None

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The same ``batches``; what the loader is waited for is noted."""
        remaining = iter(batches)
        while True:
            begun = self.clock()
            try:
                batch = next(remaining)
            except StopIteration:
                return
            self.waited(self.clock() - begun)
            yield batch

    def waited(self, seconds: float) -> None:
        """Note that the loader was waited for."""
        self._row_waits += seconds
        if self._first is None:
            self._first = self.clock()
        else:
            self._epoch_waits += seconds

    def row(self, step: int, batch_size: int) -> dict[str, float]:
        """Since the last call: ``images_per_s`` of all processes, and ``data_share`` in [0, 1], which this
        process waited for data."""
        now, (before, first) = self.clock(), self._row
        seconds = max(now - before, 1e-9)
        rates = {
            "images_per_s": (step - first) * batch_size / seconds,
            "data_share": min(self._row_waits / seconds, 1.0),
        }
        self._row, self._row_waits = (now, step), 0.0
        return rates

    def epoch(self, step: int, batch_size: int) -> dict[str, float]:
        """As `row`, since the epoch's start without the first batch; to be called before the evaluation."""
        now, (before, first) = self.clock(), self._epoch
        return {
            "images_per_s": round((step - first) * batch_size / max(now - before, 1e-9), 1),
            "data_share": round(self._share(now), 3),
        }

    def hint(self, workers: int) -> str:
        """One sentence, once, if more than a fifth of the epoch so far was waiting for data; else nothing."""
        now = self.clock()
        share = self._share(now)
        if self._said or share <= STARVING or now - self._epoch[0] < PATIENCE:
            return ""
        self._said = True
        return (
            f"hint: {share:.0%} of the time goes into waiting for images; raise data.workers (now {workers} "
            f"a process; this machine has {os.cpu_count()} cores), or put the data on a faster disk or into "
            "shards (automix-transfer data pack)"
        )

    def lap(self) -> float:
        """Seconds since the last call."""
        now = self.clock()
        seconds, self._lap = now - self._lap, now
        return seconds

    def _share(self, now: float) -> float:
        return 0.0 if self._first is None else min(self._epoch_waits / max(now - self._first, 1e-9), 1.0)
