"""Folders as timm's on the Hugging Face hub, ours and those of others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from automix_transfer.errors import UserError
from automix_transfer.models import load_encoder, read_weights
from automix_transfer.models.hub.hub_folder import MOST_BYTES
from automix_transfer.models.weights import load_file
from automix_transfer.models.weights_file import sha256_of_weights
from tests.models.files import assert_same, automix_checkpoint, random_encoder

NAMES = ["a", "b", "c"]
NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return random_encoder(NAME, 3)


def change(folder: Path, **fields: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    nested = content["pretrained_cfg"]
    for key, value in fields.items():
        (content if key in ("architecture", "num_classes", "label_names", "model_args") else nested)[key] = (
            value
        )
    (folder / "config.json").write_text(json.dumps({**content, "pretrained_cfg": nested}))


@pytest.fixture
def folder(tmp_path: Path, network: torch.nn.Module) -> Path:
    save_for_hf(network, tmp_path / "hub", {"label_names": NAMES}, safe_serialization=True)
    change(tmp_path / "hub", mean=[0.5, 0.4, 0.3], crop_pct=0.9)
    return tmp_path / "hub"


def check(folder: Path, network: torch.nn.Module) -> None:
    encoder, info = load_encoder(folder)
    assert_same(encoder, network)
    assert (info.name, info.num_classes, info.class_names) == (NAME, 3, ("a", "b", "c"))
    assert (info.mean, info.test_crop_ratio, info.interpolation) == ((0.5, 0.4, 0.3), 0.9, "bicubic")
    assert encoder.pretrained_cfg["mean"] == (0.5, 0.4, 0.3)


def test_what_timm_writes(folder: Path, network: torch.nn.Module) -> None:
    check(folder, network)
    opened = timm.create_model(NAME, num_classes=3)
    report = load_file(opened, folder, NAME, classifier="keep", classes=NAMES)
    assert_same(opened, network)
    assert report.classes == ("a", "b", "c")
    with pytest.raises(UserError, match="class 2 .*'c'"):
        load_file(opened, folder, NAME, classifier="keep", classes=["a", "b", "d"])
    assert sha256_of_weights(folder) == sha256_of_weights(folder / "model.safetensors")


def test_the_old_layout_and_a_pickle(folder: Path, network: torch.nn.Module) -> None:
    content = json.loads((folder / "config.json").read_text())
    flat = {**content.pop("pretrained_cfg"), "architecture": NAME, "num_classes": 3}
    (folder / "config.json").write_text(json.dumps({**flat, "labels": {"0": "a", "1": "b", "2": "c"}}))
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    check(folder, network)


def test_what_transformers_writes_of_timms_networks(folder: Path, network: torch.nn.Module) -> None:
    content = json.loads((folder / "config.json").read_text())
    content.pop("model_args", None)
    wrapped = {"architectures": ["TimmWrapperForImageClassification"], "model_type": "timm_wrapper"}
    (folder / "config.json").write_text(json.dumps({**content, **wrapped}))
    state = {f"timm_model.{key}": value for key, value in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    check(folder, network)


@pytest.mark.skipif(not hasattr(timm.create_model("resnet10t"), "_model_args"), reason="timm is too old")
def test_timms_own_writer_takes_a_loaded_encoder(tmp_path: Path) -> None:
    path, encoders = automix_checkpoint(tmp_path / "last.pt", "resnet10_32", stem="cifar", image_size=32)
    save_for_hf(load_encoder(path)[0], tmp_path / "hub", safe_serialization=True)
    encoder, info = load_encoder(tmp_path / "hub")
    assert_same(encoder, encoders["k"])
    assert (info.name, info.stem, info.image_size) == ("resnet10_32", "cifar", 32)
    assert info.class_names == load_encoder(path)[1].class_names


def test_the_size_of_a_network_of_fixed_size(tmp_path: Path) -> None:
    overlay = {"input_size": (3, 32, 32)}  # which timm writes by itself in recent versions
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=2, pretrained_cfg_overlay=overlay
    )
    save_for_hf(network, tmp_path, safe_serialization=True)
    encoder, info = load_encoder(tmp_path)
    assert info.image_size == 32 and info.class_names == ()
    assert_same(encoder, network)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architecture": None}, "'architecture'"),
        ({"architecture": "resnet_of_nobody"}, "resnet_of_nobody"),
        ({"architecture": "resnet18"}, "does not fit encoder 'resnet18'"),
        ({"architecture": "automix_transfer.models"}, r"'model_args\.stem'"),
        ({"num_classes": -1}, "'num_classes'"),
        ({"num_classes": 4}, "only the classifier differs"),
        ({"mean": [0.5, 0.5]}, "'mean'"),
        ({"std": [0.5, 0, 0.5]}, "'std'"),
        ({"input_size": [1, 28, 28]}, "'input_size'"),
        ({"input_size": "224"}, "'input_size'"),
        ({"crop_pct": 87.5}, "'crop_pct'"),
        ({"model_args": {"act_layer": "gelu"}}, "'model_args' .*act_layer"),
        ({"model_args": {"global_pool": "max"}}, r"'model_args\.global_pool'"),
        ({"model_args": {"global_pool": "of nobody"}}, r"'model_args\.global_pool'"),
        ({"model_args": {"global_pool": [1]}}, r"'model_args\.global_pool'"),
        ({"architecture": "hf-hub:somebody/network"}, "hf-hub:somebody/network"),
        ({"mean": [10**400, 0.5, 0.5]}, "'mean'"),
        ({"std": 10**400}, "'std'"),
        ({"model_args": 3}, "'model_args'"),
    ],
)
def test_fields_that_make_no_sense(folder: Path, fields: dict[str, Any], words: str) -> None:
    change(folder, **fields)
    with pytest.raises(UserError, match=words) as refused:
        load_encoder(folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_folders_that_are_none_of_timms(folder: Path, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words):
            read_weights(folder)

    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused("git lfs pull")
    (folder / "model.safetensors").unlink()
    refused("no file of weights")
    (folder / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))
    refused("ViTForImageClassification")
    (folder / "config.json").write_text("[]")
    refused("'architecture'")
    (folder / "config.json").write_text("{")
    refused("not valid JSON")
    (folder / "config.json").unlink()
    refused("without config.json")
    (folder / "last.pt").write_bytes(b"")
    refused(f"give {folder / 'last.pt'}")
    (folder / "x.onnx").write_bytes(b"graph")
    with pytest.raises(UserError, match="x.onnx is a graph of ONNX"):
        read_weights(folder / "x.onnx")


def test_a_config_that_is_too_large(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "more": " " * MOST_BYTES}))
    with pytest.raises(UserError, match="config.json"):
        read_weights(folder)


def test_of_several_files_the_digest_is_that_of_the_one_that_is_read(folder: Path) -> None:
    before = sha256_of_weights(folder)
    os.mkfifo(folder / "other.bin")  # reading it would not end
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"conv_stem.weight": "../x"}}')
    assert sha256_of_weights(folder) == before
