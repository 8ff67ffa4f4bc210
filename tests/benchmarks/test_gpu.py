"""The page of a GPU's first ten minutes: its reduced form on a CPU, and what becomes of parts that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu  # noqa: E402
from gpu_loops import watch  # noqa: E402
from gpu_setting import REDUCED, Found, Setting  # noqa: E402
from gpu_steps import agreement  # noqa: E402


@pytest.mark.slow
def test_the_reduced_form_measures_every_part_on_a_cpu(tmp_path: Path) -> None:
    page, parts = (
        tmp_path / "page.md",
        [name for name in gpu.PARTS if name not in ("steps_bf16", "steps_channels_last")],
    )
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--reduced", "--device", "cpu", "--output", str(page)]
        + ["--minutes", "20", "--parts", *parts],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
    )
    text = page.read_text() if page.exists() else ""
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}\n{text}"
    assert "All parts went well" in text and text.startswith("# CPU, reduced\n")
    for name in parts:
        assert f"## {gpu.PARTS[name].title} (CPU)" in text
    for method in REDUCED.methods:
        assert text.count(f"| {method} |") >= 2


def broken(_setting: Setting, _until: float) -> Found:
    raise ValueError("no such kernel")


def killed(_setting: Setting, _until: float) -> Found:
    os.write(2, b"the device said goodbye\n")
    os._exit(3)


def hanging(_setting: Setting, _until: float) -> Found:
    time.sleep(60)
    return Found([])


@pytest.mark.parametrize(
    "run, sentence, seconds",
    [
        (broken, "ValueError: no such kernel", 60),
        (killed, "code 3: the device said goodbye", 60),
        (hanging, "--minutes", 0.5),
        (lambda *_: Found(["kept"], "two figures differ"), "two figures differ", 60),
        (lambda *_: Found(["kept"]), "", 60),
    ],
)
def test_a_part_that_fails_leaves_a_sentence(
    run: object, sentence: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "PARTS", {"one": gpu.Part("One", run, 1)})  # type: ignore[arg-type]
    monkeypatch.setattr(gpu, "LEAST", 0.1)
    setting = REDUCED.on("cpu", str(tmp_path))
    section, problem = gpu.measured("one", ["one"], setting, time.monotonic() + seconds, "CPU")
    assert sentence in problem and bool(problem) == bool(sentence)
    assert section.startswith("## One (CPU)") and ("**Failed**" in section) == bool(sentence)


def test_parts_without_time_are_skipped(tmp_path: Path) -> None:
    section, problem = gpu.measured("wsol", ["wsol"], REDUCED.on("cpu", str(tmp_path)), time.monotonic(), "X")
    assert "skipped" in problem and "Skipped" in section


def test_waits_are_counted_in_the_middle_of_an_epoch_only() -> None:
    run = SimpleNamespace(batches=lambda max_steps: iter(range(6)), steps_per_epoch=6)
    places: Counter[str] = Counter()
    steps = watch(run, places)  # type: ignore[arg-type]
    for _ in run.batches(None):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert steps() == 3 and list(places) == [next(iter(places))]
    assert next(iter(places)).startswith("benchmarks/test_gpu.py:")


def test_a_wrong_precision_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_step(name: str, setting: Setting, precision: str, device: object) -> tuple[float, object]:
        change = torch.ones(4) if precision == "fp32" else torch.tensor([1.0, 1.0, 1.0, -1.0])
        return 4.0, change

    monkeypatch.setattr("gpu_steps.first_step", first_step)
    found = agreement(REDUCED.on("cpu", ""), time.monotonic() + 10)
    assert "vanilla in bf16" in found.problem and "puzzlemix" not in found.problem
