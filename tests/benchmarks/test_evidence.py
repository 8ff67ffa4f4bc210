"""The tables of benchmarks/evidence.py, from small files made here."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from automix_transfer.data.listing import Listing
from automix_transfer.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from evidence import BLOCKS, METHODS, runs_of  # noqa: E402
from evidence_boxes import coco  # noqa: E402
from evidence_table import FIRST_CHOOSING, choices, differences, read, write_tables  # noqa: E402


def keep(folder: Path, method: str, top1: dict[str, list[float]], first: int = 0, epochs: int = 30) -> None:
    """Runs whose networks have these accuracies, one for each seed from ``first``."""
    for seed in range(len(next(iter(top1.values())))):
        run = folder / f"{method}_{epochs}_{first + seed}"
        run.mkdir(parents=True)
        held = {network: {"top1": values[seed], "ece15": 2.0} for network, values in top1.items()}
        (run / "held.json").write_text(json.dumps({"commit": "c0ffee", **held}))
        with (run / "log.csv").open("w", newline="") as log:
            writer = csv.DictWriter(log, ["epoch", "mask_std", *(f"top1_{network}" for network in top1)])
            writer.writeheader()
            writer.writerow({"epoch": 30, "mask_std": 0.2, **{f"top1_{n}": v[seed] for n, v in top1.items()}})


def test_differences_are_paired_and_their_intervals_are_students(tmp_path: Path) -> None:
    keep(tmp_path, "automix", {"k": [35.0, 36.0, 37.0], "q": [34.0, 36.0, 36.5]})
    keep(tmp_path, "vanilla", {"encoder": [33.0, 33.5, 36.0], "ema": [34.9, 36.2, 37.0]})
    series = read(tmp_path)
    # differences 2, 2.5, 1: mean 1.8333, s 0.7638, t(0.975, 2) = 4.3027
    assert differences(series, [("automix k", "vanilla")]) == [
        ["automix k - vanilla", 30, 3, "+1.83", "[-0.06, +3.73]", "not to be told apart with 3 seeds"]
    ]
    assert differences(series, [("automix k", "vanilla ema"), ("automix k", "mixup")])[0][3] == "-0.03"
    write_tables(tmp_path, [("automix k", "vanilla")], [], tmp_path)
    assert "36.00 ± 1.00" in (tmp_path / "tables.md").read_text() and (tmp_path / "evidence.png").exists()


def test_runs_of_two_lengths_are_compared_where_both_are_named(tmp_path: Path) -> None:
    for epochs, top1 in ((30, 35.0), (100, 38.0)):
        keep(tmp_path, "automix", {"k": [top1, top1 + 1]}, epochs=epochs)
    keep(tmp_path, "vanilla", {"encoder": [36.0, 36.0]}, epochs=84)
    [found] = differences(read(tmp_path), [("automix@30 k", "vanilla@84")])
    assert found[:4] == ["automix@30 k - vanilla@84", 30, 2, "-0.50"]


def test_runs_for_choices_stand_apart(tmp_path: Path) -> None:
    keep(tmp_path, "vanilla", {"encoder": [33.0]})
    keep(tmp_path, "vanilla", {"encoder": [41.0, 42.0]}, first=FIRST_CHOOSING)
    assert [one.held.keys() for one in read(tmp_path).values()] == [{0}]
    assert choices(read(tmp_path), read(tmp_path, choosing=True)) == [
        ["vanilla", 30, "0", "33.00", ""],
        ["vanilla", 30, "100, 101", "41.50 ± 0.71", ""],
    ]


def test_nothing_kept_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--keep"):
        write_tables(tmp_path, [], [])


def test_blocks_name_methods() -> None:
    assert {run.method for block in BLOCKS for run in runs_of(block)} == METHODS.keys()
    assert len(runs_of("A")) == 15 and runs_of("A100")[0].networks == ("k", "q")


def test_boxes_become_cocos() -> None:
    listing = Listing([Path("a.JPEG"), Path("b.JPEG")], [1, 0], ["cat", "dog"], [[(4, 0, 60, 55)], []])
    found = coco(listing)
    assert [image["file_name"] for image in found["images"]] == ["a.JPEG", "b.JPEG"]
    (box,) = found["annotations"]
    assert (box["bbox"], box["area"], box["category_id"], box["image_id"]) == ([4, 0, 56, 55], 3080, 2, 1)
    with pytest.raises(UserError, match="boxes"):
        coco(Listing([], [], []))
