"""What a launcher says counts where it said all of it."""

from __future__ import annotations

import os
import sys

import pytest

from automix_transfer import signals
from automix_transfer.command_line import this_command
from automix_transfer.host import launched
from automix_transfer.host.launched import LAUNCHER, cores, processes_here, speaks_for_all


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHER, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("size", ["", "two", "8"])
def test_what_was_left_behind_in_a_shell_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, size: str
) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(sys, "argv", ["automix-transfer", "probe"])
    assert speaks_for_all() and processes_here() == 1 and this_command() == sys.argv
    with signals.listening():
        assert signals.say_last(signals.Interrupted(15)) == 143
    assert signals.UNTOUCHED in capsys.readouterr().err


def test_a_launcher_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCHER, ("1", "4", "1", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not speaks_for_all() and processes_here() == 2


def test_cores_where_the_system_keeps_no_list_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(launched.os, "sched_getaffinity", raising=False)
    assert cores() == (os.cpu_count() or 1)
