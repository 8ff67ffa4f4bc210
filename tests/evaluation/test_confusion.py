"""Confused classes against torchmetrics and a plain loop, and the files that the report reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchmetrics.functional.classification import multiclass_confusion_matrix

from automix_transfer.errors import UserError
from automix_transfer.evaluation.cli import main
from automix_transfer.evaluation.confusion import confusion_figures, shot_figures
from tests.evaluation.small_runs import CLASSES, write_images, write_run


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6))
def test_counts_pairs_and_classes(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.ones(classes), count), rng.integers(classes, size=count)
    indices = rng.permutation(1000)[:count]
    found = confusion_figures(probs, labels, indices, pairs=50, examples=3)
    predicted = probs.argmax(1)
    theirs = multiclass_confusion_matrix(torch.tensor(predicted), torch.tensor(labels), classes).numpy()
    assert {(t, p): n for t, p, n in found["counts"]} == {
        (t, p): int(theirs[t, p]) for t, p in np.argwhere(theirs)
    }
    assert [(pair["true"], pair["predicted"]) for pair in found["pairs"]] == sorted(
        ((t, p) for t, p in np.argwhere(theirs).tolist() if t != p),
        key=lambda c: (-theirs[c], -theirs[c] / theirs[c[0]].sum(), *c),
    )
    for pair in found["pairs"]:
        wrong = [i for i in range(count) if labels[i] == pair["true"] and predicted[i] == pair["predicted"]]
        assert pair["count"] == len(wrong) and pair["share"] == pytest.approx(
            len(wrong) / (labels == pair["true"]).sum()
        )
        wrong.sort(key=lambda i: -probs[i].max())
        assert pair["examples"] == [int(indices[i]) for i in wrong[:3]]
        assert all(
            labels[np.flatnonzero(indices == place)[0]] == pair["predicted"]
            for place in pair["predicted_examples"]
        )
    for row in found["per_class"]:
        mine = labels == row["name"]
        assert row["n"] == mine.sum() and (
            row["top1"] is None
            if not mine.any()
            else row["top1"] == pytest.approx(100 * (predicted[mine] == row["name"]).mean())
        )
    assert found["top1"] == pytest.approx(100 * (predicted == labels).mean())


def test_classes_by_their_training_images() -> None:
    """Groups of more than 100, of 20 to 100 and of fewer than 20; means over classes, not over images."""
    labels, predicted = [0] * 4 + [1] * 2 + [2] * 2 + [3], [0, 0, 0, 1, 1, 0, 2, 2, 0]
    found = shot_figures(predicted, labels, [101, 100, 20, 19, 5])  # no test image of class 4
    assert found == {
        "many_shot_classes": 1,
        "many_shot_top1": 75.0,
        "medium_shot_classes": 2,
        "medium_shot_top1": 75.0,  # of 50 and 100 percent
        "few_shot_classes": 1,
        "few_shot_top1": 0.0,
    }
    assert "many_shot_top1" not in shot_figures(predicted, labels, [0] * 5)


def test_shots_of_a_run_and_of_weights(tmp_path: Path) -> None:
    data, run, output = write_images(tmp_path / "data"), tmp_path / "run", tmp_path / "out.json"
    for number in range(30):
        (data / "train" / CLASSES[1] / f"more_{number}.png").write_bytes(
            (data / "train" / CLASSES[1] / "0.png").read_bytes()
        )
    write_run(run, data, "vanilla")
    assert main(["--run", str(run), "--suite", "clean,shots"]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert [found[f"{name}_shot_classes"] for name in ("many", "medium", "few")] == [0, 1, 2]
    assert found["shots_train_split"] == "train" and "many_shot_top1" not in found
    assert (found["medium_shot_top1"] + 2 * found["few_shot_top1"]) / 3 == pytest.approx(found["top1"])
    command = ["--weights", str(run / "last.pt"), "--data", str(data / "val"), "--output", str(output)]
    assert main([*command, "--suite", "shots", "--train-split", "train"]) == 0
    again = json.loads(output.read_text())
    assert again["few_shot_top1"] == found["few_shot_top1"]
    for change, words in ([], "--train-split"), (["--train-split", "training"], "training"):
        with pytest.raises(UserError, match=words):
            main([*command, "--suite", "shots", *change])


def test_of_a_run_by_one_command(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    write_run(tmp_path / "run", data, "vanilla")
    assert main(["--run", str(tmp_path / "run"), "--suite", "clean,confusion", "--batch-size", "5"]) == 0
    out = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    found = json.loads((tmp_path / "run" / "confusion.json").read_text())
    assert (
        found["top1"] == out["top1"]
        and found["images"] == 18
        and out["mean_class_top1"] == found["mean_class_top1"]
    )
    assert [row["name"] for row in found["per_class"]] == list(CLASSES) and all(
        row["n"] == 6 for row in found["per_class"]
    )
    with (tmp_path / "run" / "confusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["count"]) for row in rows) == 18
    assert (
        found["pairs"]
        and {"true", "predicted", "count", "of", "share", "examples", "sources"} <= found["pairs"][0].keys()
    )
    for pair in found["pairs"]:
        for name, source in zip(pair["examples"], pair["sources"], strict=True):
            assert Path(source).parent.name == pair["true"]
            with Image.open(tmp_path / "run" / name) as small:
                assert min(small.size) == 160
