"""Progress: silent at first, then lines at growing distances, with a rate that leaves out what was done
before."""

from __future__ import annotations

import logging

import pytest

from automix_transfer.console import LOGGER, show_log
from automix_transfer.progress import Progress, to_stderr


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_silent_at_first_then_at_growing_distances() -> None:
    clock, lines = Clock(), []
    progress = Progress("reading", write=lines.append, clock=clock)
    times = []
    for second in range(1, 301):
        clock.now = 100 + second
        before = len(lines)
        progress(10 * second, 3000)
        if len(lines) > before:
            times.append(second)
    assert times[:3] == [5, 10, 15] and times[-1] < 300  # the end is for the result to say
    waits = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert waits == sorted(waits) and waits[-1] > 20
    assert lines[0] == "reading: 50 of 3,000 images, 10 images/s, 295 s to go"


def test_the_rate_leaves_out_what_was_done_before() -> None:
    clock, lines = Clock(), []
    progress = Progress(unit="maps", write=lines.append, clock=clock)
    progress(1001, 2000)
    clock.now += 10
    progress(1021, 2000, "2 bad")
    assert lines == ["1,021 of 2,000 maps, 2 bad, 2.0 maps/s, 490 s to go"]


def test_a_single_call_gives_no_rate() -> None:
    clock, lines = Clock(), []
    progress = Progress(write=lines.append, clock=clock)
    clock.now += 6
    progress(64, 128)
    assert lines == ["64 of 128 images"]


def test_the_command_line_shows_the_log_as_it_is_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_log()
    show_log()
    to_stderr("note: 100 % of %s")
    to_stderr("1 of 2 images", logging.INFO)
    shown = capsys.readouterr()
    assert shown.err == "note: 100 % of %s\n1 of 2 images\n" and not shown.out


def test_a_program_that_embeds_the_library_has_the_log_in_its_own_hands(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the command line's handler: its own handlers get it, at levels, and it can silence it."""
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.WARNING, "automix_transfer"):
        to_stderr("note: something is odd")
        to_stderr("1 of 2 images", logging.INFO)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "note: something is odd")
    ]
    with caplog.at_level(logging.ERROR, "automix_transfer"):
        to_stderr("note: something is odd")
    assert len(caplog.records) == 1
    shown = capsys.readouterr()
    assert not shown.out and not shown.err
