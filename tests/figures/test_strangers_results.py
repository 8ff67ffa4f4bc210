"""Figures of results that somebody else wrote: refused by their file, or drawn without what is not theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.figures.confused_classes import example, read_confusion
from automix_transfer.figures.sheet import Cell
from automix_transfer.report.cli import main
from tests.evaluation.small_runs import write_images, write_run

BIN = {"low": 0, "high": 0.1, "count": 3, "confidence": 0.05, "accuracy": 0.5}
PAIR: dict[str, Any] = {
    "true": "a",
    "predicted": "b",
    "count": 2,
    "of": 4,
    "examples": [],
    "predicted_examples": [],
}
ROW = {"name": "a", "n": 4, "top1": 50.0}
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("figure", "content"),
    [
        *(("fig8", {"reliability": [{**BIN, "accuracy": value}]}) for value in ("nan", NAN, INFINITE, 1e300)),
        ("fig8", {"reliability": [{**BIN, "count": INFINITE}]}),
        ("fig8", {"reliability": [BIN] * 20_000}),
        *(("robustness", {"corruption": {"fog": [value] * 5}}) for value in ("nan", NAN, 1e299, -1)),
        ("robustness", {"corruption": {f"c{number}": [1.0] * 5 for number in range(20_000)}}),
        ("robustness", {"corruption": {"fog": {str(level): 2 for level in range(5)}}}),
        ("confusion", {"per_class": [ROW], "pairs": [{**PAIR, "examples": None}]}),
        ("confusion", {"per_class": [ROW], "pairs": [{**PAIR, "examples": [5]}]}),
        ("confusion", {"per_class": [ROW], "pairs": [{**PAIR, "predicted_examples": 5}]}),
        ("confusion", {"per_class": [ROW], "pairs": [{**PAIR, "count": NAN}]}),
        ("confusion", {"per_class": [ROW], "pairs": {"a": 1}}),
        ("confusion", {"per_class": [{**ROW, "top1": "inf"}], "pairs": []}),
        ("confusion", {"per_class": [{"n": 4, "top1": 5}], "pairs": []}),
    ],
)
def test_a_result_that_no_evaluation_wrote(figure: str, content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"theirs\.json"):
        main(["figure", figure, "--runs", str(tmp_path / "theirs.json"), "-o", str(tmp_path / "x.png")])
    assert not (tmp_path / "x.png").exists()


def test_a_figure_holds_no_picture_from_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for place in ("outside.png", "run/inside.png"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / place)
    (tmp_path / "run" / "link.png").symlink_to(tmp_path / "outside.png")
    grey = np.full((104, 104, 3), 225)
    for name in (str(tmp_path / "outside.png"), "../outside.png", "link.png", "gone.png"):
        assert np.array_equal(example(tmp_path / "run", name).image, grey), name
    assert isinstance(cell := example(tmp_path / "run", "inside.png"), Cell) and cell.image[0, 0, 0] == 255


def test_pairs_without_any_picture_have_no_sheet() -> None:
    pairs, classes, _ = read_confusion({"per_class": [{**ROW, "name": 3}], "pairs": [PAIR]})
    assert pairs[0]["label"].endswith("2 of 4 (50 %)") and classes == [{"name": "3", "n": 4, "top1": 50.0}]


@pytest.mark.parametrize(
    "change", [{"class_names": 5}, {"class_names": [1, 2, 3]}, {"mean": [0.5, 0.5]}, {"std": [0, 0, 0]}]
)
def test_a_run_whose_encoder_is_described_wrongly(change: dict[str, Any], tmp_path: Path) -> None:
    from automix_transfer.evaluation.opened import open_run
    from automix_transfer.io import save_torch

    content = write_run(tmp_path, write_images(tmp_path / "data", each=1), "vanilla")
    save_torch(tmp_path / "last.pt", {**content, "encoder": content["encoder"] | change})
    with pytest.raises(UserError, match=r"last\.pt.*'encoder'"):
        open_run(tmp_path)
