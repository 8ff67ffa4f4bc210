"""timm is told what is true of our encoders, and builds them by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from automix_transfer.data.settings import DataConfig
from automix_transfer.data.transforms import eval_transform
from automix_transfer.models import EncoderInfo, load_encoder
from automix_transfer.models.timm_names import describe
from tests.models.files import automix_checkpoint, random_encoder

DATA = {
    "image_size": 32,
    "test_crop_ratio": 0.9,
    "interpolation": "bicubic",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
}


@pytest.mark.parametrize(
    "change",
    [{}, {"test_crop_ratio": 0.875}, {"test_crop_ratio": 1.0}, {"test_crop": "squash"}, {"test_size": 40}],
)
def test_timms_own_transform_gives_the_pixels_of_ours(change: dict[str, object]) -> None:
    data = {**DATA, **change}
    info = EncoderInfo.from_dict({"name": "resnet18", "num_classes": 3, **data})
    with torch.device("meta"):
        encoder = info.build()
    describe(encoder, info)
    config = resolve_model_data_config(encoder, use_test_size=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    ours = eval_transform(DataConfig(root="", **data))(image)
    torch.testing.assert_close(create_transform(**config)(image), ours, atol=1e-5, rtol=0)


def test_a_loaded_encoder_claims_nobody_elses_weights(tmp_path: Path) -> None:
    data = {"test_crop_ratio": 0.9, "test_crop": "center", "interpolation": "bicubic", "test_size": 48}
    path, _ = automix_checkpoint(tmp_path / "last.pt", "resnet18", image_size=32, config={"data": data})
    encoder, info = load_encoder(path)
    found = encoder.pretrained_cfg
    assert (info.test_crop_ratio, info.interpolation, info.test_size) == (0.9, "bicubic", 48)
    assert (found["input_size"], found["test_input_size"], found["num_classes"]) == (
        (3, 32, 32),
        (3, 48, 48),
        5,
    )
    assert found["label_names"] == info.class_names and found["architecture"] == "resnet18"
    assert (found["mean"], found["test_crop_pct"], found["interpolation"]) == (info.mean, 0.9, "bicubic")
    assert not {"url", "hf_hub_id", "tag", "file", "origin_url", "license"} & found.keys()
    assert resolve_model_data_config(encoder)["input_size"] == (3, 32, 32)


def test_a_plain_file_is_described_by_timms_name_for_it(tmp_path: Path) -> None:
    torch.save(random_encoder("mobilenetv3_small_050", 4).state_dict(), tmp_path / "x.pth")
    encoder, _ = load_encoder(tmp_path / "x.pth", "mobilenetv3_small_050")
    timms = timm.get_pretrained_cfg("mobilenetv3_small_050")
    found = resolve_model_data_config(encoder)
    assert (found["mean"], found["crop_pct"], found["interpolation"]) == (
        timms.mean,
        timms.crop_pct,
        timms.interpolation,
    )
    assert encoder.pretrained_cfg["num_classes"] == 4


@pytest.mark.parametrize(
    ("name", "stem", "classifier"),
    [("cifar_resnet8", "cifar", "linear"), ("wrn_10_1", "cifar", "fc"), ("resnet18", "cifar", "fc")],
)
def test_timm_builds_what_is_registered(name: str, stem: str, classifier: str) -> None:
    ours = EncoderInfo(name, 3, stem, 32)
    built = timm.create_model("automix_transfer.models", encoder=name, stem=stem, num_classes=3)
    network = ours.build()
    assert built.state_dict().keys() == network.state_dict().keys()
    describe(network, ours)
    found = network.pretrained_cfg
    assert (found["classifier"], found["first_conv"]) == (classifier, "conv1")
    assert found["architecture"] == "automix_transfer.models"
