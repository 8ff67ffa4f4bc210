"""The whole chain at smoke scale, by the same commands as `make demo`."""

import json
import re

import pytest

from automix_transfer.commands import demo
from automix_transfer.errors import UserError

METHODS = {"vanilla": ["top1"], "mixup": ["top1"], "cutmix": ["top1"], "automix": ["top1", "mixed_top2"]}
FIGURES = {
    ("detection", "voc"): ["AP", "AP50", "AP75"],
    ("localization", "cub"): ["MaxBoxAccV2", "MaxBoxAcc"],
    ("finetune", "cub"): ["top-1"],
    ("finetune", "aircraft"): ["top-1"],
    ("linear", "cub"): ["top-1"],
    ("knn", "aircraft"): ["top-1"],
}


def check_smoke(output):
    """That ``output`` holds a whole demo; `tests/test_wheel.py` runs one, as an installed copy does."""
    summary = json.loads((output / "summary.json").read_text())
    for method, keys in METHODS.items():
        assert all(0 <= summary["pretrain"][method][key] <= 100 for key in keys), method
    answer = json.loads((output / "downstream" / "answer.json").read_text())
    rows = {(row["task"], row["data"], row["figure"]): row["scores"] for row in answer["rows"]}
    for (task, data), figures in FIGURES.items():
        for figure in figures:
            scores = rows[task, data, figure]
            assert [one["backbone"] for one in scores] == ["vanilla", "automix", "random"]
            assert all(0 <= one["mean"] <= 100 for one in scores), (task, data, figure)
    page = (output / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>") and "data:image/png;base64," in page
    assert "What the detectors find" in page and "nearest neighbours" in page
    proof = json.loads((output / "downstream" / "backbones" / "automix.proof.json").read_text())
    assert proof["matched"] == proof["total"]


def test_demo_does_not_write_into_a_foreign_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        demo.main(["--output", str(tmp_path), "--fresh"])
    assert (tmp_path / "thesis.tex").exists()
