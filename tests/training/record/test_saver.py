"""Checkpoints written beside the training: one moment of it, complete or not there, and no failure goes
unheard."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch
from automix_transfer.signals import Interrupted
from automix_transfer.training.loop import train
from automix_transfer.training.record import checkpoint
from automix_transfer.training.record.saver import Saver
from automix_transfer.training.setup.run_state import Run
from tests.training.processes import assert_same_run, at_each_update
from tests.training.record.test_checkpoint import content


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that writes only once the event is set."""
    gate, real = threading.Event(), checkpoint.save

    def save(*arguments: object) -> None:
        assert gate.wait(60)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", save)
    return gate


def test_the_file_holds_the_moment_of_saving(tmp_path: Path, slow: threading.Event) -> None:
    optimizer = {"state": {0: {"m": torch.zeros(3, 4).T}}, "betas": (0.9, 0.99)}
    state = content(1, history=[{"loss": 1.0}], optimizer=optimizer)
    with Saver(tmp_path) as saver:
        saver.save(state)
        state.model["w"].add_(1)
        state.optimizer["state"][0]["m"].add_(1)
        state.history.append({"loss": 2.0})
        saver.look()
        assert not (tmp_path / "last.pt").exists()
        slow.set()
    found = load_torch(tmp_path / "last.pt")
    assert found["model"]["w"].eq(1).all() and found["history"] == [{"loss": 1.0}]
    assert found["optimizer"]["state"][0]["m"].eq(0).all() and found["optimizer"]["betas"] == (0.9, 0.99)
    assert found["optimizer"]["state"][0]["m"].stride() == (1, 4)


def test_memory_is_kept_and_forms_may_change(tmp_path: Path) -> None:
    saver = Saver(tmp_path)
    saver.save(content(1))
    saver.wait()
    place = saver._copy["model"]["w"].data_ptr()
    saver.save(content(2), names=["best.pt"])
    assert saver._copy["model"]["w"].data_ptr() == place
    weights = {"w": torch.ones(5), "v": torch.ones(2, dtype=torch.int64)}
    saver.save(content(3, model=weights, optimizer={"more": [torch.ones(1)]}))
    saver.wait()
    found = load_torch(tmp_path / "last.pt")
    assert (
        found["model"]["w"].tolist() == [1] * 5
        and found["model"]["v"].dtype == torch.int64
        and found["optimizer"]["more"][0].item() == 1
    )
    assert [load_torch(tmp_path / name)["step"] for name in ("last.pt", "previous.pt", "best.pt")] == [
        3,
        2,
        2,
    ]


def test_a_failure_is_raised_at_the_next_look(tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise UserError("no")

    saver = Saver(tmp_path)
    saver.save(content(1), approve=refuse)
    with pytest.raises(UserError, match="no"):
        while True:
            saver.look()
    saver.save(content(2))  # and is not raised again
    saver.wait()
    assert load_torch(tmp_path / "last.pt")["step"] == 2
    with pytest.raises(UserError, match="no"), saver:
        saver.save(content(3), approve=refuse)
    with pytest.raises(ValueError, match="another"), saver:  # what ended the training is what is told
        saver.save(content(3), approve=refuse)
        raise ValueError("another")


def test_steps_go_on_while_a_checkpoint_is_written(
    experiment, tmp_path: Path, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 3 is done before the checkpoint of step 2 reaches the disk; the run ends with the bits of any
    other."""
    seen = []

    def look(run: Run) -> None:
        seen.append((run.at.step + 1, (run.folder / "last.pt").exists()))
        if len(seen) == 3:
            slow.set()

    at_each_update(monkeypatch, look)
    beside = experiment("train.save_every_steps=2", "train.epochs=1")
    train(beside)
    assert seen == [(1, False), (2, False), (3, False)]
    assert load_torch(tmp_path / "run" / "last.pt")["step"] == 3
    monkeypatch.undo()
    train(replace(beside, output=str(tmp_path / "plain")))
    assert_same_run(tmp_path / "plain", tmp_path / "run")


def test_sigterm_waits_for_the_file(
    experiment, tmp_path: Path, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: Run) -> None:
        if run.at.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Thread(target=lambda: (time.sleep(0.5), slow.set())).start()

    at_each_update(monkeypatch, interrupt)
    with pytest.raises(Interrupted) as stopped:
        train(experiment())
    assert stopped.value.code == 143 and load_torch(tmp_path / "run" / "last.pt")["step"] == 2


def test_weights_that_are_not_finite_do_not_reach_the_disk(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last step whose gradient is not finite: its loss still is, so only the checkpoint can tell."""

    def poison(run: Run) -> None:
        if run.at.step + 1 == run.total_steps:
            next(run.method.parameters()).data[0] = float("nan")

    at_each_update(monkeypatch, poison)
    with pytest.raises(UserError, match=r"step 6.*last\.pt"):
        train(experiment())
    assert load_torch(tmp_path / "run" / "last.pt")["step"] == 3
