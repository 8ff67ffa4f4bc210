"""Recipes asked for what they cannot do: one sentence with the remedy, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.mixing import METHODS
from automix_transfer.recipes.find import RECIPES
from automix_transfer.training.loop import train
from automix_transfer.training.settings import load_experiment
from automix_transfer.training.setup.build_model import build_model
from automix_transfer.training.setup.build_run import pass_size
from tests.data import trees
from tests.mixing.tiny_methods import batch, tiny_method

CONFIGS = RECIPES / "pretrain"
SMALL = [
    "encoder.name=resnet10_32",
    "data.image_size=32",
    "data.workers=0",
    "train.device=cpu",
    "train.batch_size=4",
]
SQUEEZENET = "encoder.name=torchvision/squeezenet1_1"


def recipe(name: str, root: Path, *overrides: str):
    return load_experiment(
        [CONFIGS / name], [f"data.root={root}", f"output={root / 'run'}", *SMALL, *overrides]
    )


def test_data_of_another_number_of_classes(tmp_path: Path) -> None:
    root = trees.folders(tmp_path, classes=3, images=8, size=(32, 32))
    with pytest.raises(UserError, match="data.root=.*data.classes=3"):
        train(recipe("imagenet_r50_mixup_100e.yaml", root), dry_run=True)
    # the remedy works
    metrics = train(recipe("imagenet_r50_mixup_100e.yaml", root, "data.classes=3"), dry_run=True)
    assert "top1_last" in metrics
    # some of the recipe's own classes
    train(recipe("imagenet_r50_mixup_100e.yaml", root, "data.limit_classes=2"), dry_run=True)


@pytest.mark.parametrize(
    ("batch_size", "processes", "accumulate", "says"),
    [
        pytest.param(
            4,
            8,
            1,
            "8 processes.*multiple of 8",
            id="4-8-1-less than one image for each of 8 processes.*"
            "fewer processes, or raise it to a multiple of 8",
        ),
        pytest.param(
            8,
            4,
            3,
            "train.accumulate=3.*multiple of 12",
            id="8-4-3-less than one image for each of 4 processes times train.accumulate=3.*multiple of 12",
        ),
        pytest.param(
            100,
            8,
            1,
            "8 processes.*multiple of 8",
            id="100-8-1-does not divide into 8 processes.*multiple of 8",
        ),
    ],
)
def test_a_batch_that_processes_cannot_share(
    batch_size: int, processes: int, accumulate: int, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        pass_size(batch_size, processes, accumulate)
    assert pass_size(256, 8, 2) == 16


def test_an_encoder_whose_taps_are_unknown(tmp_path: Path) -> None:
    def build(*overrides: str):
        robust = ["method.preset=robust", *overrides]  # SqueezeNet has no linear classifier to make two of
        return build_model(
            recipe("imagenet_r50_automix_300e.yaml", tmp_path, SQUEEZENET, *robust), ["a", "b"]
        )

    with pytest.raises(UserError, match="SqueezeNet.*feature_layer=features.10") as error:
        build()
    assert "\n" not in str(error.value)
    method, _ = build("method.feature_layer=features.9")  # the remedy works
    assert method.layer == "features.9"
    with pytest.raises(UserError, match="method.layers="):
        build_model(recipe("imagenet_r50_manifoldmix_100e.yaml", tmp_path, SQUEEZENET), ["a", "b"])
    with pytest.raises(UserError, match="'layer9'"):
        build("encoder.name=resnet10_32", "method.feature_layer=layer9")


@pytest.mark.parametrize(
    ("encoder", "sizes", "named"),
    [
        ("levit_128s", ["data.image_size=200", "data.test_size=224"], "data.image_size=200"),
        ("swin_tiny_patch4_window7_224", ["data.image_size=64", "data.test_size=48"], "data.test_size=48"),
    ],
)
def test_image_sizes_that_the_encoder_does_not_take(
    encoder: str, sizes: list[str], named: str, tmp_path: Path
) -> None:
    """Before the first step, and not in the evaluation behind the first epoch."""
    experiment = recipe("imagenet_r50_mixup_100e.yaml", tmp_path, f"encoder.name={encoder}", *sizes)
    with pytest.raises(UserError, match=f"'{encoder}'.*{named}"):
        build_model(experiment, ["a", "b"])


def test_the_divergence_of_augmix_takes_no_binary_cross_entropy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method.loss=.*augmix"):
        build_model(
            recipe("imagenet_r50_mixup_100e.yaml", tmp_path, "method={name: augmix, loss: bce, alpha: 1.0}"),
            ["a", "b"],
        )


@pytest.mark.parametrize("name", [name for name in METHODS if name != "augmix"])
def test_every_other_method_takes_every_loss(name: str) -> None:
    plain = tiny_method(name, loss="ce", smoothing=0.0)
    images, labels = batch(plain, count=4)
    usual = plain(images, labels, torch.Generator().manual_seed(0)).loss.item()
    for loss in (
        {"loss": "bce", "smoothing": 0.0},
        {"loss": "ce", "smoothing": 0.2},
        {"loss": "bce", "bce_threshold": -1.0},
    ):
        method = tiny_method(name, **loss)
        method.load_state_dict(plain.state_dict())
        found = method(images, labels, torch.Generator().manual_seed(0)).loss
        found.backward()
        assert found.isfinite() and abs(found.item() - usual) > 1e-4, loss


@pytest.mark.parametrize(
    ("option", "says"),
    [
        pytest.param(
            "loss=mse", "method.loss='mse'", id="loss=mse-method.loss='mse' is unknown; choose one of ce, bce"
        ),
        ("smoothing=1.0", "method.smoothing is 1.0"),
        ("bce_threshold=1.0", "method.bce_threshold"),
        ("smoothing=nan", "method.smoothing is nan"),
        ("smoothing=[1]", "smoothing"),
    ],
)
@pytest.mark.parametrize("name", ["vanilla", "mixup", "cutmix", "automix", "comixup", "augmix", "fmix"])
def test_losses_out_of_range_are_named(name: str, option: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        build_model(
            load_experiment(
                overrides=[f"data.root={tmp_path}", *SMALL, f"method.name={name}", f"method.{option}"]
            ),
            ["a", "b"],
        )
