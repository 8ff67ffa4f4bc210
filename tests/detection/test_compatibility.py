"""Detectron2 on today's packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

ANCHORS = """
import torch
import automix_transfer.detection
import detectron2.modeling
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
generator = DefaultAnchorGenerator(sizes=[[32]], aspect_ratios=[1.0], strides=[16])
print(len(generator([torch.zeros(1, 1, 2, 3)])[0]))
"""


@pytest.mark.slow
def test_what_torch_says_of_detectron2s_lines_is_not_shown() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "default::FutureWarning", "-c", ANCHORS], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, "6")
    assert "torch.jit.script" not in run.stderr and "meshgrid" not in run.stderr
