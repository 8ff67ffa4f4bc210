"""The table and the learning curves of the benchmarks that compare methods over seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from comparison import choose, compare


def run_folder(folder: Path, **last: float) -> None:
    folder.mkdir(parents=True)
    write_json(folder / "metrics.json", {f"{name}_last": value for name, value in last.items()})
    columns, values = ",".join(last), ",".join(str(value) for value in last.values())
    (folder / "log.csv").write_text(
        f"epoch,loss,images_per_s,{columns}\n1,2.5,50,{',' * (len(last) - 1)}\n2,1.5,100,{values}\n"
    )


def test_mean_spread_and_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in enumerate((30.0, 34.0)):
        run_folder(tmp_path / f"vanilla_{seed}", top1=value)
        run_folder(tmp_path / f"automix_{seed}", top1=value + 1, top1_k=value + 1, top1_q=value + 9)
    rows = compare(tmp_path, ["vanilla", "automix"], [0, 1], batch=50, setting={"epochs": 2})
    assert [row["method"] for row in rows] == ["automix, encoder q", "automix", "vanilla"]
    assert [row["top1"] for row in rows] == [41, 33, 32]
    assert all(row["std"] == pytest.approx(8**0.5) for row in rows)
    assert rows[0]["ms_a_step"] == pytest.approx(1000 * 50 / 75)  # the median of 50 and 100 images a second
    assert read_json(tmp_path / "table.json") == {"seeds": [0, 1], "epochs": 2, "rows": rows}
    assert (tmp_path / "curves.csv").read_text().splitlines() == [
        "method,seed,epoch,loss,top1,top1_q",
        "vanilla,0,2,1.5,30.0,",
        "vanilla,1,2,1.5,34.0,",
        "automix,0,2,1.5,31.0,39.0",
        "automix,1,2,1.5,35.0,43.0",
    ]
    assert "| automix | 33.00 ± 2.83 | 667 |" in capsys.readouterr().out


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    run_folder(tmp_path / "vanilla_3", top1=30.0)
    assert compare(tmp_path, ["vanilla"], [3], batch=50, setting={})[0]["std"] is None


def test_names_are_asked_for_once_and_must_exist() -> None:
    assert choose(["b", "a", "b"], {"a": 1, "b": 2}, "--methods") == ["b", "a"]
    with pytest.raises(UserError, match="--methods 'c'.*a, b"):
        choose(["c"], {"a": 1, "b": 2}, "--methods")
