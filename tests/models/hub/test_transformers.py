"""Folders that transformers writes, against what that library computes from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.models.hub.transformers_networks import of_transformers
from automix_transfer.models.weights import load_encoder
from automix_transfer.models.weights_file import read_weights

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
LABELS = {"id2label": {0: "ant", 1: "bee", 2: "cat"}, "label2id": {"ant": 0, "bee": 1, "cat": 2}}
BASIC = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
#: timm's name -> (the network's class and settings, its processor's class and settings)
NETWORKS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "vit_tiny_patch16_224": ("ViTForImageClassification", {**TINY, **LABELS}, "ViTImageProcessor", {}),
    "vit_small_patch8_224": (
        "ViTModel",
        {**SMALL, "intermediate_size": 1536, "patch_size": 8, "image_size": 96},
        "ViTImageProcessor",
        {},
    ),
    "deit_tiny_distilled_patch16_224": (
        "DeiTForImageClassificationWithTeacher",
        {**TINY, **LABELS},
        "DeiTImageProcessor",
        {"image_mean": [0.485, 0.456, 0.406]},
    ),
    "vit_small_patch14_dinov2": (
        "Dinov2Model",
        {**SMALL, "patch_size": 14, "image_size": 518},
        "BitImageProcessor",
        {"size": {"shortest_edge": 256}},
    ),
    "resnet18": (
        "ResNetForImageClassification",
        {**BASIC, **LABELS},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 224}},
    ),
    "resnet50": ("ResNetModel", {}, "ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "convnext_tiny": ("ConvNextForImageClassification", LABELS, "ConvNextImageProcessor", {}),
    "swin_tiny_patch4_window7_224": ("SwinForImageClassification", LABELS, "ViTImageProcessor", {}),
}
Saved = tuple[Path, Any]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Saved]:
    """A folder of the network called by timm's name, with random weights, and the network."""

    def save(name: str) -> Saved:
        kind, settings, processor, images = NETWORKS[name]
        made = getattr(transformers, kind)
        torch.manual_seed(0)
        network = made(made.config_class(**settings)).eval()
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if value.is_floating_point():
                    value += (
                        torch.rand_like(value) if "running_var" in key else torch.randn_like(value)
                    ) / 20
        network.save_pretrained(tmp_path)
        getattr(transformers, processor)(**images).save_pretrained(tmp_path)
        return tmp_path, network

    return save


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_computes_what_it_does_there(name: str, saved: Callable[[str], Saved]) -> None:
    folder, network = saved(name)
    encoder, info = load_encoder(folder)
    headed = hasattr(network, "num_labels") and "Classification" in type(network).__name__
    assert (info.name, info.num_classes) == (name, 3 if headed else 0)
    images = torch.randn(2, 3, info.image_size, info.image_size)
    with torch.no_grad():
        theirs, ours = network(images), encoder(images) if headed else encoder.forward_features(images)
    expected = theirs.logits if headed else theirs.last_hidden_state
    assert expected.std() > 0.01
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_images_are_fed_as_there(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    folder, _ = saved("deit_tiny_distilled_patch16_224")
    info = read_weights(folder).info
    assert info is not None and info.class_names == ("ant", "bee", "cat")
    assert (info.mean, info.std, info.image_size) == ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5), 224)
    assert (info.test_crop, info.test_crop_ratio, info.interpolation) == ("center", 0.875, "bicubic")
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text())
    for change, crop, ratio in (
        ({"do_center_crop": False}, "squash", 1.0),
        ({"size": 256, "crop_size": 224}, "center", 0.875),  # as older versions wrote it
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.9}, "center", 0.9),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.9}, "squash", 1.0),
        ({"do_normalize": False}, "center", 0.875),
    ):
        file.write_text(json.dumps({**content, **change}))
        info = read_weights(folder).info
        assert info is not None and (info.test_crop, info.test_crop_ratio) == (crop, ratio)
    assert (info.mean, info.std) == ((0, 0, 0), (1, 1, 1))


def test_older_folders_hold_a_pickle(saved: Callable[[str], Saved]) -> None:
    folder, network = saved("resnet18")
    before = read_weights(folder)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    after = read_weights(folder)
    assert after.info == before.info and after.state_dict.keys() == before.state_dict.keys()
    assert all(torch.equal(value, before.state_dict[key]) for key, value in after.state_dict.items())


ODD = [None, True, -1, 1e400, "x", "12", [], [[]], [1, "a", None, {}], {}, {"height": []}, {"0": 3}]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_tiny"])
def test_any_value_of_any_field_is_read_or_refused(name: str, saved: Callable[[str], Saved]) -> None:
    folder, _ = saved(name)
    state = {f"x.{part}.attention.attention.{part}.weight": torch.ones(()) for part in ("query", "key")}
    config = json.loads((folder / "config.json").read_text())
    file = folder / "preprocessor_config.json"
    images = json.loads(file.read_text())
    for value in ODD:
        for key in config.keys() - {"model_type"}:
            with suppress(UserError):
                of_transformers(folder, {**config, key: value}, state)
        for key in images:
            file.write_text(json.dumps({**images, key: value}))
            with suppress(UserError):
                of_transformers(folder, config, state)
        (folder / "config.json").write_text(json.dumps({**config, "model_type": value}))
        with pytest.raises(UserError, match="no field 'architecture'"):
            read_weights(folder)


def test_what_timm_does_not_have_is_refused(saved: Callable[[str], Saved]) -> None:
    folder, _ = saved("vit_tiny_patch16_224")
    config, images = folder / "config.json", folder / "preprocessor_config.json"
    for file, change, said in (
        (config, {"hidden_act": "quick_gelu"}, "'hidden_act' is quick_gelu; only gelu"),
        (config, {"hidden_size": 200}, "size without a name"),
        (config, {"num_hidden_layers": "12"}, "size without a name"),
        (config, {"model_type": "clip"}, r"vit, deit, dinov2"),
        (config, {"patch_size": 32}, "size without a name|patch_embed"),
        (images, {"image_mean": 0.5}, "'image_mean' is 0.5"),
        (images, {"image_std": [0, 0, 0]}, "'image_std'"),
        (images, {"rescale_factor": 1}, "'rescale_factor' is 1"),
    ):
        before = file.read_text()
        file.write_text(json.dumps({**json.loads(before), **change}))
        with pytest.raises(UserError, match=said):
            load_encoder(folder)
        file.write_text(before)
    with pytest.raises(UserError, match="leave the choice out"):
        read_weights(folder, "k")
    images.unlink()
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json"):
        load_encoder(folder)
