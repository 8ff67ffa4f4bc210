"""Exports to Detectron2, proven by its own builders and checkpointer, and every silent mistake of FACTS as an
error."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from automix_transfer.detection.weights import exporter
from automix_transfer.detection.weights.exporter import detectron2_name, detectron2_state, overlay
from automix_transfer.errors import UserError
from automix_transfer.export import run as run_module
from automix_transfer.export.source import RESNETS, Source
from automix_transfer.models import EncoderInfo, create_encoder
from automix_transfer.models.encoders import plain_info
from automix_transfer.models.weights import LoadReport
from automix_transfer.recipes.find import RECIPES
from tests.models.files import automix_checkpoint, random_encoder, write_checkpoint

export = partial(run_module.export, kinds=exporter.EXPORTERS)
CONFIGS = RECIPES / "detection"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    return automix_checkpoint(tmp_path_factory.mktemp("narrow") / "last.pt", "resnet10_32")


@pytest.fixture(scope="module")
def installed() -> None:
    """Detectron2, importable."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer1.0.bn1.bias", "res2.0.conv1.norm.bias"),
        ("layer4.2.bn3.running_mean", "res5.2.conv3.norm.running_mean"),
        ("layer3.22.conv2.weight", "res4.22.conv2.weight"),
        ("layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        ("layer2.0.downsample.1.weight", "res3.0.shortcut.norm.weight"),
    ],
)
def test_key_table(key: str, name: str) -> None:
    assert detectron2_name(key) == name


def test_classifier_and_counters_are_left_out() -> None:
    state = detectron2_state(random_encoder("resnet10_32", 3).state_dict())
    assert len(state) == 80 - 2 - 13 and not any("fc" in key or "num_batches" in key for key in state)
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", (18, 1, 64, 64)),
        ("resnet34", (34, 1, 64, 64)),
        ("resnet50", (50, 1, 64, 256)),
        ("resnet101", (101, 1, 64, 256)),
        ("resnet152", (152, 1, 64, 256)),
        ("resnext50_32x4d", (50, 32, 4, 256)),
        ("resnext101_32x4d", (101, 32, 4, 256)),
        ("resnext101_32x8d", (101, 32, 8, 256)),
        ("resnext101_64x4d", (101, 64, 4, 256)),
        ("wide_resnet50_2", (50, 1, 128, 256)),
        ("wide_resnet101_2", (101, 1, 128, 256)),
        ("resnet10_32", (10, 1, 32, 32)),
    ],
)
def test_overlay(name: str, expected: tuple[int, ...]) -> None:
    with torch.device("meta"):
        state = create_encoder(name, 10).state_dict()
    info = EncoderInfo(name, 10, mean=(0.5, 0.25, 0.0), std=(0.1, 0.2, 1.0))
    settings = overlay(info, {detectron2_name(key): value for key, value in state.items()})
    resnets = settings["MODEL"]["RESNETS"]
    assert (
        tuple(resnets[key] for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS"))
        == expected
    )
    assert (resnets["STRIDE_IN_1X1"], resnets["STEM_OUT_CHANNELS"], settings["INPUT"]["FORMAT"]) == (
        False,
        64,
        "RGB",
    )
    assert settings["MODEL"]["PIXEL_MEAN"] == [127.5, 63.75, 0.0] and settings["MODEL"]["PIXEL_STD"] == [
        25.5,
        51.0,
        255.0,
    ]
    basic = name == "resnet10_32" or RESNETS[name][0] == "BasicBlock"
    assert ("BACKBONE" in settings["MODEL"]) == basic  # of basic blocks: the FPN builder is named


@pytest.mark.parametrize("name", ["resnet10_32", "resnet18", "resnet50"])
def test_export(installed, tmp_path: Path, name: str) -> None:
    path, encoders = automix_checkpoint(tmp_path / "last.pt", name)
    proof = export(path, "detectron2", tmp_path / "x.pkl", which="q")
    assert sorted(os.listdir(tmp_path)) == ["last.pt", "x.pkl", "x.proof.json", "x.yaml"]
    with (tmp_path / "x.pkl").open("rb") as file:
        content = pickle.load(file)
    assert content["__author__"] == "automix_transfer" and content["matching_heuristics"] is True
    assert (
        content["automix_transfer"]["which"] == "q" and content["automix_transfer"]["encoder"]["name"] == name
    )
    assert (content["model"]["stem.conv1.weight"] == encoders["q"].conv1.weight.detach().numpy()).all()
    assert proof.matched == proof.total == len(content["model"])
    assert {row.layer for row in proof.rows} == {
        "pixels",
        "stem",
        "res2",
        "res3",
        "res4",
        "res5",
        "res4 (C4)",
        "res5 (C4)",
    }
    # bit-equal on this machine's arithmetic
    assert max(row.difference for row in proof.rows if row.layer != "pixels") == 0
    assert "detectron2" in proof.versions
    settings = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert settings["MODEL"]["RESNETS"]["DEPTH"] == int(name.removesuffix("_32").removeprefix("resnet"))
    assert ("BasicRes5ROIHeadsExtraNorm" in (tmp_path / "x.yaml").read_text()) == (name != "resnet50")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet18", "voc_R18_FPN_24k"),
        ("resnet34", "voc_R34_FPN_24k"),
        ("resnet50", "voc_R50_FPN_24k"),
        ("resnet101", "voc_R101_C4_24k"),
        ("resnext50_32x4d", "voc_RX50_C4_24k"),
        ("resnext101_32x4d", "voc_RX101_FPN_24k"),
        ("wide_resnet50_2", "voc_WRN50_C4_24k"),
    ],
)
def test_from_encoder_to_detector(installed, tmp_path: Path, name: str, config: str) -> None:
    """Every network of the paper: exported with proof, and taken whole by the recipe that is for it, in
    Detectron2's own R-CNN."""
    from automix_transfer.detection.config import load_config
    from automix_transfer.detection.weights.weights_check import load_weights

    encoder = random_encoder(name, 3)
    info = EncoderInfo(name, 3, image_size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    proof = export(
        write_checkpoint(tmp_path / "last.pt", {"encoder": encoder}, info), "detectron2", tmp_path / "x.pkl"
    )
    assert proof.matched == proof.total and max(row.difference / row.largest for row in proof.rows) <= 1e-5
    cfg, _ = load_config(CONFIGS / f"{config}.yaml", ["MODEL.WEIGHTS", str(tmp_path / "x.pkl")], num_gpus=0)
    assert (
        list(cfg.MODEL.PIXEL_MEAN) == [127.5, 102.0, 76.5]
        and cfg.INPUT.FORMAT == "RGB"
        and not cfg.MODEL.RESNETS.STRIDE_IN_1X1
    )
    if "101" in name or "wide" in name:
        # the proof has gone through Detectron2's backbone already; the whole detector costs seconds more
        return
    from detectron2.modeling import build_model

    detector = build_model(cfg).eval()
    report = load_weights(detector, str(tmp_path / "x.pkl"))
    assert report.matched == report.total == proof.total
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        found, expected = detector.backbone(images), encoder.forward_features(images)
        if "_C4" in config:
            for block in list(detector.roi_heads.res5.children())[:-1]:  # the last is the extra norm
                found["res4"] = block(found["res4"])
            torch.testing.assert_close(
                found["res4"], expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
            )
        else:
            res5 = detector.backbone.bottom_up(images)["res5"]
            torch.testing.assert_close(res5, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("name", "config", "overrides", "message"),
    [
        (
            "resnet18",
            "voc_R50_C4_24k",
            [],
            "MODEL.RESNETS.DEPTH is 50, but the weights .*x.pkl were trained with 18",
        ),
        (
            "resnet18",
            "voc_R18_FPN_24k",
            ["MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtraNorm"],
            "bottlenecks.*FPN config, or .*BasicRes5ROIHeads",
        ),
        ("resnext50_32x4d", "voc_R50_C4_24k", [], "MODEL.RESNETS.NUM_GROUPS is 1, but .* 32"),
        ("resnet50", "voc_RX50_C4_24k", [], "MODEL.RESNETS.NUM_GROUPS is 32, but .* 1 "),
        ("resnet50", "voc_WRN50_C4_24k", [], "MODEL.RESNETS.WIDTH_PER_GROUP is 128, but .* 64"),
        (
            "resnet50",
            "voc_R50_C4_24k",
            ["MODEL.RESNETS.STRIDE_IN_1X1", "True"],
            "STRIDE_IN_1X1 is True, but .* False",
        ),
        ("resnet50", "voc_R50_C4_24k", ["INPUT.FORMAT", "BGR"], "INPUT.FORMAT is 'BGR', but .* 'RGB'"),
        ("resnet50", "voc_R101_FPN_24k", [], "MODEL.RESNETS.DEPTH is 101, but .* 50"),
    ],
)
def test_a_config_that_contradicts_the_weights_names_both_values(
    tmp_path: Path, installed, name, config, overrides, message
) -> None:
    from automix_transfer.detection.config import load_config

    with torch.device("meta"):
        state = {detectron2_name(key): value for key, value in create_encoder(name, 10).state_dict().items()}
    (tmp_path / "x.pkl").write_bytes(b"")  # contradictions are found before the weights are read
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(overlay(EncoderInfo(name, 10), state)))
    with pytest.raises(UserError, match=message):
        load_config(
            CONFIGS / f"{config}.yaml", ["MODEL.WEIGHTS", str(tmp_path / "x.pkl"), *overrides], num_gpus=0
        )


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_vit", ["res4"]),
        ("convnext_atto", ["res2", "res3", "res4", "res5"]),
        pytest.param(
            "swin_tiny_patch4_window7_224", ["res2", "res3", "res4", "res5"], marks=pytest.mark.slow
        ),
        pytest.param("deit_small_patch16_224", ["res4"], marks=pytest.mark.slow),
    ],
)
def test_other_networks_of_timm(installed, tmp_path: Path, name: str, layers: list[str]) -> None:
    """Into timm's backbone, with the same proof; the wrong config is told which recipe is right."""
    from automix_transfer.detection.config import load_config
    from automix_transfer.detection.weights.weights_check import load_weights
    from tests.detection.tiny import detector

    encoder = random_encoder(name, 3)
    torch.save(encoder.state_dict(), tmp_path / "source.pth")
    proof = export(tmp_path / "source.pth", "detectron2", tmp_path / "x.pkl", name)
    assert sorted(os.listdir(tmp_path)) == ["source.pth", "x.pkl", "x.proof.json", "x.yaml"]
    assert proof.matched == proof.total > 50
    assert {row.layer for row in proof.rows} == {"pixels", *layers}
    assert max(row.difference for row in proof.rows if row.layer != "pixels") == 0
    swin = name.startswith("swin")  # takes the size of its training only
    assert len({row.input for row in proof.rows}) == (1 if swin else 3 if "convnext" in name else 2)
    backbone = ["MODEL.BACKBONE.NAME", f"timm_fpn/{name}"]
    model, cfg = detector("embedded_R10_FPN.yaml", *backbone)
    report = load_weights(model, str(tmp_path / "x.pkl"), cfg.MODEL.BACKBONE.NAME)
    assert report.matched == report.total == proof.total
    held = encoder.state_dict()
    for key, value in model.backbone.bottom_up.encoder.state_dict().items():
        assert torch.equal(value, held[key]), key
    weights = ["MODEL.WEIGHTS", str(tmp_path / "x.pkl")]
    cfg, _ = load_config(CONFIGS / "embedded_R10_FPN.yaml", [*weights, *backbone], num_gpus=0)
    assert list(cfg.MODEL.PIXEL_MEAN) == [255 * value for value in plain_info(name, 3).mean]
    kind = "ConvNeXtT" if "convnext" in name else "SwinT" if swin else "DeiTS"
    for config in ("voc_R50_C4_24k", "voc_RX50_FPN_24k", "voc_ConvNeXtT_FPN_24k"):
        with pytest.raises(UserError, match=f"BACKBONE.NAME is .*x.pkl .*'{name}'.* voc_{kind}_FPN_24k"):
            load_config(CONFIGS / f"{config}.yaml", weights, num_gpus=0)


def test_encoders_that_make_no_detector(installed, narrow, tmp_path: Path) -> None:
    for name in ("beit_base_patch16_224", "vit_base_patch32_224"):
        with torch.device("meta"):
            encoder = create_encoder(name, 3)
        source = Source(
            encoder, EncoderInfo(name, 3), tmp_path / "x.pt", "0", None, None, LoadReport(0, 0, ())
        )
        with pytest.raises(UserError, match=f"x.pt: encoder '{name}'"):
            exporter.export_detectron2(source, tmp_path / "x.pkl")
    assert os.listdir(tmp_path) == []


def test_a_resnet_does_not_go_into_a_timm_backbone(installed, narrow, tmp_path: Path) -> None:
    from automix_transfer.detection.config import load_config

    export(narrow[0], "detectron2", tmp_path / "x.pkl")
    weights = ["MODEL.WEIGHTS", str(tmp_path / "x.pkl")]
    with pytest.raises(UserError, match="timm_fpn/deit_small_patch16_224, but .*x.pkl holds a ResNet"):
        load_config(CONFIGS / "voc_DeiTS_FPN_24k.yaml", weights, num_gpus=0)


def test_a_yaml_of_somebody_else_is_not_overwritten(
    tmp_path: Path, narrow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is computed, with or without Detectron2; an overlay of an earlier export is
    ours to replace."""
    monkeypatch.setattr(run_module, "open_source", lambda *_: pytest.fail("the source was opened"))
    (tmp_path / "x.yaml").write_text("MODEL: {META_ARCHITECTURE: mine}\n")
    with pytest.raises(UserError, match=r"x\.yaml .*--output.*x_detectron2\.pkl"):
        export(narrow[0], "detectron2", tmp_path / "x.pkl")
    assert (tmp_path / "x.yaml").read_text() == "MODEL: {META_ARCHITECTURE: mine}\n" and os.listdir(
        tmp_path
    ) == ["x.yaml"]
    source = Source(
        narrow[1]["k"], EncoderInfo("resnet10_32", 5), narrow[0], "0" * 64, "k", 7, LoadReport(0, 0, ())
    )
    (tmp_path / "x.yaml").write_text(exporter._overlay_text(source, "x.pkl", {"MODEL": {}}))
    # which comes after all refusals
    with pytest.raises(pytest.fail.Exception, match="the source was opened"):
        export(narrow[0], "detectron2", tmp_path / "x.pkl")


@pytest.mark.parametrize("name", ["x.yaml", "x.proof.json"])
def test_a_folder_in_the_way_leaves_nothing_behind(
    tmp_path: Path, narrow, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(run_module, "open_source", lambda *_: pytest.fail("the source was opened"))
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} .*x.pkl"):
        export(narrow[0], "detectron2", tmp_path / "x.pkl")
    assert os.listdir(tmp_path) == [name]


def _set(*keys: str, value: Any):
    def change(settings: dict[str, Any]) -> dict[str, Any]:
        node = settings
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
        return settings

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("INPUT", "FORMAT", value="BGR"), "layer pixels of the exported network differs"),
        (_set("MODEL", "PIXEL_STD", value=[1.0, 1.0, 1.0]), "layer pixels of the exported network differs"),
        (
            _set("MODEL", "PIXEL_MEAN", value=[103.53, 116.28, 123.675]),
            "layer pixels of the exported network differs",
        ),
        (
            _set("MODEL", "RESNETS", "RES2_OUT_CHANNELS", value=64),
            "detectron2 could not load|has no place|only .* keys",
        ),
        (_set("MODEL", "RESNETS", "DEPTH", value=18), "detectron2 could not load|has no place|only .* keys"),
        (_set("MODEL", "RESNETS", "DEPTH", value=50), "detectron2 could not load|has no place|only .* keys"),
    ],
)
def test_a_wrong_overlay_is_an_error(
    installed, narrow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change, words: str
) -> None:
    monkeypatch.setattr(exporter, "overlay", lambda *args: change(overlay(*args)))
    with pytest.raises(UserError, match=words):
        export(narrow[0], "detectron2", tmp_path / "x.pkl")
    assert os.listdir(tmp_path) == []


def test_stride_in_the_1x1_convolution_is_an_error(
    installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(random_encoder("resnet50", 3).state_dict(), tmp_path / "source.pth")
    change = _set("MODEL", "RESNETS", "STRIDE_IN_1X1", value=True)
    monkeypatch.setattr(exporter, "overlay", lambda *args: change(overlay(*args)))
    with pytest.raises(UserError, match="layer res3 of the exported network differs"):
        export(tmp_path / "source.pth", "detectron2", tmp_path / "x.pkl", "resnet50")
    assert os.listdir(tmp_path) == ["source.pth"]


@pytest.mark.parametrize("rename", ["module.", "backbone.", "encoder_q."])
def test_names_that_detectron2_matches_in_part_or_not_at_all(
    installed, narrow, tmp_path: Path, monkeypatch, rename: str
) -> None:
    """Detectron2 takes ``backbone.`` names by suffix: then the names differ from ours and the tensors have no
    place."""
    monkeypatch.setattr(exporter, "detectron2_name", lambda key: rename + detectron2_name(key))
    monkeypatch.setattr(
        exporter,
        "overlay",
        lambda info, tensors: overlay(info, {k.removeprefix(rename): v for k, v in tensors.items()}),
    )
    with pytest.raises(UserError, match="has no place for 65 tensors"):
        export(narrow[0], "detectron2", tmp_path / "x.pkl")
    assert os.listdir(tmp_path) == []


def test_without_detectron2_nothing_is_proven_and_nothing_written(
    narrow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(exporter.compatibility, "available", lambda: False)
    with pytest.raises(UserError, match="Detectron2 is not installed .*install-detectron2"):
        export(narrow[0], "detectron2", tmp_path / "x.pkl")
    assert os.listdir(tmp_path) == []
