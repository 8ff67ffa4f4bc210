"""A training that no longer gets better ends early, and at the same iteration if it was killed on the way."""

import json
import shutil

import pytest
import torch

from automix_transfer.errors import UserError
from tests.detection.comparing.test_compare import plan_of, write_run
from tests.detection.resuming.test_began import start
from tests.detection.test_resume import arguments, weights
from tests.detection.tiny import QUICK

OPTIONS = [
    *QUICK,
    *("MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "1"),
    *("TEST.EVAL_PERIOD", "1", "SOLVER.PATIENCE", "2"),
]
SCRIPTED = {1: 10.0, 2: 20.0, 3: 5.0, 4: 20.0, 5: 30.0, 6: 1.0}  # AP50 after each iteration


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    from automix_transfer.detection import engine

    def figures(self):
        value = SCRIPTED[min(self.iter + 1, self.max_iter)]
        asked.append(value)
        return {"bbox": {"AP": 1.0, "AP50": value, "AP75": 0.0}}

    asked: list[float] = []
    monkeypatch.setattr(engine.Trainer, "_figures", figures)
    return asked


@pytest.fixture()
def begun(voc, tmp_path, scripted):
    folder = tmp_path / "whole"
    found = start(voc, folder, *OPTIONS, resume=False, best_metric="bbox/AP50")
    assert scripted == [10.0, 20.0, 5.0, 20.0], "the last evaluation is not made twice"
    return folder, found


def curves(folder):
    lines = (json.loads(line) for line in (folder / "metrics.json").read_text().splitlines())
    return [
        {key: value for key, value in row.items() if "time" not in key and "eta" not in key} for row in lines
    ]


@pytest.mark.slow
def test_it_ends_where_a_killed_and_resumed_one_ends(voc, begun, tmp_path):
    whole, found = begun
    stop = found["stopped_early"]
    assert (found["iterations"], stop["iteration"], stop["max_iter"], stop["best"]) == (4, 4, 6, 2)
    assert "SOLVER.PATIENCE 2" in stop["why"] and found["AP50"] == 20
    assert json.loads((whole / "best.json").read_text())["iteration"] == 2
    last = whole / "model_final.pth"
    assert torch.load(last, weights_only=True)["iteration"] == 3
    text = (whole / "metrics.json").read_text()
    states = {
        "before the last step": ("model_0000002.pth", text),
        "before the last evaluation": ("model_0000003.pth", "".join(text.splitlines(True)[:3])),
        "before model_final": ("model_0000003.pth", text),
        "before results.json": ("model_final.pth", text),
    }
    for name, (newest, rows) in states.items():
        folder = shutil.copytree(whole, tmp_path / name)
        (folder / "results.json").unlink()
        (folder / "last_checkpoint").write_text(newest)
        if newest != "model_final.pth":
            (folder / "model_final.pth").unlink()
        (folder / "metrics.json").write_text(rows)
        assert start(voc, folder)["stopped_early"] == stop, name
        a, b = weights(last), weights(folder / "model_final.pth")
        assert all(torch.equal(a[key], b[key]) for key in a), name
        assert curves(folder) == curves(whole), name


def test_it_goes_on_without_patience(voc, begun):
    folder, _ = begun
    found = start(voc, folder, "SOLVER.PATIENCE", "0")
    assert found["iterations"] == 6 and "stopped_early" not in found
    best = json.loads((folder / "best.json").read_text())
    assert (best["metric"], best["value"], best["iteration"]) == ("bbox/AP50", 30.0, 5)


def test_smaller_losses_are_better():
    from automix_transfer.detection.resuming.early_stop import stale_evaluations

    nan = float("nan")
    assert stale_evaluations("bbox/AP", {}) == (0, 0)
    assert stale_evaluations("bbox/AP", {2: 1.0, 4: 3.0, 6: 3.0, 8: nan}) == (4, 2)
    assert stale_evaluations("val_loss", {2: nan, 4: 3.0, 6: 1.0, 8: 2.0}) == (6, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOLVER.PATIENCE", "3"], r"SOLVER\.PATIENCE 3.*TEST\.EVAL_PERIOD"),
        (["SOLVER.PATIENCE", "-1"], r"SOLVER\.PATIENCE is -1"),
        (["SOLVER.PATIENCE", "soon"], r"SOLVER\.PATIENCE must be of type int"),
    ],
)
def test_patience_that_means_nothing(voc, tmp_path, options, message):
    from automix_transfer.detection.trainer import prepare

    with pytest.raises(UserError, match=message):
        prepare(arguments(voc, tmp_path, "MODEL.WEIGHTS", "", *QUICK, *options, resume=False))


def test_a_comparison_takes_a_run_that_was_ended_early(tmp_path):
    from automix_transfer.detection.comparing.compare import _refuse_unfinished

    file, stop = tmp_path / "results.json", {"iteration": 4, "max_iter": 6}
    patient = {"SOLVER.MAX_ITER": 6, "SOLVER.PATIENCE": 2}
    file.write_text(json.dumps({"iterations": 4, "stopped_early": stop}))
    _refuse_unfinished(file, patient)
    for results, config in (
        ({"iterations": 4}, patient),
        ({"iterations": 3, "stopped_early": stop}, patient),
        ({"iterations": 4, "stopped_early": stop}, {**patient, "SOLVER.MAX_ITER": 8}),
        ({"iterations": 4, "stopped_early": stop}, {"SOLVER.MAX_ITER": 6}),
    ):
        file.write_text(json.dumps(results))
        with pytest.raises(UserError, match=r"results\.json"):
            _refuse_unfinished(file, config)


def test_a_table_says_which_runs_were_ended_early(tmp_path):
    from automix_transfer.detection.comparing.collected import collect
    from automix_transfer.detection.comparing.compare import Row

    plan = plan_of(tmp_path, [Row("a", ""), Row("b", "")])
    for row in plan.rows:
        for seed in plan.seeds:
            write_run(plan.folder(row, seed), 1.0, seed)
    whole = collect(plan)
    file = plan.folder(plan.rows[0], 2) / "results.json"
    stop = {"iteration": 4, "max_iter": 9}
    file.write_text(json.dumps({**json.loads(file.read_text()), "iterations": 4, "stopped_early": stop}))
    found = collect(plan)
    assert found.about["stopped_early"] == {"a seed 2": 4} and found.about["iterations"] == 9
    assert "SOLVER.PATIENCE" in found.sentence() and "SOLVER.PATIENCE" not in whole.sentence()
