"""Weights from files: every key or none, and nothing but a `UserError` from a file that is not what it should
be."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from automix_transfer.errors import UserError
from automix_transfer.models import EncoderInfo, create_encoder, load_encoder, load_into, read_weights
from automix_transfer.models.weights import load_file
from automix_transfer.models.weights_file import METADATA_KEY
from tests.models.files import assert_same, automix_checkpoint, random_encoder, write_checkpoint

NAME = "cifar_resnet8"  # 78,000 weights
FAST = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.nn.Module]]:
    return automix_checkpoint(
        tmp_path_factory.mktemp("weights") / "last.pt", NAME, stem="cifar", image_size=32
    )


def plain(encoder: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in encoder.state_dict().items()}


# --- what is read


@pytest.mark.parametrize("which", [None, "k", "q"])
def test_checkpoint_gives_encoder_k_unless_q_is_chosen(checkpoint, which: str | None) -> None:
    path, encoders = checkpoint
    encoder, info = load_encoder(path, which=which)
    assert_same(encoder, encoders[which or "k"])
    assert info == EncoderInfo(NAME, 5, "cifar", 32, class_names=tuple(f"class {i}" for i in range(5)))
    assert not encoder.training
    weights = read_weights(path, which)
    assert (weights.which, weights.kind, weights.step) == (which or "k", "checkpoint", 7)
    assert any(f"encoder {which or 'k'} of k, q" in note for note in weights.notes)


def test_checkpoint_with_one_encoder(tmp_path: Path) -> None:
    encoder = random_encoder(NAME, 3)
    path = write_checkpoint(tmp_path / "last.pt", {"encoder": encoder}, EncoderInfo(NAME, 3))
    assert_same(load_encoder(path)[0], encoder)
    with pytest.raises(UserError, match="encoder 'q'"):
        read_weights(path, "q")


@pytest.mark.parametrize("size", [96, 240])
def test_a_transformer_starts_at_another_size_with_the_positions_that_timm_gives_it(tmp_path, size) -> None:
    trained = random_encoder("test_vit", 3)
    torch.save({f"module.{key}": value for key, value in trained.state_dict().items()}, tmp_path / "vit.pth")
    network = create_encoder("test_vit", 5, image_size=size)
    report = load_file(network, tmp_path / "vit.pth", "test_vit", classifier="new")
    assert f"10x10 patches to {size // 16}x{size // 16}" in str(report)
    trained.set_input_size(img_size=size)
    assert torch.equal(network.pos_embed, trained.pos_embed)
    with pytest.raises(UserError, match="pos_embed"):  # a file is what it says
        load_into(network, read_weights(tmp_path / "vit.pth"), classifier="new")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.", "_orig_mod."])
def test_plain_state_dicts(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    encoder = random_encoder(NAME, 4)
    state = plain(encoder, prefix)
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "x.pth")
    loaded, info = load_encoder(tmp_path / "x.pth", NAME)
    assert_same(loaded, encoder)
    assert info.num_classes == 4
    weights = read_weights(tmp_path / "x.pth")
    assert weights.kind == "state_dict" and weights.info is None
    assert weights.notes == ((f"prefix '{prefix}' stripped from all {len(state)} keys",) if prefix else ())


def test_safetensors_without_our_metadata(tmp_path: Path) -> None:
    encoder = random_encoder(NAME, 4)
    save_file(plain(encoder), tmp_path / "x.safetensors")
    assert_same(load_encoder(tmp_path / "x.safetensors", NAME)[0], encoder)


@pytest.mark.parametrize("size", range(1, 33, 4))
def test_safetensors_are_told_from_pickles_by_content(tmp_path: Path, size: int) -> None:
    # a header of 128 mod 256 bytes starts with the byte of a pickle
    save_file({"a" * size: torch.zeros(1)}, tmp_path / "x.pth", metadata={"fill": "b" * (8 * size)})
    assert list(read_weights(tmp_path / "x.pth").state_dict) == ["a" * size]


def test_classes_and_stem_are_read_from_the_shapes(tmp_path: Path) -> None:
    encoder = random_encoder("resnet10_32", 7, "cifar")
    torch.save(plain(encoder), tmp_path / "x.pth")
    loaded, info = load_encoder(tmp_path / "x.pth", "resnet10_32")
    assert (info.num_classes, info.stem) == (7, "cifar")
    assert_same(loaded, encoder)


def test_backbone_without_classifier(tmp_path: Path) -> None:
    state = {
        key: value
        for key, value in plain(random_encoder("resnet10_32", 7)).items()
        if not key.startswith("fc.")
    }
    torch.save(state, tmp_path / "x.pth")
    loaded, info = load_encoder(tmp_path / "x.pth", "resnet10_32")
    assert info.num_classes == 0
    assert loaded(torch.zeros(1, 3, 64, 64)).shape == (1, 256)
    report = load_into(create_encoder("resnet10_32", 9), read_weights(tmp_path / "x.pth"), classifier="new")
    assert "classifier (fc.weight, fc.bias) left random" in str(report)


def test_half_precision_is_said(tmp_path: Path) -> None:
    encoder = random_encoder(NAME, 4)
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in plain(encoder).items()},
        tmp_path / "x.pth",
    )
    report = load_into(encoder, read_weights(tmp_path / "x.pth"))
    assert "converted from float16 to the encoder's precision" in str(report)
    assert next(encoder.parameters()).dtype == torch.float32


def test_files_from_before_batch_counters(tmp_path: Path) -> None:
    encoder = random_encoder(NAME, 4)
    torch.save(
        {key: value for key, value in plain(encoder).items() if "num_batches" not in key}, tmp_path / "x.pth"
    )
    report = load_into(create_encoder(NAME, 4), read_weights(tmp_path / "x.pth"))
    assert report.matched == report.total and "BN step counters" in str(report)


# --- all or nothing


def test_new_classifier_leaves_the_old_one_random(tmp_path: Path) -> None:
    source, target = random_encoder(NAME, 4), random_encoder(NAME, 9, seed=5)
    head = target.linear.weight.clone()
    torch.save(plain(source), tmp_path / "x.pth")
    report = load_into(target, read_weights(tmp_path / "x.pth"), classifier="new")
    assert torch.equal(target.linear.weight, head)
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    assert report.total - report.matched == 2
    with pytest.raises(UserError, match="encoder.classifier=new"):
        load_into(target, read_weights(tmp_path / "x.pth"))
    with pytest.raises(UserError, match="choose keep .* or new"):
        load_into(target, read_weights(tmp_path / "x.pth"), classifier="maybe")


def _drop(state: dict[str, Any]) -> None:
    del state["layer2.0.bn1.bias"]


def _add(state: dict[str, Any]) -> None:
    state["layer9.weight"] = torch.zeros(1)


def _reshape(state: dict[str, Any]) -> None:
    state["layer2.0.conv1.weight"] = torch.zeros(32, 16, 1, 1)


def _break(state: dict[str, Any]) -> None:
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].clone()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")


def _integers(state: dict[str, Any]) -> None:
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].int()


def _complex(state: dict[str, Any]) -> None:
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].to(torch.complex64)


def _sparse(state: dict[str, Any]) -> None:
    state["linear.weight"] = state["linear.weight"].to_sparse()


def _partial_prefix(state: dict[str, Any]) -> None:
    for key in [key for key in state if not key.startswith(("linear", "bn1"))]:
        state[f"module.{key}"] = state.pop(key)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_drop, "layer2.0.bn1.bias", id=r"_drop-1 missing \(layer2.0.bn1.bias\)"),
        pytest.param(_add, "layer9.weight", id=r"_add-1 unexpected \(layer9.weight\)"),
        (_reshape, "1 of another shape"),
        pytest.param(
            _break,
            "NaN.*layer2.0.conv1.weight",
            id=r"_break-NaN or infinite values \(layer2.0.conv1.weight\)",
        ),
        (_integers, "of a type that no weight has"),
        (_complex, "of a type that no weight has"),
        (_sparse, "of a type that no weight has"),
        pytest.param(
            _partial_prefix,
            "37 of its 44.*'module.'",
            id="_partial_prefix-37 of its 44 keys start with 'module.', not all",
        ),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path, spoil, words: str) -> None:
    state = plain(random_encoder(NAME, 4))
    spoil(state)
    torch.save(state, tmp_path / "x.pth")
    target, untouched = random_encoder(NAME, 4, seed=3), random_encoder(NAME, 4, seed=3)
    with pytest.raises(UserError, match=words) as error:
        load_into(target, read_weights(tmp_path / "x.pth"))
    assert str(tmp_path / "x.pth") in str(error.value)
    assert_same(target, untouched)


def test_another_architecture(checkpoint, tmp_path: Path) -> None:
    path, _ = checkpoint
    with pytest.raises(UserError, match="'cifar_resnet8'.*'resnet18'"):
        load_encoder(path, "resnet18")
    with pytest.raises(UserError, match="of 12[02] keys"):
        load_into(create_encoder("resnet18", 5), read_weights(path))
    torch.save(plain(random_encoder(NAME, 4)), tmp_path / "x.pth")
    with pytest.raises(UserError, match="x.pth .*--encoder"):
        load_encoder(tmp_path / "x.pth")
    with pytest.raises(UserError, match="'resnet10_64'"):
        load_encoder(tmp_path / "x.pth", "resnet10_64")
    with pytest.raises(UserError, match="x.pth .*another architecture"):
        load_encoder(tmp_path / "x.pth", "cifar_resnet14")
    with pytest.raises(UserError, match="4 classes, not 10"):
        load_encoder(tmp_path / "x.pth", NAME, num_classes=10)
    with pytest.raises(UserError, match="not a choice with 'q'"):
        read_weights(tmp_path / "x.pth", "q")


# --- damaged and hostile files


class _RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "in the checkpoint"])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "x.pt", tmp_path / "it ran"
    if how == "pickle":
        path.write_bytes(pickle.dumps(_RunsCode(trace)))
    elif how == "in the checkpoint":
        automix_checkpoint(path, NAME, stem="cifar", history=[_RunsCode(trace)])
    else:
        torch.save({"state_dict": _RunsCode(trace)}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UserError, match="refused|damaged"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_at_any_length(tmp_path: Path, kind: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / f"x.{'safetensors' if kind == 'safetensors' else 'pt'}"
    state = {f"layer.{i}": torch.full((5,), float(i)) for i in range(6)}
    if kind == "safetensors":
        save_file(state, whole)
    else:
        torch.save({"state_dict": state}, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    for length in sorted(
        {*range(0, 40), *range(40, len(content), 37), *range(len(content) - 40, len(content))}
    ):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged|refused"):  # a name cut short is one that is not allowed
            read_weights(path)


@FAST
@given(
    st.binary(max_size=200),
    st.sampled_from(["x.pt", "x.safetensors"]),
    st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x10" + b"\0" * 7 + b"{"]),
)
def test_random_bytes(tmp_path: Path, content: bytes, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start + content)
    with pytest.raises(UserError):
        read_weights(tmp_path / name)


def test_a_name_that_is_no_encoder_is_blamed_on_the_file(checkpoint, tmp_path: Path) -> None:
    content = torch.load(checkpoint[0], weights_only=True)
    content["encoder"]["name"] = "bifar_resnet8"
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match="x.pt: .*'bifar_resnet8'"):
        load_encoder(tmp_path / "x.pt")


@FAST
@given(st.data())
def test_flipped_bytes_are_refused_or_change_no_bit(checkpoint, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(checkpoint[0].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "x.pt").write_bytes(content)
    try:  # a byte between the records of the zip
        assert_same(load_encoder(tmp_path / "x.pt")[0], checkpoint[1]["k"])
    except UserError as error:
        assert str(tmp_path / "x.pt") in str(error)


primitives = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    primitives,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(["name", "num_classes", "stem", "image_size", "mean", "std", "class_names", "other"])


@FAST
@given(
    st.dictionaries(fields, values) | values,
    st.sampled_from(["format", "encoder", "encoders", "model", "step"]),
)
@example({"num_classes": True}, "encoder")
def test_any_field_of_a_checkpoint_may_be_nonsense(
    checkpoint, tmp_path: Path, value: Any, field: str
) -> None:
    content = torch.load(checkpoint[0], weights_only=True)
    if field == "encoder" and isinstance(value, dict):
        value = {**content["encoder"], **value}
    torch.save({**content, field: value}, tmp_path / "x.pt")
    try:
        assert_same(load_encoder(tmp_path / "x.pt")[0], checkpoint[1]["k"])
    except UserError as error:
        assert str(tmp_path / "x.pt") in str(error)


def described(**fields: Any) -> str:
    """Metadata of our own exports, with other ``fields`` of the encoder."""
    encoder = EncoderInfo(NAME, 4).to_dict() | fields
    return json.dumps({"format": "automix_transfer/1", "encoder": encoder})


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "nonsense",
        "[" * 100_000,
        "null",
        "{}",
        json.dumps({"format": "automix_transfer/1"}),
        json.dumps({"format": "automix_transfer/1", "encoder": {"name": 3, "num_classes": 4}}),
        json.dumps({"format": "automix_transfer/9", "encoder": {"name": NAME, "num_classes": 4}}),
        described(mean=[10**400, 0, 0]),
        described(mean=[float("nan"), 0, 0]),
        described(std=[1, 1, 0]),
        described(class_names=["a", "b"]),
    ],
)
def test_metadata_that_is_not_ours(tmp_path: Path, metadata: str) -> None:
    save_file(plain(random_encoder(NAME, 4)), tmp_path / "x.safetensors", metadata={METADATA_KEY: metadata})
    with pytest.raises(UserError, match="x.safetensors"):
        read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        3,
        [1, 2],
        {},
        {"state_dict": {}},
        {"a": 3},
        {"model": {"a": torch.zeros(1), 5: torch.zeros(1)}},
        torch.zeros(3),
        {"format": "automix_transfer/1"},
        {"format": "automix_transfer/2"},
    ],
)
def test_files_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match="x.pt"):
        read_weights(tmp_path / "x.pt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_weights(path)


def test_a_prefix_that_matches_nothing(tmp_path: Path) -> None:
    path, _ = automix_checkpoint(tmp_path / "x.pt", NAME, stem="cifar", encoders={"k": "elsewhere."})
    with pytest.raises(UserError, match="field 'model' .*'elsewhere.'"):
        read_weights(path)
