"""What benchmarks/kills.py compares and draws, and what benchmarks/soak.py makes of its record."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from kills import planned, summary  # noqa: E402
from kills_compare import digest  # noqa: E402
from soak import hours_of  # noqa: E402
from soak import summary as soak_summary  # noqa: E402


def write_run(folder: Path, weight: float = 1.0, seconds: float = 3.0) -> Path:
    """A run's files, as they differ in a value or in a time."""
    folder.mkdir()
    torch.save({"fpn_output2.weight": torch.tensor([weight]), "seconds": seconds}, folder / "last.pt")
    (folder / "log.csv").write_text(f"step,loss,images_per_s\n1,{weight},{seconds}\n")
    lines = [{"step": 1, "loss": weight, "time": seconds}, {"step": 2, "loss": weight, "time": seconds}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(f"output: {folder}\nlr: {weight}\n")
    (folder / "run.json").write_text(json.dumps({"starts": [seconds]}))
    return folder


def test_times_and_places_do_not_count(tmp_path: Path) -> None:
    assert digest(write_run(tmp_path / "a")) == digest(write_run(tmp_path / "b", seconds=4.0))


def test_the_last_bit_of_a_value_counts_in_every_file(tmp_path: Path) -> None:
    one, other = digest(write_run(tmp_path / "a")), digest(write_run(tmp_path / "b", weight=1 + 2**-20))
    assert one.keys() == other.keys() == {"last.pt", "log.csv", "log.jsonl", "config.yaml"}
    assert all(one[name] != other[name] for name in one)


@pytest.mark.parametrize("name", [".last.pt.0123abcd.part", ".owner.lock", "model_0000003.pth.tmp"])
def test_a_file_left_behind_counts(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "a")
    before = digest(folder)
    (folder / name).write_bytes(b"half")
    assert digest(folder) != before


def test_a_plan_is_drawn_from_the_seed_and_meets_every_kind_of_instant() -> None:
    whole = {"cold": 9.0, "seconds": 4.0, "changes": 40, "parts": 8}
    plans = [planned(random.Random(f"0 {number} 0"), whole) for number in range(200)]
    assert plans == [planned(random.Random(f"0 {number} 0"), whole) for number in range(200)]
    assert {plan.when for plan in plans} == {"seconds", "change", "part"}
    assert len({plan.signal for plan in plans}) == 5 and {plan.group for plan in plans} == {True, False}
    assert all(plan.when == "seconds" for plan in plans if plan.cold)


def test_the_summary_counts_kills_and_unequal_chains() -> None:
    kill = {"chain": 0, "command": "pack", "kill": 0, "signal": "SIGKILL", "met": "work"}
    text = summary(
        [kill, kill | {"kill": 1}, {"chain": 0, "command": "pack", "ended": True, "differs": ["x"]}]
    )
    assert [cell.strip() for cell in text.splitlines()[-1].split("|")][1:4] == ["all", "2", "2"]
    assert text.splitlines()[-1].rstrip(" |").endswith("1")


@pytest.mark.parametrize(("grown", "memory", "files"), [(False, 104, 9), (True, 106, 9), (True, 100, 10)])
def test_a_soak_adds_up_over_its_starts_and_sees_growth(grown: bool, memory: float, files: int) -> None:
    rows = [(0, 60.0, 50.0, 5, "SIGINT, exit code 130")]
    rows += [(1, 15.0 * n, memory if n > 80 else 100.0, files if n > 80 else 9, "") for n in range(1, 121)]
    text, found = soak_summary(rows)
    assert found is grown
    assert hours_of(rows) == pytest.approx((60 + 1800) / 3600)
    assert "0.52 hours in 2 starts" in text
