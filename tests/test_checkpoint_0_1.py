"""A checkpoint that version 0.1 wrote is of use in every way, and gives what version 0.1 gave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import automix_mask, load_method
from automix_transfer.evaluation.opened import open_run
from automix_transfer.export.run import export
from automix_transfer.io import load_torch, save_torch
from automix_transfer.localization.maps.sources import EncoderMaps
from automix_transfer.mixing import METHODS, AutoMix, build_method
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.models import create_encoder, load_encoder
from automix_transfer.models.weights import load_file
from automix_transfer.training.loop import train
from automix_transfer.training.settings import Experiment, load_experiment
from tests.training.tiny import write_images

FOLDER = Path(__file__).parent / "fixtures" / "checkpoint_0_1"
LAST = FOLDER / "last.pt"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NAME = "tiny_resnet_of_tests"


@register_model
def tiny_resnet_of_tests(pretrained: bool = False, num_classes: int = 3, **_: Any) -> ResNet:
    """The checkpoint's encoder: four stages of 8 channels."""
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=num_classes, channels=(8, 8, 8, 8), stem_width=8)


def experiment(folder: Path, *overrides: str) -> Experiment:
    """A run on small images in ``folder``."""
    fixed = [f"encoder.name={NAME}", "data.image_size=64", "train.batch_size=8", "train.device=cpu"]
    places = [f"data.root={write_images(folder / 'data')}", f"output={folder / 'run'}", "data.workers=0"]
    return load_experiment(overrides=[*fixed, *places, "method.name=automix", *overrides])


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(20))


@torch.no_grad()
def assert_logits(encoder: torch.nn.Module, images: Tensor, which: str = "k") -> None:
    assert encoder.eval()(images).numpy() == pytest.approx(np.array(EXPECTED["logits"][which]), abs=1e-4)


@pytest.mark.parametrize("which", ["k", "q"])
def test_it_is_read_and_exported(images: Tensor, which: str, tmp_path: Path) -> None:
    assert_logits(load_encoder(LAST, which=which)[0], images, which)
    for kind, suffix in (("safetensors", ".safetensors"), ("timm", ".pth")):
        output = tmp_path / f"{kind}{suffix}"
        export(LAST, kind, output, which=which)
        assert_logits(load_encoder(output, NAME)[0], images, which)


def test_it_is_evaluated_and_localizes(images: Tensor) -> None:
    run = open_run(LAST)
    assert (run.step, run.epoch, list(run.encoders)) == (3, 1, ["k", "q"])
    for which, encoder in run.encoders.items():
        assert_logits(encoder, images, which)
    maps = EncoderMaps(run.encoders["k"], run.info, image_size=64)
    found, _ = maps.activation(images, torch.tensor([0, 1, 2, 0]))
    assert len(found) == 4 and torch.isfinite(found).all() and found.std() > 0


def test_its_mix_block_makes_the_masks_it_made(images: Tensor) -> None:
    cells = torch.tensor(EXPECTED["mask"])
    block = build_method("automix", create_encoder("resnet10_32", 5), {"mix_block_weights": str(LAST)})
    for method in (load_method(LAST)[0], block):
        assert isinstance(method, AutoMix)
        mask = automix_mask(method, images, torch.tensor([1, 2, 3, 0]), 0.4, torch.Generator())
        assert torch.allclose(mask[:, 0, 8::16, 8::16], cells, atol=1e-5)


def test_it_teaches_and_other_runs_start_from_it(images: Tensor) -> None:
    assert_logits(Teacher.load(str(LAST)).network, images)
    encoder = create_encoder(NAME, 3)
    load_file(encoder, LAST, NAME)
    assert_logits(encoder, images)


def resumed(folder: Path) -> Experiment:
    """The run as it was begun, with its images and its checkpoint in ``folder``."""
    shutil.copytree(FOLDER, folder / "run")
    return experiment(folder, "train.epochs=3", "train.log_every=1", "optimizer.lr=0.05")


@pytest.mark.slow
def test_it_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    train(resumed(tmp_path), resume=True)
    content, wanted = load_torch(tmp_path / "run" / "last.pt"), EXPECTED["resumed"]
    assert content["step"] == wanted["step"]
    assert [row["val_loss"] for row in content["history"]] == pytest.approx(wanted["val_loss"], abs=1e-3)
    if EXPECTED["environment"] == [torch.__version__, torch.backends.cpu.get_cpu_capability()]:
        digest = hashlib.sha256()
        for key, value in content["model"].items():
            digest.update(key.encode() + value.contiguous().numpy().tobytes())
        assert digest.hexdigest() == wanted["digest"]


def test_an_option_that_is_gone_is_named_where_it_was_used(tmp_path: Path) -> None:
    run, content = resumed(tmp_path), load_torch(LAST)
    content["config"]["method"]["generator_every"] = 4
    save_torch(tmp_path / "run" / "last.pt", content)
    with pytest.raises(UserError, match="generator_every") as error:
        train(run, resume=True)
    assert "\n" not in str(error.value)
    for use in (load_method, lambda path: AutoMix(create_encoder(NAME, 3), mix_block_weights=str(path))):
        with pytest.raises(UserError, match="generator_every"):
            use(tmp_path / "run" / "last.pt")


@pytest.mark.parametrize("name", ["automix", "puzzlemix"])
def test_a_checkpoint_says_every_option(name: str, tmp_path: Path) -> None:
    """So that the default of an option that is added later never slips into an older run."""
    train(experiment(tmp_path, f"method.name={name}", "train.epochs=1"))
    method = load_torch(tmp_path / "run" / "last.pt")["config"]["method"]
    assert method == {"name": name, **dataclasses.asdict(METHODS[name].options_class()())}
