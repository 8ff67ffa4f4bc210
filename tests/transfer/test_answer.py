"""Who is ahead: means, paired intervals and words, against SciPy's paired t-test."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from automix_transfer.errors import UserError
from automix_transfer.transfer.answer import answer, score, value_at
from automix_transfer.transfer.answer_tables import write_answer
from automix_transfer.transfer.transfer_plan import Cell

OURS = {1: 72.0, 2: 73.5, 3: 72.5, 4: 74.0}
THEIRS = {1: 70.0, 2: 71.5, 3: 71.5, 4: 71.0}


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    one = score("ours", dict(OURS), dict(THEIRS))
    expected = ttest_rel(list(OURS.values()), list(THEIRS.values())).confidence_interval(0.95)
    assert one.interval == pytest.approx((expected.low, expected.high))
    assert one.difference == pytest.approx(2.0) and one.word == "ahead"


@pytest.mark.parametrize(
    ("values", "more", "word"),
    [
        ({seed: value - 3 + seed / 100 for seed, value in THEIRS.items()}, True, "behind"),
        ({seed: value - 3 + seed / 100 for seed, value in THEIRS.items()}, False, "ahead"),
        ({1: 69.0, 2: 73.0, 3: 71.0, 4: 71.6}, True, "not to be told apart with 4 seeds"),
        ({seed: value - 3 for seed, value in THEIRS.items()}, True, "the same difference for each seed"),
        (dict(THEIRS), True, "equal"),
        ({1: 70.2, 2: 71.7}, True, "the same difference for each seed"),  # but for rounding
        ({1: 75.0}, True, "one pair"),
        ({9: 75.0}, True, "no seed in common"),
    ],
)
def test_words(values: dict, more: bool, word: str) -> None:
    assert score("x", dict(values), dict(THEIRS), more).word == word


def test_a_fixed_measurement_stands_beside_every_seed() -> None:
    one = score("fixed", {None: 75.0}, dict(THEIRS))
    assert one.difference == pytest.approx(4.0) and one.interval is not None
    assert score("fixed", {None: 75.0}, {None: 70.0}).word == "one pair"


def cells_in(folder: Path, name: str, values: dict[int, float]) -> list[Cell]:
    cells = []
    for seed, value in values.items():
        result = folder / name / f"seed{seed}" / "metrics.json"
        result.parent.mkdir(parents=True)
        result.write_text(json.dumps({"top1_median": value}))
        cells.append(Cell("finetune", "birds", name, seed, f"finetune {name} {seed}", result))
    return cells


def test_what_is_missing_is_said_with_its_reason(tmp_path: Path) -> None:
    cells = cells_in(tmp_path, "a_b", dict(THEIRS)) + cells_in(tmp_path, "ours", dict(OURS))
    cells[-1].result.unlink()
    rows = answer(cells, ["a_b", "ours"], {cells[-1].job: "the disk was full"})
    (row,) = rows
    assert row.scores[1].missing == "seed 4: the disk was full" and len(row.scores[1].values) == 3
    about = {"backbones": ["a_b", "ours"], "seeds": [1, 2, 3, 4], "differences": ["mean: other"]}
    text = write_answer(tmp_path, rows, about)
    assert "the disk was full" in text and "mean: other" in text
    assert r"a\_b" in (tmp_path / "answer.tex").read_text()
    assert "the disk was full" in (tmp_path / "answer.csv").read_text()
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 7
    assert "a_b" in (tmp_path / "answer.md").read_text()
    lost = {cells[number].job: "too large" for number in (4, 5)}  # whose results are of other settings
    assert answer(cells[:-1], ["a_b", "ours"], lost)[0].scores[1].missing == "seeds 1, 2: too large"


def test_the_table_for_a_paper_has_every_interval(tmp_path: Path) -> None:
    values = {"first": THEIRS, "more": OURS, "less": {seed: 2 * THEIRS[seed] - OURS[seed] for seed in OURS}}
    cells = [cell for name, one in values.items() for cell in cells_in(tmp_path, name, dict(one))]
    rows = answer(cells, list(values), {})
    write_answer(tmp_path, rows, {"backbones": list(values), "seeds": [1, 2, 3, 4]})
    lines = (tmp_path / "answer.tex").read_text().splitlines()
    (below,) = [line for line in lines if "footnotesize" in line]
    assert rows[0].scores[1].change() == "+2.00 [+0.70, +3.30]"
    assert r"\textbf{\footnotesize +2.00 [+0.70, +3.30]}" in below and below.count("&") == 4
    assert r"\textit{\footnotesize $-$2.00 [$-$3.30, $-$0.70]}" in below
    assert any(r"\textbf{73.00" in line for line in lines)


def test_names_of_any_letters_stand_in_every_table(tmp_path: Path) -> None:
    name, other = "a|b_50%", r"x\y <b>$^~#&{}"
    cells = cells_in(tmp_path, "1", dict(THEIRS)) + cells_in(tmp_path, "2", dict(OURS))
    cells = [dataclasses.replace(cell, backbone={"1": name, "2": other}[cell.backbone]) for cell in cells]
    rows = answer(cells[:-1] + [dataclasses.replace(cells[-1], result=tmp_path)], [name, other], {})
    write_answer(tmp_path, rows, {"backbones": [name, other], "seeds": [1, 2, 3, 4]})
    tex, md = ((tmp_path / f"answer.{end}").read_text() for end in ("tex", "md"))
    escaped = r"x\textbackslash{}y \textless{}b\textgreater{}\$\textasciicircum{}\textasciitilde{}\#\&\{\}"
    assert f"a\\textbar{{}}b\\_50\\% & {escaped}" in tex and "% Missing:" in tex
    assert r"a\|b_50%" in md and r"x\y \<b>\$^~#&{}" in md
    with open(tmp_path / "answer.csv", newline="") as file:
        assert [row["backbone"] for row in csv.DictReader(file)] == [name, other]


@pytest.mark.parametrize("value", [1e299, -1, 100.5])
def test_a_figure_that_is_no_percentage_is_refused_by_its_file(value: float) -> None:
    with pytest.raises(UserError, match=r"boxes\.json.*MaxBoxAcc"):
        value_at({"MaxBoxAcc": value}, ("MaxBoxAcc",), Path("boxes.json"))


def test_a_table_that_holds_no_numbers_is_refused_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    assert value_at({"a": {"noise": [1, 3], "blur": [4]}}, ["a"], file) == 3
    assert value_at({"a": True}, ["a"], file) is value_at({"a": 10**400}, ["a"], file) is None
    for table in ({"noise": ["x"]}, {"noise": 5}, {"noise": [10**400]}):
        with pytest.raises(UserError, match=r"evaluation\.json"):
            value_at({"a": table}, ["a"], file)
