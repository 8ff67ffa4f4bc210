"""The share of a run's time that is spent on waiting for data, and the hint that follows from it."""

from __future__ import annotations

import csv
from pathlib import Path

from automix_transfer.training.loop import train
from automix_transfer.training.record.timing import Timer
from tests.training.processes import rows


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def steps(self, timer: Timer, count: int, wait: float, work: float) -> None:
        for _ in range(count):
            self.now += wait
            timer.waited(wait)
            self.now += work


def test_shares_of_rows_and_epochs() -> None:
    """A row counts all waiting; the epoch, and so the hint, leaves out the first batch, for which the workers
    are started."""
    clock = Clock()
    timer = Timer(10, clock)
    clock.steps(timer, 1, wait=9, work=1)
    assert timer.row(11, 32) == {"images_per_s": 3.2, "data_share": 0.9}
    clock.steps(timer, 9, wait=1, work=9)
    assert timer.row(20, 32) == {"images_per_s": 3.2, "data_share": 0.1}
    assert timer.epoch(20, 32) == {"images_per_s": 3.2, "data_share": round(9 / 91, 3)}
    assert timer.hint(2) == ""
    timer.start_epoch(20)
    assert timer.epoch(20, 32)["data_share"] == 0


def test_a_starving_run_is_told_once() -> None:
    clock = Clock()
    timer = Timer(0, clock)
    clock.steps(timer, 3, wait=3, work=6)
    assert timer.hint(4) == ""  # too early to judge
    clock.steps(timer, 1, wait=3, work=6)
    assert "27% of the time" in (text := timer.hint(4)) and "data.workers (now 4 a process" in text
    assert timer.hint(4) == ""
    timer.start_epoch(4)
    clock.steps(timer, 10, wait=3, work=6)
    assert timer.hint(4) == ""
    enough = Timer(0, clock)
    clock.steps(enough, 20, wait=1, work=6)
    assert enough.hint(4) == ""


def test_every_row_of_the_logs_has_the_share(experiment, tmp_path: Path) -> None:
    train(experiment())
    assert len(rows(tmp_path / "run")) == 6 and all(
        0 < row["data_share"] <= 1 for row in rows(tmp_path / "run")
    )
    with (tmp_path / "run" / "log.csv").open(encoding="utf-8") as file:
        assert all(0 < float(row["data_share"]) <= 1 for row in csv.DictReader(file))
