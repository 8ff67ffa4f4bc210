"""A setting is chosen for each backbone on training images that were held out, and never on test images."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from automix_transfer.commands import transfer
from automix_transfer.errors import UserError
from automix_transfer.io import write_json
from automix_transfer.transfer import transfer_settings as wanted
from automix_transfer.transfer.backbones import parse_backbones
from automix_transfer.transfer.transfer_plan import plan_trials
from automix_transfer.transfer.transfer_run import chosen, prepare, write_record
from automix_transfer.transfer.tuning import SEED
from tests.training.tiny import write_images

RANDOM = ("a=random", "b=random")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def settings(output: Path, images: Path, *tune: str, **others) -> wanted.Settings:
    tasks = ("finetune", "robustness")
    values = {
        "tasks": tasks,
        "data": wanted.parse_data([f"birds={images}"]),
        "seeds": (1, 2),
        "finetune_recipe": "embedded_cub",
        "tune": wanted.parse_tune(tune, tasks),
    }
    return wanted.Settings(output, **{**values, **others})


def named():
    return parse_backbones(RANDOM, ["resnet10_32"], [])


def finish(prepared, figures: dict[str, float]) -> None:
    write_record(prepared)
    for trial in prepared.trials:
        if (top1 := figures.get(f"{trial.backbone} {trial.value}")) is not None:
            write_json(trial.job.result, {"top1_median": top1})


def test_trials_read_the_training_split_alone_and_the_comparison_all_of_it(tmp_path, images) -> None:
    prepared = prepare(settings(tmp_path, images, "lr=0.01,0.1"), named())
    assert prepared.choosing and len(prepared.now) == 4
    for job in prepared.now:
        words = shlex.split(job.line)
        last = dict(word.partition("=")[::2] for word in words if "=" in word)
        assert last["data.train_split"] == "train[:80%]" and last["data.val_split"] == "train[80%:]"
        assert last["seed"] == str(SEED) and last["optimizer.lr"] in ("0.01", "0.1")
    assert "then come the 8 jobs" in " ".join(prepared.text().split())
    assert not any("optimizer.lr" in line for line in prepared.differences())
    part = settings(tmp_path, images, "lr=1,2", overrides={"finetune": ("data.train_split=val",)})
    jobs, _ = plan_trials(part, named(), prepared.backbones)
    assert all("data.val_split=val[80%:]" in job.command for job in jobs)


def test_each_backbone_gets_its_own_best_and_what_failed_is_said(tmp_path, images) -> None:
    asked = settings(tmp_path, images, "lr=0.01,0.03,0.1")
    prepared = prepare(asked, named())
    finish(prepared, {"a 0.01": 30, "a 0.03": 40, "a 0.1": 40, "b 0.01": 20, "b 0.03": 10})
    failures: dict[str, str] = {}
    ready = chosen(prepared, {prepared.trials[-1].job.name: "the loss is NaN"}, failures)
    assert not failures and not ready.choosing
    rates = {
        (name, word) for job in ready.jobs for name in "ab" for word in job.command
        if f" {name} seed" in job.name and word.startswith("optimizer.lr")
    }  # fmt: skip
    assert rates == {("a", "optimizer.lr=0.03"), ("b", "optimizer.lr=0.01")}
    (line,) = [line for line in ready.differences() if "optimizer.lr" in line]
    assert (
        "a 0.03 (40.00 %)" in line and "b 0.01 (20.00 %, at the edge" in line and "0.1, which failed" in line
    )
    finish(prepared, {"b 0.1": 5})
    again = prepare(asked, named())  # all trials are done: the comparison at once
    assert not again.choosing and [job.line for job in again.jobs] == [job.line for job in ready.jobs]


def test_a_backbone_of_which_every_trial_failed_is_missing_and_the_others_go_on(tmp_path, images) -> None:
    prepared = prepare(settings(tmp_path, images, "lr=1,2"), named())
    finish(prepared, {"a 1": 50, "a 2": 60})
    failures: dict[str, str] = {}
    lost = {trial.job.name: "the loss is NaN" for trial in prepared.trials if trial.backbone == "b"}
    ready = chosen(prepared, lost, failures)
    assert {job.name for job in ready.jobs if " b " in job.name} == set()
    assert len(failures) == 4 and all("the loss is NaN" in reason for reason in failures.values())
    assert len(ready.jobs) == 4 and len(ready.cells) == 8


def test_detection_holds_out_images_of_its_own_training_set(tmp_path) -> None:
    (tmp_path / "VOC2007" / "ImageSets" / "Main").mkdir(parents=True)
    asked = wanted.Settings(
        tmp_path / "out",
        ("detection",),
        wanted.parse_data([f"voc={tmp_path / 'VOC2007'}"]),
        (1,),
        "embedded_R10_FPN",
        tune=wanted.parse_tune(["detection.SOLVER.BASE_LR=0.01,0.02"], ["detection"]),
    )
    prepared = prepare(asked, named())
    words = prepared.now[0].command
    assert words[words.index("DATASETS.HOLD_OUT") + 1] == "20"
    assert words[words.index("SOLVER.BASE_LR") + 1] == "0.01"
    assert not any("DATASETS.HOLD_OUT" in job.command for job in prepared.jobs)


@pytest.mark.parametrize(
    "words", [["lr=0.1"], ["lr=0.1,0.1"], ["lr=0.1,"], ["knn.k=1,2"], ["lr=1,2", "finetune.optimizer.lr=1,2"],
              ["finetune.seed=1,2"], ["rate"], ["finetune.=1,2"]],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused(words) -> None:
    with pytest.raises(UserError):
        wanted.parse_tune(words, ("finetune", "knn"))


def test_a_rate_of_no_training_is_refused() -> None:
    with pytest.raises(UserError, match="there is none"):
        wanted.parse_tune(["lr=0.1,0.2"], ("knn",))


def test_a_setting_is_given_or_chosen(tmp_path, images) -> None:
    both = settings(tmp_path, images, "lr=0.1,0.2", overrides={"finetune": ("optimizer.lr=0.1",)})
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        wanted.check(both)
    part = {"finetune": ("data.train_split=train[:50%]",)}
    with pytest.raises(UserError, match=r"finetune\.data\.train_split=train\[:50%\]"):
        wanted.check(settings(tmp_path, images, "lr=0.1,0.2", overrides=part))


@pytest.mark.slow
def test_the_whole_command_chooses_and_compares(tmp_path, images, capsys) -> None:
    words = ["--backbones", *RANDOM, "--encoder", "resnet10_32", "--tasks", "finetune", "--seeds", "1"]
    words += ["--data", f"birds={images}", "--finetune-recipe", "embedded_cub", "--tune", "lr=0.01,0.1"]
    words += ["--output", str(tmp_path / "answer"), "--jobs", "2"]
    small = ["train.epochs=1", "train.batch_size=4", "schedule.warmup_epochs=0", "data.image_size=32"]
    words += [f"finetune.{word}" for word in small]
    assert transfer.main(words) == 0
    answer = json.loads((tmp_path / "answer" / "answer.json").read_text())
    assert len(answer["about"]["chosen"]) == 2
    assert all(len(one["held_out"]) == 2 for one in answer["about"]["chosen"])
    assert "chosen of 0.01, 0.1" in (tmp_path / "answer" / "answer.md").read_text()
    capsys.readouterr()
    assert transfer.main(words) == 0 and "started" not in capsys.readouterr().out
