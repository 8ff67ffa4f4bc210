"""The doctor says what is installed and what is not, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from automix_transfer.commands import doctor
from automix_transfer.commands import doctor_report as report


def test_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "d2"))
    (tmp_path / "d2" / "VOC2007").mkdir(parents=True)
    assert (
        doctor.main(["--data-root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "report.json")])
        == 0
    )
    report, printed = json.loads((tmp_path / "report.json").read_text()), capsys.readouterr().out
    assert report["packages"]["torch"] == torch.__version__.split("+")[0] or torch.__version__.startswith(
        report["packages"]["torch"]
    )
    assert report["data"][str(tmp_path / "nowhere")] == ["no such folder"] and report["data"][
        str(tmp_path / "d2")
    ] == ["VOC 2007"]
    assert all(
        str(value) in printed for value in (report["python"], report["cores"], "VOC 2007", "detectron2")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d2", "report.json"]


def test_the_home_of_nobody_is_no_such_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "~nosuchuser/x")
    root, *_ = report.data_roots([])
    assert str(root) == "~nosuchuser/x" and report.found(root) == ["no such folder"]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(report, "version", lambda name: None)
    monkeypatch.setattr(report, "git_commit", lambda: {"version": "0.2", "commit": None, "changed": None})
    printed = report.text(report.examine())
    assert "not installed (automix-transfer install-detectron2)" in printed and "0.2 (installed" in printed
