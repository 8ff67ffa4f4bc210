"""The whole chain at smoke scale, by the same commands as `make demo`."""

import json
import math
import re

import pytest

from automix_transfer.commands import demo
from automix_transfer.errors import UserError

SCHEMA = {
    "pretrain": {
        "vanilla": ["top1"],
        "mixup": ["top1"],
        "cutmix": ["top1"],
        "automix": ["top1", "mixed_top2"],
    },
    "detection": {"random_init": ["AP", "AP50", "AP75"], "automix": ["AP", "AP50", "AP75"]},
    "wsol": {"center_box": ["MaxBoxAcc", "MaxBoxAccV2"], "automix": ["MaxBoxAcc", "MaxBoxAccV2"]},
}


def check_smoke(output):
    """That ``output`` holds a whole demo; `tests/test_wheel.py` runs one, as an installed copy does."""
    summary = json.loads((output / "summary.json").read_text())
    for part, rows in SCHEMA.items():
        for row, keys in rows.items():
            for key in keys:
                assert 0 <= summary[part][row][key] <= 100, (part, row, key)
    for dataset in ("cub", "aircraft"):
        for start in ("scratch", "automix"):
            assert math.isfinite(summary["finegrained"][dataset][start]["top1"])
    page = (output / "report.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "data:image/png;base64," in page
    proof = json.loads((output / "export" / "backbone.proof.json").read_text())
    assert proof["matched"] == proof["total"]


def test_demo_does_not_write_into_a_foreign_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        demo.main(["--output", str(tmp_path), "--fresh"])
    assert (tmp_path / "thesis.tex").exists()
