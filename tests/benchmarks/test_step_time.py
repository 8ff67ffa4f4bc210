"""The benchmark of a step: its counts, its memory and its table, on a network of a few channels."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.mixing.automix import step as automix_step
from automix_transfer.mixing.parts.freed import FreedLoss

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def step_time() -> ModuleType:
    spec = importlib.util.spec_from_file_location("step_time", BENCHMARKS / "step_time.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["step_time"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def setting(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{
            "encoder": "cifar_resnet8",
            "stem": "cifar",
            "size": 32,
            "batch": 16,
            "teacher": "resnet18",
            **changes,
        }
    )


def test_memory_is_what_is_kept_and_the_peak_of_what_is_allocated(step_time: ModuleType) -> None:
    step = step_time.make_step("vanilla", setting(), CPU, "")
    step.run(0)
    weights = sum(p.numel() for p in step.method.parameters()) * 4
    buffers = sum(b.numel() * b.element_size() for b in step.method.buffers())
    # momentum too; images and labels
    assert step.kept() == 2 * weights + buffers + 16 * 3 * 32 * 32 * 4 + 16 * 8
    peak = step_time.peak_memory(step, CPU)
    # three stages of 16, 32 and 64 channels: each of the seven convolutions and norms keeps a map of the
    # batch
    maps = 16 * 4 * 2 * (3 * 16 * 32 * 32 + 2 * 32 * 16 * 16 + 2 * 64 * 8 * 8)
    assert step.kept() + 0.8 * maps < peak < step.kept() + 2.5 * maps


def test_automix_frees_early(step_time: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    for name, early in (("vanilla", True), ("automix", True), ("automix", False)):
        monkeypatch.setattr(automix_step, "FreedLoss", partial(FreedLoss, early=early))
        step = step_time.make_step(name, setting(batch=32), CPU, "")
        step.run(0)
        peaks.append(step_time.peak_memory(step, CPU))
    assert peaks[1] < 1.5 * peaks[0] < 2.0 * peaks[0] < peaks[2]


def test_counted_passes(step_time: ModuleType) -> None:
    found = {}
    for name in ("vanilla", "automix", "automix_fast"):
        step = step_time.make_step(name, setting(), CPU, "")
        found[name] = step_time.count_passes(step.run, step.method, setting())
    assert 2.8 < found["vanilla"] < 3 and found["automix_fast"] < 0.55 * found["automix"]


@pytest.mark.slow
def test_the_table_is_written(
    step_time: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "found.json"
    arguments = [
        "--encoder",
        "cifar_resnet8",
        "--size",
        "32",
        "--batch",
        "4",
        "--methods",
        "automix",
        "--rounds",
        "1",
        "--device",
        "cpu",
        "--precision",
        "bf16",
        "--channels-last",
        "--output",
        str(output),
    ]
    monkeypatch.setattr(sys, "argv", ["step_time.py", *arguments])
    step_time.main()
    rows = read_json(output)["steps"]
    assert set(rows) == {"vanilla", "mixup", "automix"} and rows["vanilla"]["to_vanilla"] == 1
    assert all(row["bytes"] > 0 and row["seconds"] > 0 and row["passes"] > 2.5 for row in rows.values())
    assert "automix" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--methods", "automax"], "--methods automax"),
        (["--rounds", "0"], "--rounds"),
        (["--batch", "1"], "--batch at least 2"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    step_time: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["step_time.py", *arguments])
    with pytest.raises(UserError, match=words):
        step_time.main()
