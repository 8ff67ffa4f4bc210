"""Every script of examples/ runs on a few embedded images."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from automix_transfer.synthetic.write import write_all

ROOT = Path(__file__).parents[1]
SMALL = ["--size=32", "--epochs=2", "--batch-size=8", "--workers=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_all(folder, scale=0.01, processes=1, progress=False)
    return folder / "imagenet"


def run(script: str, *flags: str) -> list[float]:
    """The losses that a script of examples/ prints, one for each epoch."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *flags, *SMALL],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [float(loss) for loss in re.findall(r"^epoch \d+: loss (\S+), top-1 \S+ %$", done.stdout, re.M)]


@pytest.mark.slow
@pytest.mark.parametrize("mixup", ["resizemix", "puzzlemix"])
def test_timms_loop(mixup: str, data: Path) -> None:
    losses = run(
        "timm_loop.py", f"--data={data}", f"--mixup={mixup}", "--model=test_resnet", "--clean-epochs=1"
    )
    assert len(losses) == 2 and all(0 < loss < math.inf for loss in losses)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags", "package"),
    [
        ("automix_plain_loop.py", [], "torch"),
        ("automix_accelerate.py", [], "accelerate"),
        ("lightning_loop.py", [], "lightning"),
        ("lightning_loop.py", ["--mixup=puzzlemix"], "lightning"),
    ],
)
def test_loops_of_torchvisions_networks(
    script: str, flags: list[str], package: str, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    losses = run(script, f"--data={data}", f"--output={tmp_path / 'encoder.pth'}", *flags)
    assert len(losses) == 2 and all(0 < loss < math.inf for loss in losses)
    weights = torch.load(tmp_path / "encoder.pth", weights_only=True)
    torchvision.models.resnet18(num_classes=16).load_state_dict(weights)
