"""pretrain/export.py: prints the proof, exits with 2 and one line for what a user can put right."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.models.files import automix_checkpoint, random_encoder

SCRIPT = Path(__file__).resolve().parents[2] / "pretrain" / "export.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(stop.value.code or 0)


def test_exports_and_prints_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = automix_checkpoint(tmp_path / "last.pt", "cifar_resnet8", stem="cifar", image_size=32)
    output = tmp_path / "x.safetensors"
    command = ("--checkpoint", path, "--to", "safetensors", "--output", output, "--which", "q")
    assert run(monkeypatch, *command) == 0
    printed = capsys.readouterr().out
    assert "encoder q, step 7 (cifar_resnet8, 5 classes)" in printed and "keys: 44 of 44 matched" in printed
    assert (tmp_path / "x.safetensors").exists() and (tmp_path / "x.proof.json").exists()


def test_mistakes_exit_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(random_encoder("cifar_resnet8", 3).state_dict(), tmp_path / "source.pth")
    (tmp_path / "noise.pt").write_bytes(b"noise")
    output = tmp_path / "x.safetensors"
    for file, arguments, words in [
        ("none.pt", [], "does not exist"),
        ("noise.pt", [], "noise.pt"),
        ("source.pth", [], "--encoder"),
        ("source.pth", ["--encoder", "resnet18"], "of another architecture"),
        ("source.pth", ["--encoder", "cifar_resnet8", "--num-classes", "4"], "classifier of 3"),
    ]:
        command = ("--checkpoint", tmp_path / file, *arguments, "--to", "safetensors", "--output", output)
        assert run(monkeypatch, *command) == 2
        printed = capsys.readouterr()
        assert (
            printed.err.startswith("error: ")
            and words in printed.err
            and printed.err.count("\n") == 1
            and printed.out == ""
        )
    assert not output.exists()


def test_names_that_are_too_long_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source.pth").write_bytes(b"")
    for file, output in (("source.pth", "x" * 300 + ".pth"), ("x" * 300, "x.pth")):
        assert (
            run(monkeypatch, "--checkpoint", tmp_path / file, "--to", "timm", "--output", tmp_path / output)
            == 2
        )
        error = capsys.readouterr().err
        assert (
            error.startswith("error: ")
            and "x" * 300 in error
            and "File name too long" in error
            and error.count("\n") == 1
        )


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for word in "torchvision timm safetensors hf onnx detectron2 x.yaml x.proof.json".split():
        assert word in printed
    assert "--which k|q" in printed and "exit code is 2" in printed
