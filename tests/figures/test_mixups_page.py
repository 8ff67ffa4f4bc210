"""docs/mixing.md is in step with METHODS and with its script, and the picture can be drawn from any AutoMix
run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.figures.mixups_page import main, page
from automix_transfer.figures.mixups_picture import mixed_by_all, mixups_picture
from automix_transfer.figures.samples import Pairs
from automix_transfer.mixing import METHODS, build_method
from automix_transfer.models import create_encoder
from automix_transfer.models.encoders import IMAGENET_MEAN, IMAGENET_STD

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_script_writes(tmp_path: Path) -> None:
    assert main(["--output", str(tmp_path)]) == 0
    committed = (ROOT / "docs" / "mixing.md").read_text(encoding="utf-8")
    assert (tmp_path / "mixing.md").read_text(encoding="utf-8") == committed == page()
    assert (ROOT / "docs" / "mixing.png").exists()
    for name in METHODS:
        assert f"| `{name}` |" in committed


def test_options_that_the_page_names_exist() -> None:
    fields = {field for entry in METHODS.values() for field in vars(entry.options_class()())}
    for option in re.findall(r"`(\w+)=\w", page()):
        assert option in fields
    for file in re.findall(r"(?:benchmarks|pretrain)/[\w/]+\.\w+", page()):
        assert (ROOT / file).exists(), file


def test_the_picture_shows_every_method(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = build_method("automix", create_encoder("resnet10_32", 4))
    images = torch.randn(2, 3, 64, 64)
    pairs = Pairs(images[:1], images[1:], IMAGENET_MEAN, IMAGENET_STD)
    mixed = mixed_by_all(pairs, method)
    assert len(mixed) == 11
    for name, (picture, mask) in mixed.items():
        assert picture.shape == (1, 3, 64, 64) and torch.isfinite(picture).all(), name
        if name not in ("puzzlemix", "resizemix", "comixup", "augmix"):
            assert torch.allclose(picture, mask * images[:1] + (1 - mask) * images[1:], atol=1e-5), name
        if name in ("mixup", "fmix", "resizemix", "cutmix"):
            assert mask.mean().item() == pytest.approx(0.5, abs=0.06)
    path = mixups_picture(tmp_path / "picture.png", pairs, method)
    assert np.asarray(Image.open(path)).std() > 10


def test_half_a_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both --checkpoint and --data"):
        main(["--output", str(tmp_path), "--data", str(tmp_path)])
