"""Exports are equal to their source, bit for bit, in the target's own network; what cannot be proven is not
written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from automix_transfer.detection.weights.exporter import EXPORTERS
from automix_transfer.errors import UserError
from automix_transfer.export import export
from automix_transfer.export import proof as proof_module
from automix_transfer.export import torchvision as torchvision_module
from automix_transfer.export.proof import TOLERANCE, compare
from automix_transfer.export.source import RESNETS
from automix_transfer.models import create_encoder, load_encoder, read_weights
from tests.models.files import assert_same, automix_checkpoint, random_encoder

IMAGES = torch.randn(2, 3, 61, 83, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    return automix_checkpoint(tmp_path_factory.mktemp("narrow") / "last.pt", "resnet10_32")


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    return automix_checkpoint(tmp_path_factory.mktemp("resnet18") / "last.pt", "resnet18")


@torch.no_grad()
def assert_same_logits(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert torch.equal(a.eval()(IMAGES), b.eval()(IMAGES))


# --- the kinds


@pytest.mark.parametrize("which", ["k", "q"])
def test_torchvision(resnet18, tmp_path: Path, which: str) -> None:
    path, encoders = resnet18
    proof = export(path, "torchvision", tmp_path / "x.pth", which=which)
    network = torchvision.models.resnet18(num_classes=5)
    network.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True), strict=True)
    assert_same_logits(network, encoders[which])
    assert (proof.matched, proof.total, proof.which, proof.step) == (122, 122, which, 7)
    assert proof.largest_difference == 0
    assert {row.layer for row in proof.rows} == {"stem", "layer1", "layer2", "layer3", "layer4", "logits"}
    assert {row.input for row in proof.rows} == {(2, 3, 64, 64), (1, 3, 97, 63), (1, 3, 63, 78)}


def test_timm(resnet18, tmp_path: Path) -> None:
    path, encoders = resnet18
    export(path, "timm", tmp_path / "x.pth")
    assert_same_logits(
        timm.create_model("resnet18", num_classes=5, checkpoint_path=str(tmp_path / "x.pth")), encoders["k"]
    )


@pytest.mark.parametrize(("name", "stem"), [("resnet10_32", "imagenet"), ("resnet10_32", "cifar")])
def test_timm_networks_without_a_name(tmp_path: Path, name: str, stem: str) -> None:
    path, encoders = automix_checkpoint(tmp_path / "last.pt", name, stem=stem)
    proof = export(path, "timm", tmp_path / "x.pth")
    assert f"create_encoder('{name}', 5, stem='{stem}')" in proof.target
    assert any("timm cannot build this network by name" in note for note in proof.notes)
    encoder = create_encoder(name, 5, stem)
    encoder.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True), strict=True)
    assert_same_logits(encoder, encoders["k"])


def test_timm_network_of_another_family(tmp_path: Path) -> None:
    encoder = random_encoder("mobilenetv3_small_050", 4)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in encoder.state_dict().items()}},
        tmp_path / "source.pth.tar",
    )
    proof = export(tmp_path / "source.pth.tar", "timm", tmp_path / "x.pth", "mobilenetv3_small_050")
    assert_same_logits(
        timm.create_model("mobilenetv3_small_050", num_classes=4, checkpoint_path=str(tmp_path / "x.pth")),
        encoder,
    )
    assert {"conv_stem", "blocks.5", "logits"} <= {row.layer for row in proof.rows}
    assert any("prefix 'module.' stripped" in note for note in proof.notes)


def test_network_of_fixed_size(tmp_path: Path) -> None:
    with torch.device("meta"):
        proof_sizes = proof_module.proof_sizes(timm.create_model("vit_tiny_patch16_224", num_classes=3), 224)
    assert proof_sizes == ((2, 224, 224),)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("resnet10_32", "imagenet"), ("cifar_resnet8", "cifar"), ("torchvision/squeezenet1_1", "imagenet")],
)
def test_safetensors_rebuilds_itself(tmp_path: Path, name: str, stem: str) -> None:
    path, encoders = automix_checkpoint(tmp_path / "last.pt", name, stem=stem)
    proof = export(path, "safetensors", tmp_path / "x.safetensors", which="q")
    loaded, info = load_encoder(tmp_path / "x.safetensors")
    assert_same(loaded, encoders["q"])
    weights = read_weights(tmp_path / "x.safetensors", "q")
    assert (info.name, info.stem) == (name, stem)
    assert (weights.which, weights.step, weights.kind) == ("q", 7, "safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        about = json.loads(file.metadata()["automix_transfer"])
    assert about["source_sha256"] == proof.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="encoder 'q'"):
        read_weights(tmp_path / "x.safetensors", "k")


def test_an_export_is_a_source(narrow, tmp_path: Path) -> None:
    path, encoders = narrow
    export(path, "safetensors", tmp_path / "a.safetensors", which="q")
    proof = export(tmp_path / "a.safetensors", "timm", tmp_path / "b.pth")
    assert (proof.which, proof.step) == ("q", 7)
    export(tmp_path / "b.pth", "safetensors", tmp_path / "c.safetensors", "resnet10_32")
    assert_same(load_encoder(tmp_path / "c.safetensors")[0], encoders["q"])


def test_backbone_without_classifier(tmp_path: Path) -> None:
    encoder = random_encoder("resnet18", 3)
    torch.save(
        {key: value for key, value in encoder.state_dict().items() if not key.startswith("fc.")},
        tmp_path / "source.pth",
    )
    proof = export(tmp_path / "source.pth", "torchvision", tmp_path / "x.pth", "resnet18")
    assert (proof.matched, proof.total) == (120, 120) and "fc = Identity()" in proof.target


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_family_has_the_same_keys_in_timm_and_torchvision(name: str) -> None:
    block, blocks, groups, width = RESNETS[name]
    with torch.device("meta"):
        ours = create_encoder(name, 10).state_dict()
        theirs = ResNet(
            {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}[block],
            list(blocks),
            10,
            groups=groups,
            width_per_group=width,
        )
        named = torchvision.models.get_model(name, num_classes=10) if name != "resnext101_32x4d" else theirs
    for network in (theirs, named):
        assert {key: value.shape for key, value in network.state_dict().items()} == {
            key: value.shape for key, value in ours.items()
        }


# --- the proof


def test_proof_is_written_beside_the_file(narrow, tmp_path: Path) -> None:
    path, _ = narrow
    proof = export(path, "timm", tmp_path / "new folder" / "x.pth")
    written = json.loads((tmp_path / "new folder" / "x.proof.json").read_text())
    assert written == json.loads(json.dumps(proof.to_dict()))
    assert written["sha256"] == hashlib.sha256((tmp_path / "new folder" / "x.pth").read_bytes()).hexdigest()
    assert written["encoder"]["class_names"] == [f"class {i}" for i in range(5)]
    assert {"torch", "timm", "python"} <= set(written["versions"])
    assert sorted(os.listdir(tmp_path / "new folder")) == ["x.proof.json", "x.pth"]
    text = str(proof)
    assert "encoder k, step 7" in text and "keys: 80 of 80 matched" in text and "largest difference 0" in text


def test_what_a_killed_export_left_is_removed(narrow, tmp_path: Path) -> None:
    left, other = tmp_path / ".r10.safetensors.a1_b2c3d.draft", tmp_path / ".q.safetensors.a1_b2c3d.draft"
    for folder in (left, other):
        folder.mkdir()
        (folder / "half").touch()
    export(narrow[0], "safetensors", tmp_path / "r10.safetensors")
    found = [file.name for file in tmp_path.iterdir()]
    assert sorted(found) == [other.name, "r10.proof.json", "r10.safetensors"]


@pytest.mark.slow
def test_a_tampered_file_is_not_written(resnet18, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = resnet18
    export(path, "torchvision", tmp_path / "x.pth")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    real = torchvision_module.save_torch

    def tamper(output: Path, state: dict[str, torch.Tensor]) -> None:
        real(output, {**state, "layer3.1.conv2.weight": state["layer3.1.conv2.weight"].flip(3)})

    monkeypatch.setattr(torchvision_module, "save_torch", tamper)
    with pytest.raises(UserError, match="121 of 122 keys"):
        export(path, "torchvision", tmp_path / "x.pth")
    # the features alone must notice, too
    monkeypatch.setattr(proof_module, "same_values", lambda expected, found: len(found))
    with pytest.raises(UserError, match="layer layer3"):
        export(path, "torchvision", tmp_path / "x.pth")
    monkeypatch.setattr(
        torchvision_module,
        "save_torch",
        lambda output, state: real(output, {**state, "extra": torch.zeros(1)}),
    )
    with pytest.raises(UserError, match="x.pth: torchvision"):
        export(path, "torchvision", tmp_path / "x.pth")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_full_disk(narrow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as error:
        export(narrow[0], "timm", tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(error.value)
    assert os.listdir(tmp_path) == []


def test_dead_features_prove_nothing(tmp_path: Path) -> None:
    encoder = random_encoder("resnet10_32", 3)
    with torch.no_grad():
        for value in (*encoder.bn1.parameters(), encoder.bn1.running_mean):
            value.zero_()
    torch.save(encoder.state_dict(), tmp_path / "source.pth")
    with pytest.raises(UserError, match="layer stem of the source"):
        export(tmp_path / "source.pth", "safetensors", tmp_path / "x.safetensors", "resnet10_32")
    assert os.listdir(tmp_path) == ["source.pth"]


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda x: x, True),
        (lambda x: x * (1 + TOLERANCE / 3), True),
        (lambda x: x * (1 + 3 * TOLERANCE), False),
        (lambda x: x * float("nan"), False),
        (lambda x: x[:, :, :-1], False),
    ],
)
def test_comparison(change, passes: bool) -> None:
    if passes:
        rows = compare(lambda x: {"a": x}, lambda x: {"a": change(x)}, [(1, 5, 7), (2, 4, 4)])
        assert [row.input for row in rows] == [(1, 3, 5, 7), (2, 3, 4, 4)]
    else:
        with pytest.raises(UserError, match="nothing was written"):
            compare(lambda x: {"a": x}, lambda x: {"a": change(x)}, [(1, 5, 7)])


@pytest.mark.parametrize("found", [{}, {"b": torch.ones(1)}])
def test_comparison_of_other_layers(found: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match="nothing was written"):
        compare(lambda x: {"a": x}, lambda x: found, [(1, 4, 4)])
    with pytest.raises(UserError, match="nothing was written"):
        compare(lambda x: {}, lambda x: {}, [(1, 4, 4)])


# --- what is refused


@pytest.mark.parametrize(
    ("name", "stem", "kind", "instead"),
    [
        ("resnet10_32", "imagenet", "torchvision", "use --to timm or --to safetensors"),
        ("resnet10_32", "cifar", "torchvision", "with the CIFAR stem cannot be exported to torchvision"),
        ("cifar_resnet8", "cifar", "torchvision", "use --to timm or --to safetensors"),
        ("cifar_resnet8", "cifar", "timm", "use --to safetensors"),
        ("torchvision/squeezenet1_1", "imagenet", "timm", "use --to torchvision or --to safetensors"),
        ("cifar_resnet8", "cifar", "detectron2", "use --to safetensors"),
        ("resnet10_32", "cifar", "detectron2", "with the CIFAR stem cannot be exported to detectron2"),
    ],
)
def test_networks_that_a_framework_does_not_have(
    tmp_path: Path, name: str, stem: str, kind: str, instead: str
) -> None:
    path, _ = automix_checkpoint(tmp_path / "last.pt", name, stem=stem)
    with pytest.raises(UserError, match=instead):
        export(path, kind, tmp_path / f"x.{'pkl' if kind == 'detectron2' else 'pth'}", kinds=EXPORTERS)
    assert os.listdir(tmp_path) == ["last.pt"]


def test_requests_that_make_no_sense(narrow, tmp_path: Path) -> None:
    path, _ = narrow
    for kind, output, words in [
        ("caffe", "x.caffe", "export kind 'caffe' is unknown"),
        ("onnx", "x.pth", "must end in .onnx"),
        ("timm", "x.pkl", "must end in .pth for timm"),
        ("safetensors", "x.pth", "must end in .safetensors"),
        ("detectron2", "x", "must end in .pkl"),
    ]:
        with pytest.raises(UserError, match=words):
            export(path, kind, tmp_path / output, kinds=EXPORTERS)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        export(path, "timm", tmp_path / "folder.pth")
    with pytest.raises(UserError, match="does not exist"):
        export(tmp_path / "none.pt", "timm", tmp_path / "x.pth")
    with pytest.raises(UserError, match="encoder 'z'; choose one of k, q"):
        export(path, "timm", tmp_path / "x.pth", which="z")
    with pytest.raises(UserError, match="5 classes, not 6"):
        export(path, "timm", tmp_path / "x.pth", num_classes=6)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(path, "timm", tmp_path / "file" / "x.pth")
    torch.save(random_encoder("resnet10_32", 3).state_dict(), tmp_path / "source.pth")
    with pytest.raises(UserError, match="is the source itself"):
        export(tmp_path / "source.pth", "timm", tmp_path / "source.pth", "resnet10_32")


def test_the_proof_of_another_file_is_not_overwritten(narrow, tmp_path: Path) -> None:
    path, _ = narrow
    export(path, "safetensors", tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="proof of x.safetensors .*x_timm.pth"):
        export(path, "timm", tmp_path / "x.pth")
    export(path, "safetensors", tmp_path / "x.safetensors", which="q")  # its own proof is
    assert json.loads((tmp_path / "x.proof.json").read_text())["which"] == "q"
    (tmp_path / "y.proof.json").write_text('{"theorem": "not ours"}')
    with pytest.raises(UserError, match="y.proof.json .*y_safetensors"):
        export(path, "safetensors", tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()
