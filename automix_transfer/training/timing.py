"""Clocks of a run: images a second, the share of time spent waiting for data, and seconds in all."""

from __future__ import annotations

import time


class Timer:
    """Measures the log's rows, epochs, and the time between checkpoints. ``waiting`` is added to by who waits for the loader."""

    def __init__(self, step: int) -> None:
        self.waiting = 0.0
        self._lap = time.monotonic()
        self.start_epoch(step)

    def start_epoch(self, step: int) -> None:
        """Begin an epoch at ``step``, or what is left of it."""
        self._epoch = self._row = (time.monotonic(), step)
        self.waiting = 0.0

    def row(self, step: int, batch_size: int) -> dict[str, float]:
        """``images_per_s`` (all processes) and ``data_share`` in [0, 1] since the last call."""
        now, (before, first) = time.monotonic(), self._row
        seconds = max(now - before, 1e-9)
        rates = {"images_per_s": (step - first) * batch_size / seconds, "data_share": min(self.waiting / seconds, 1.0)}
        self._row, self.waiting = (now, step), 0.0
        return rates

    def epoch_rate(self, step: int, batch_size: int) -> float:
        """Images a second since the epoch's start, evaluation not counted if called before it."""
        before, first = self._epoch
        return (step - first) * batch_size / max(time.monotonic() - before, 1e-9)

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.monotonic()
        seconds, self._lap = now - self._lap, now
        return seconds
