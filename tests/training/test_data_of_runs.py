"""What a run makes of its data: the order of classes, and images that both splits have."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.models import create_encoder
from automix_transfer.training.distributed import World
from automix_transfer.training.loop import train
from automix_transfer.training.record.checkpoint import load_latest
from automix_transfer.training.settings import Experiment, load_experiment
from automix_transfer.training.setup.build_data import build_data, class_weights, tell_of_data
from automix_transfer.training.setup.build_model import build_model
from automix_transfer.training.setup.build_run import build_run
from tests.training.tiny import FAST, write_images


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Three class folders that are numbers: 0, 2 and 10."""
    root = write_images(tmp_path / "data")
    for folder in root.glob("*/class_*"):
        folder.rename(folder.with_name({"class_0": "0", "class_1": "2", "class_2": "10"}[folder.name]))
    return root


def experiment(root: Path, *overrides: str) -> Experiment:
    output = root.parent / "run"
    return load_experiment(
        overrides=[*FAST, f"data.root={root}", f"output={output}", "train.epochs=1", *overrides]
    )


def test_a_run_of_version_0_1_keeps_the_order_of_text(numbers: Path) -> None:
    train(experiment(numbers, "data.class_order=text"))
    found = load_latest(numbers.parent / "run")
    assert found is not None and found.encoder["class_names"] == ["0", "10", "2"]
    del found.config["data"]["class_order"]  # which that version did not have
    world = World(0, 1, torch.device("cpu"))
    resumed = build_run(experiment(numbers), world, found)
    assert resumed.train_set.classes == ["0", "10", "2"]
    assert [p.parent.name for p in resumed.train_set.listing.paths[:10:9]] == ["0", "10"]
    new = replace(experiment(numbers), output=str(numbers.parent / "new"))
    assert build_run(new, world).train_set.classes == ["0", "2", "10"]


def test_a_kept_classifier_without_names_must_be_told_the_order(numbers: Path) -> None:
    weights = numbers.parent / "w.pth"
    torch.save(create_encoder("resnet10_32", 3).state_dict(), weights)
    keep = (f"encoder.weights={weights}", "encoder.classifier=keep")
    for told in ("number", "text"):
        build_model(experiment(numbers, *keep, f"data.class_order={told}"), ["0", "2", "10"])
    with pytest.raises(UserError, match=r"names of the classes are numbers.*data\.class_order"):
        build_model(experiment(numbers, *keep), ["0", "2", "10"])
    build_model(experiment(numbers, *keep), ["a", "b", "c"])
    build_model(experiment(numbers, keep[0], "encoder.classifier=new"), ["0", "2", "10"])


def test_images_of_both_splits_are_told_when_a_training_starts(numbers: Path, capfd) -> None:
    tell_of_data(*(one.listing for one in build_data(experiment(numbers))))
    said = capfd.readouterr().err
    assert "data.class_order" in said and "training split too" not in said
    for name in ("0000.png", "0003.png"):  # one of them over an image of that name
        shutil.copy(numbers / "train" / "0" / name, numbers / "val" / "0" / name)
    tell_of_data(*(one.listing for one in build_data(experiment(numbers))))
    assert "2 images of the validation split are in the training split too" in capfd.readouterr().err


def test_one_class_is_nothing_to_learn(numbers: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(numbers / split / "2")
        shutil.rmtree(numbers / split / "10")
    with pytest.raises(UserError, match=r"split train of data\.root=.* one class only \('0'\).*label_column"):
        build_data(experiment(numbers))


@pytest.mark.parametrize("kind", ["balanced", "sqrt"])
@pytest.mark.parametrize("sampler, power", [("shuffle", 1.0), ("sqrt", 0.5), ("balanced", 0.0)])
def test_class_weights_are_1_on_average_over_what_is_drawn(kind: str, sampler: str, power: float) -> None:
    counts = np.array([1000, 30, 1])
    weights, drawn = class_weights(counts, kind, sampler).numpy(), counts**power
    assert (weights * drawn).sum() / drawn.sum() == pytest.approx(1)
    rate = {"balanced": 1.0, "sqrt": 0.5}[kind]
    assert np.allclose(weights / weights[0], (counts[0] / counts) ** rate)
    if sampler == "shuffle":
        plain = counts**-rate
        exact = torch.from_numpy(plain * (counts.sum() / (plain * counts).sum())).float()
        assert torch.equal(class_weights(counts, kind), exact)


@pytest.mark.parametrize("given", ["encoder.freeze=2", "encoder.head_only=true"])
def test_random_layers_are_not_frozen(numbers: Path, given: str) -> None:
    with pytest.raises(
        UserError, match=rf"encoder\.weights is empty, but {given} would freeze random layers"
    ):
        build_model(experiment(numbers, given), ["0", "2", "10"])
    build_model(experiment(numbers, given), ["0", "2", "10"], load_weights=False)  # a checkpoint has them
