"""Ctrl-C and SIGTERM on the real script: a checkpoint, the command that goes on, and the exit code."""

from __future__ import annotations

import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix_transfer.io import load_torch
from automix_transfer.signals import Interrupted
from automix_transfer.training.loop import train
from tests.training.processes import assert_same_run, at_each_update, finish, last_logged
from tests.training.tiny import FAST

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_writes_a_checkpoint(experiment, images: Path, tmp_path: Path, number: int, code: int) -> None:
    run, long = tmp_path / "run", ["train.epochs=4", "data.workers=2"]
    command = [sys.executable, "pretrain/train.py", *FAST, f"data.root={images}", f"output={run}", *long]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while last_logged(run) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: to the loader's workers too
    _, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    assert f"{run / 'last.pt'} is written" in errors and "Traceback" not in errors
    assert load_torch(run / "last.pt")["step"] >= 2
    resumed = shlex.split(errors.strip().splitlines()[-1].partition("go on with: ")[2])
    assert resumed[1:] == [*command[1:], "--resume"]

    if number == signal.SIGTERM:  # the same path; once is enough
        return
    whole = experiment(*long, f"output={tmp_path / 'whole'}")
    finish(whole)
    finish(experiment(*long))
    assert_same_run(run, tmp_path / "whole")


def test_an_epoch_that_is_stopped_at_its_last_step_has_its_picture(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is of the last step, which a resumed run does not repeat."""
    options = ["method.name=mixup", "train.picture_epochs=[1]"]
    whole = experiment(*options, f"output={tmp_path / 'whole'}")
    train(whole)
    with monkeypatch.context() as patched:
        at_each_update(
            patched, lambda run: os.kill(os.getpid(), signal.SIGTERM) if run.at.step == 2 else None
        )
        with pytest.raises(Interrupted):
            train(experiment(*options))
    assert load_torch(tmp_path / "run" / "last.pt")["step"] == 3
    train(experiment(*options), resume=True)
    pictures = [tmp_path / name / "pictures" / "epoch_0001.png" for name in ("whole", "run")]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_bad_input_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["finegrained/train.py", f"data.root={tmp_path / 'none'}", "train.device=cpu"]
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "finegrained" / "train.py"), run_name="__main__")
    errors = capsys.readouterr().err
    assert (
        ended.value.code == 2
        and errors.startswith("error: ")
        and str(tmp_path / "none") in errors
        and errors.count("\n") == 1
    )
