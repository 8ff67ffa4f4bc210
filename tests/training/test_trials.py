"""The same training with several seeds: resumed, interrupted, on two processes, and summed up as the paper
does it."""

from __future__ import annotations

import os
import runpy
import signal
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch, read_json
from automix_transfer.signals import Interrupted, StopRequest
from automix_transfer.training.loop import train
from automix_transfer.training.record import recorder
from automix_transfer.training.settings import Experiment
from automix_transfer.training.setup.run_state import Run
from automix_transfer.training.trials import message, run_trials, summarize
from tests.training.processes import assert_same_run, at_each_update, finish_ranks, start_ranks

ROOT = Path(__file__).parents[2]


def two(experiment: Experiment, resume: bool) -> None:
    run_trials(experiment, 2, resume)


@pytest.mark.slow
def test_trials_are_runs_with_the_next_seeds_and_resume(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    settings = experiment("train.epochs=4", "seed=7")

    def interrupt(run: Run) -> None:
        if run.experiment.seed == 8 and run.at.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    at_each_update(monkeypatch, interrupt)
    with pytest.raises(Interrupted):
        run_trials(settings, 2)
    assert read_json(tmp_path / "run" / "trials.json")["trials"] == 1
    monkeypatch.undo()
    summary = run_trials(settings, 2, resume=True)
    assert summary == read_json(tmp_path / "run" / "trials.json")

    metrics = [read_json(tmp_path / "run" / f"trial_{number}" / "metrics.json") for number in range(2)]
    assert (summary["trials"], summary["wanted"], summary["seeds"]) == (2, 2, [7, 8])
    for name in ("top1_median", "top1_last", "top1_best"):
        values = [row[name] for row in metrics]
        assert summary[name] == {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values),
            "values": values,
        }
    for number, row in enumerate(metrics):  # the median of the last epochs, half of the run in one this short
        history = load_torch(tmp_path / "run" / f"trial_{number}" / "last.pt")["history"]
        assert row["top1_median"] == statistics.median(epoch["top1"] for epoch in history[-2:])
    text = capsys.readouterr().out
    assert "trial 2 of 2: seed 8" in text and "then mean ± std over the seeds 7, 8" in text

    alone = replace(settings, seed=8, output=str(tmp_path / "alone"))
    train(alone)
    assert_same_run(tmp_path / "alone", tmp_path / "run" / "trial_1")
    with pytest.raises(UserError, match="trial_0 already holds"):
        run_trials(settings, 2)


@pytest.mark.slow
def test_trials_on_two_processes(experiment, tmp_path: Path) -> None:
    """One group of processes for all trials; a finished chain gives its figures again."""
    settings = experiment("train.epochs=1")
    finish_ranks(start_ranks(settings, work=two))
    summary = read_json(tmp_path / "run" / "trials.json")
    assert summary["trials"] == 2 and summary["seeds"] == [0, 1]
    assert load_torch(tmp_path / "run" / "trial_1" / "last.pt")["processes"] == 2
    (tmp_path / "run" / "trials.json").unlink()
    finish_ranks(start_ranks(settings, work=two))
    assert read_json(tmp_path / "run" / "trials.json") == summary


def test_a_signal_during_the_last_file_of_a_trial_stops_the_next(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recorder.final_metrics

    def final_metrics(run):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(run)

    monkeypatch.setattr(recorder, "final_metrics", final_metrics)
    with pytest.raises(Interrupted, match="1 of 3 trials.*--resume") as stopped:
        run_trials(experiment("train.epochs=1"), 3)
    assert stopped.value.code == 143
    assert (tmp_path / "run" / "trial_0" / "metrics.json").exists() and not (
        tmp_path / "run" / "trial_1"
    ).exists()


def test_what_one_request_hears_the_other_hears() -> None:
    with StopRequest() as outer:
        with StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert (inner.number, outer.number) == (signal.SIGTERM, signal.SIGTERM)
        with StopRequest() as second:
            assert second.number == signal.SIGTERM
    with StopRequest() as alone:
        assert alone.number == 0


def test_a_later_folder_is_looked_at_before_anything_is_trained(experiment, tmp_path: Path) -> None:
    (tmp_path / "run" / "trial_1").mkdir(parents=True)
    (tmp_path / "run" / "trial_1" / "last.pt").write_bytes(b"")
    with pytest.raises(UserError, match="trial_1 already holds"):
        run_trials(experiment(), 2)
    assert not (tmp_path / "run" / "trial_0").exists()


def test_the_papers_numbers() -> None:
    """Mean and sample standard deviation, by hand: 80, 81, 83 have mean 81.33 and squared distances 1.78 +
    0.11 + 2.78."""
    metrics = [
        {"top1_median": value, "median_epochs": 10, "epochs": 200, "top1_q_last": value - 1}
        for value in (80.0, 81.0, 83.0)
    ]
    summary = summarize(metrics, [0, 1, 2, 3], 4)
    assert summary["top1_median"]["mean"] == pytest.approx(81 + 1 / 3) and summary["top1_median"][
        "std"
    ] == pytest.approx((14 / 6) ** 0.5)
    assert summary["top1_q_last"]["values"] == [79.0, 80.0, 82.0]
    assert message(summary) == (
        "3 trials: top-1 81.33 ± 1.53 % (median of the last 10 epochs, then mean ± std over the seeds 0, 1, "
        "2: "
        "80.00, 81.00, 83.00)"
    )
    assert summarize(metrics[:1], [5], 1)["top1_median"]["std"] is None and message(
        summarize(metrics[:1], [5], 1)
    ).startswith("1 trial: ")
    assert message(summarize([{"epochs": 0, "steps": 0}], [0], 1)) == "1 trials finished"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trials", "0"], "--trials 0 must be at least 1"),
        (["--trials", "2", "--eval-only"], "output=FOLDER/trial_0"),
    ],
)
def test_bad_flags_are_one_line_and_code_2(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, flags: list[str], words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain/train.py", f"data.root={images}", "train.device=cpu", *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "pretrain" / "train.py"), run_name="__main__")
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and words in errors and errors.count("\n") == 1
