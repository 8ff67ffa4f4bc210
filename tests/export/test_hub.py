"""Folders for the Hugging Face hub: timm opens them as they are, and so do our own readers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from timm.data import resolve_model_data_config
from timm.models import save_for_hf

from automix_transfer.errors import UserError
from automix_transfer.export import export
from automix_transfer.export.card import Facts, model_card
from automix_transfer.io import write_json
from automix_transfer.models import load_encoder, read_weights
from automix_transfer.models.encoders import EncoderInfo
from tests.models.files import assert_same, automix_checkpoint, random_encoder

DATA = {
    **{"dataset": "cifar100", "root": "/home/me/cifar", "val_split": "test"},
    **{"test_crop_ratio": 1.0, "test_crop": "center", "interpolation": "bicubic"},
}
CONFIG = {"seed": 3, "data": DATA, "method": {"name": "mixup", "alpha": 0.2}, "train": {"epochs": 1}}
HISTORY = [{"epoch": 1, "top1": 60.0, "top5": 85.0, "top1_k": 60.0, "top1_q": 55.0}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    folder = tmp_path_factory.mktemp("run")
    write_json(
        folder / "run.json", {"recipe": {"name": "cifar100_r18_mixup"}, "starts": [{"commit": "c0ffee"}]}
    )
    kept = {"config": CONFIG, "history": HISTORY, "samples": [50_000, 10_000]}
    return automix_checkpoint(folder / "last.pt", "resnet18", image_size=32, **kept)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    path = tmp_path_factory.mktemp("small") / "last.pt"
    return automix_checkpoint(path, "cifar_resnet8", stem="cifar", image_size=32, history=HISTORY)


def input_of(network: torch.nn.Module) -> Any:
    return json.loads(json.dumps(resolve_model_data_config(network)))


@pytest.fixture(scope="module")
def hub(run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "hub.v1"
    export(run[0], "hf", folder)
    return folder


def test_timm_opens_it(run, hub: Path, tmp_path: Path) -> None:
    opened = timm.create_model(f"local-dir:{hub}", pretrained=True)
    assert_same(opened, run[1]["k"])
    source, info = load_encoder(run[0])
    assert input_of(opened) == input_of(source)
    assert opened.pretrained_cfg["label_names"] == list(info.class_names)
    assert timm.create_model(f"local-dir:{hub}", pretrained=True, num_classes=0).num_classes == 0
    # the layout is that of timm's own writer
    save_for_hf(opened, tmp_path, {"label_names": list(info.class_names)}, safe_serialization=True)
    ours, timms = (json.loads((folder / "config.json").read_text()) for folder in (hub, tmp_path))
    for key in ("architecture", "num_classes", "num_features", "label_names"):
        assert ours[key] == timms[key]
    assert ours["pretrained_cfg"].items() <= timms["pretrained_cfg"].items()


def test_our_readers_open_it(run, hub: Path, tmp_path: Path) -> None:
    loaded, info = load_encoder(hub)
    assert_same(loaded, run[1]["k"])
    assert info == load_encoder(run[0])[1]
    weights = read_weights(hub)
    assert (weights.which, weights.step) == ("k", 7)
    proof = export(hub, "hf", tmp_path / "again")  # an export is a source
    assert (
        proof.files["config.json"]
        == json.loads((hub / "model.proof.json").read_text())["files"]["config.json"]
    )
    with pytest.raises(UserError, match="is the source itself"):
        export(hub, "hf", hub)


def test_the_card_says_what_is_known(hub: Path) -> None:
    card = ModelCard.load(hub / "README.md")
    found = card.data
    assert (found.license, found.library_name, found.datasets) == ("apache-2.0", "timm", ["uoft-cs/cifar100"])
    assert {"image-classification", "timm", "mixup"} <= set(found.tags)
    metrics = {result.metric_name: result.metric_value for result in found.eval_results}
    assert metrics == {"top-1 accuracy": 0.6, "top-5 accuracy": 0.85}
    for words in (
        *("cifar100_r18_mixup", "c0ffee", "MixUp (Zhang et al. 2018)", "`method.alpha=0.2`", "60.00"),
        *("50,000 images", "@inproceedings", "step 7", "`seed=3`"),
    ):
        assert words in card.text
    for file in hub.iterdir():  # it is for others
        assert b"/home/me" not in file.read_bytes() and str(hub.parent).encode() not in file.read_bytes()


def test_the_accuracy_is_that_of_the_encoder(small, tmp_path: Path) -> None:
    export(small[0], "hf", tmp_path / "q", which="q")
    results = ModelCard.load(tmp_path / "q" / "README.md").data.eval_results
    assert {result.metric_name: result.metric_value for result in results} == {"top-1 accuracy": 0.55}


def test_weights_of_others_have_no_licence_of_ours(tmp_path: Path) -> None:
    state = {k: v for k, v in random_encoder("cifar_resnet8", 3).state_dict().items() if "linear" not in k}
    torch.save(state, tmp_path / "x.pth")
    export(tmp_path / "x.pth", "hf", tmp_path / "hub", "cifar_resnet8")
    front = yaml.safe_load((tmp_path / "hub" / "README.md").read_text().split("---")[1])
    assert (front["license"], front["pipeline_tag"]) == ("unknown", "image-feature-extraction")
    assert "model-index" not in front
    assert timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).num_classes == 0


@pytest.mark.parametrize(
    ("name", "stem"), [("resnet10_32", "imagenet"), ("cifar_resnet8", "cifar"), ("resnet10_32", "cifar")]
)
def test_networks_that_timm_does_not_have(tmp_path: Path, name: str, stem: str) -> None:
    path, encoders = automix_checkpoint(tmp_path / "last.pt", name, stem=stem, image_size=32)
    proof = export(path, "hf", tmp_path / "hub")
    assert any("import automix_transfer.models" in note for note in proof.notes)
    assert "import automix_transfer.models" in (tmp_path / "hub" / "README.md").read_text()
    assert_same(timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True), encoders["k"])
    other = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True, num_classes=2)
    assert other.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    loaded, info = load_encoder(tmp_path / "hub")
    assert_same(loaded, encoders["k"])
    assert (info.name, info.stem) == (name, stem)


def test_what_is_not_ours_is_not_written_over(small, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    export(small[0], "hf", folder)
    (folder / ".gitattributes").write_text("")  # a clone of the hub's repository
    export(small[0], "hf", folder, which="q")
    assert_same(load_encoder(folder)[0], small[1]["q"])
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card + "Our own words.\n")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UserError, match="README.md .*hub_hf"):
        export(small[0], "hf", folder)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json"):
        export(small[0], "hf", tmp_path / "foreign")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        export(small[0], "hf", tmp_path / "file")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert os.listdir(tmp_path / "foreign") == ["config.json"]


def test_a_file_for_timm_comes_with_how_its_input_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = automix_checkpoint(tmp_path / "last.pt", "resnet18", image_size=32, config=CONFIG)
    proof = export(path, "timm", tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    assert input_of(eval(proof.target, {"timm": timm})) == input_of(load_encoder(path)[0])


def test_a_run_on_several_labels_has_map_and_independent_probabilities(hub: Path, tmp_path: Path) -> None:
    row = {"epoch": 1, "map": 70.0, "map_k": 70.0, "map_q": 60.0}
    training = {"config": {"data": {"dataset": "voc"}}, "history": [row], "epoch": 1}
    info = EncoderInfo("resnet18", 20)
    for which, value in (("k", 0.7), ("q", 0.6)):
        source = SimpleNamespace(training=training, info=info, path=tmp_path / "last.pt", which=which)
        source.sha256, source.step = "0", 1
        (result,) = Facts(source).front()["model-index"][0]["results"]
        assert result["metrics"] == [{"type": "mAP", "value": value, "name": "mAP"}]
        assert "logits.sigmoid()" in model_card(source, False)
    assert "sigmoid" not in (hub / "README.md").read_text()
