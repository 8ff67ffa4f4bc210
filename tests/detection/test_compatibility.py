"""Detectron2 on today's packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from automix_transfer.detection import compatibility
from tests.data import trees

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


def test_detectron2_reads_our_formats_and_regular_files_only(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    compatibility.apply()
    from detectron2.data import detection_utils

    trees.save_image(tmp_path / "x.jpg", (16, 12))
    assert detection_utils.read_image(str(tmp_path / "x.jpg"), "BGR").shape == (12, 16, 3)
    (tmp_path / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("eps.jpg", "pipe.jpg"):
        with pytest.raises(OSError, match=name):
            detection_utils.read_image(str(tmp_path / name))
