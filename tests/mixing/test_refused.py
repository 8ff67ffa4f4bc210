"""Bad input is refused when the method is built for a run, in one sentence that names what would do."""

from __future__ import annotations

from typing import Any

import pytest

from automix_transfer.errors import UserError
from automix_transfer.mixing import METHODS, build_method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.training.settings import load_experiment
from automix_transfer.training.setup.build_model import build_model
from tests.mixing.tiny_methods import CLASSES, tiny_encoder, tiny_options, tiny_resnet, tiny_vit

INFO = EncoderInfo("resnet10_32", CLASSES, image_size=32)
WITH_ALPHA = [name for name in METHODS if name not in ("vanilla", "mixup_cutmix", "transmix")]


@pytest.mark.parametrize("name", WITH_ALPHA)
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_positive(name: str, alpha: float) -> None:
    with pytest.raises(UserError, match="method.alpha"):
        build_method(name, tiny_encoder(name), {**tiny_options(name), "alpha": alpha}, INFO)


@pytest.mark.parametrize("name", ["mixup_cutmix", "transmix"])
def test_one_of_both_alphas_must_be_positive(name: str) -> None:
    with pytest.raises(UserError, match="method.mixup_alpha and method.cutmix_alpha"):
        build_method(name, tiny_encoder(name), {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, INFO)
    with pytest.raises(UserError, match="method.cutmix_alpha is"):
        build_method(name, tiny_encoder(name), {"cutmix_alpha": -1.0}, INFO)


@pytest.mark.parametrize(
    ("name", "values", "encoder", "words"),
    [
        pytest.param(
            "transmix",
            {},
            tiny_resnet,
            "ResNet.*deit_small.*mixup_cutmix",
            id="transmix-values0-tiny_resnet-attention of a class token, which ResNet does not have; "
            ".*deit_small.*mixup_cutmix",
        ),
        pytest.param(
            "transmix",
            {},
            lambda: tiny_vit(class_token=False, global_pool="avg"),
            "deit_small.*mixup_cutmix",
            id="transmix-values1-<lambda>-class token.*deit_small.*mixup_cutmix",
        ),
        ("alignmix", {}, tiny_vit, "has|classifies"),
        pytest.param(
            "manifoldmix",
            {},
            lambda: tiny_resnet().fc,
            "method.layers=.0.",
            id="manifoldmix-values3-<lambda>-cannot be mixed.*method.layers=.0.",
        ),
        ("manifoldmix", {"layers": [7]}, tiny_resnet, "layers from 0.*to 4"),
        ("manifoldmix", {"layers": []}, tiny_resnet, "layers from 0"),
        pytest.param(
            "automix",
            {"feature_layer": "fc"},
            tiny_resnet,
            "feature map",
            id="automix-values6-tiny_resnet-not a feature map.*choose an earlier layer",
        ),
        pytest.param(
            "attentivemix",
            {},
            tiny_resnet,
            "teacher_weights.*saliencymix or puzzlemix",
            id="attentivemix-values7-tiny_resnet-"
            "teacher_weights is empty.*give the file.*saliencymix or puzzlemix",
        ),
        ("attentivemix", {"teacher_weights": "missing.pth"}, tiny_resnet, "missing.pth does not exist"),
        (
            "attentivemix",
            {**tiny_options("attentivemix"), "cells": 65},
            tiny_resnet,
            "8x8 cells.*teacher_size",
        ),
        (
            "attentivemix",
            {**tiny_options("attentivemix"), "teacher": ""},
            tiny_resnet,
            "does not say which encoder",
        ),
        pytest.param(
            "augmix",
            {"loss": "bce"},
            tiny_resnet,
            "augmix.*loss=ce.*mixup_cutmix",
            id="augmix-values11-tiny_resnet-bce does not go with augmix.*loss=ce.*mixup_cutmix",
        ),
        ("augmix", {"severity": 11.0}, tiny_resnet, "severity is 11"),
        ("augmix", {"width": 0}, tiny_resnet, "width is 0"),
        pytest.param(
            "puzzlemix",
            {"blocks": [2, 3]},
            tiny_resnet,
            "32x32.*2, 4, 8, 16",
            id="puzzlemix-values14-tiny_resnet-3 blocks a side.*32x32.*2, 4, 8, 16",
        ),
        ("puzzlemix", {"blocks": []}, tiny_resnet, "positive numbers of blocks"),
        ("puzzlemix", {"blocks": [0]}, tiny_resnet, "positive numbers of blocks"),
        pytest.param(
            "puzzlemix",
            {"gamma": 1.5},
            tiny_resnet,
            "gamma is 1.5",
            id="puzzlemix-values17-tiny_resnet-gamma is 1.5.*between 0 and 1",
        ),
        ("puzzlemix", {"levels": 1}, tiny_resnet, "levels is 1"),
        pytest.param(
            "comixup",
            {"blocks": 5},
            tiny_resnet,
            "32x32.*2, 4, 8",
            id="comixup-values19-tiny_resnet-5 blocks a side.*32x32.*2, 4, 8",
        ),
        ("comixup", {"partition": 1}, tiny_resnet, "partition is 1"),
        ("comixup", {"eta": -0.1}, tiny_resnet, "eta is -0.1"),
        ("saliencymix", {"detector": "opencv"}, tiny_resnet, "detector='opencv'.*uint8, as_published"),
        ("fmix", {"spectrum": "published"}, tiny_resnet, "spectrum='published'.*paper, released"),
        ("fmix", {"probability": 1.2}, tiny_resnet, "probability is 1.2"),
        ("fmix", {"loss": "mse"}, tiny_resnet, "loss='mse'.*ce, bce"),
        pytest.param(
            "resizemix",
            {"scope": [0.8, 0.1]},
            tiny_resnet,
            "scope=",
            id="resizemix-values26-tiny_resnet-scope=.*smallest <= largest",
        ),
        ("resizemix", {"scale": "gamma"}, tiny_resnet, "scale='gamma'.*uniform, beta"),
        ("mixup_cutmix", {"partner": "none"}, tiny_resnet, "partner='none'.*flip, random"),
        ("supermix", {"images": 1}, tiny_resnet, "images is 1"),
    ],
)
def test_what_does_not_fit_is_named(name: str, values: dict[str, Any], encoder: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build_method(name, encoder(), values, INFO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.name=puzzlemix", "data.image_size=225"], "2 blocks a side.*225x225"),
        pytest.param(
            ["method.name=comixup", "data.image_size=30"],
            "30x30.*2, 3, 5",
            id="overrides1-4 blocks a side.*30x30.*2, 3, 5",
        ),
        pytest.param(
            ["method.name=supermix"],
            "supermix .*data.mixed=FOLDER",
            id="overrides2-trains on images that were mixed before; "
            ".*supermix.py.*data.mixed=FOLDER.*puzzlemix",
        ),
        pytest.param(
            ["method.name=mixup", "data.mixed=somewhere"],
            "data.mixed=somewhere.*name=supermix",
            id="overrides3-mixup does not take the soft labels of data.mixed=somewhere; .*name=supermix",
        ),
        (["method.name=transmix"], "class token"),
        pytest.param(
            ["method.name=automix", "method.k_buffers=own"],
            "k_buffers=own .*method.k_mode=train",
            id="overrides5-k_buffers=own .* method.k_mode=eval .*; set method.k_mode=train",
        ),
        pytest.param(
            [
                "method.name=automix",
                "method.preset=openmixup",
                "method.skip_generator=0.2",
                "train.sync_batchnorm=true",
            ],
            "method.skip_generator=0.2",
            id="overrides6-method.skip_generator=0.2 .*; set method.skip_generator=0",
        ),
        pytest.param(
            ["method.name=comixup", "method.probability=0.5", "train.sync_batchnorm=true"],
            "method.probability=0.5",
            id="overrides7-method.probability=0.5 .*; set method.probability=1",
        ),
        pytest.param(
            ["method.name=manifoldmix", "train.compile=true"],
            "compile=true.*name=manifoldmix",
            id="overrides8-compile=true does not go with method.name=manifoldmix.*puzzlemix",
        ),
    ],
)
def test_a_run_is_refused_before_it_begins(overrides: list[str], words: str) -> None:
    experiment = load_experiment(overrides=["data.root=nowhere", "encoder.name=resnet10_32", *overrides])
    with pytest.raises(UserError, match=words):
        build_model(experiment, ["a", "b"])
