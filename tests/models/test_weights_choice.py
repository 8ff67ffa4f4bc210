"""Files of others with several networks in them: the one that their tool takes, or the one that is chosen."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from automix_transfer.errors import UserError
from automix_transfer.models import create_encoder, load_encoder, load_into, read_weights
from tests.models.files import assert_same, random_encoder

NAME = "cifar_resnet8"
NETWORKS = {"first": random_encoder(NAME, 10), "second": random_encoder(NAME, 10, seed=1)}
A, B = (network.state_dict() for network in NETWORKS.values())
EXTRA = torch.ones(2, 2)


def under(prefix: str, state: dict[str, Tensor], head: str | None = "linear.") -> dict[str, Tensor]:
    """``state`` with ``prefix``, its classifier as ``prefix`` + linear. or as ``head``; None: without it."""
    body = {prefix + key: value for key, value in state.items() if not key.startswith("linear.")}
    if head is None:
        return body
    place = prefix + head if head == "linear." else head
    return {**body, **{place + end: state[f"linear.{end}"] for end in ("weight", "bias")}}


OPENMIXUP = {
    "mix_block.value.weight": EXTRA,
    **under("backbone_q.", A, "head_one_q.fc."),
    **under("backbone_k.", B, "head_one_k.fc."),
    **{f"head_mix_q.fc.{end}": B[f"linear.{end}"] for end in ("weight", "bias")},
    **under("backbone.", B, "head.fc."),
}
TIMM = {
    "state_dict": A,
    "state_dict_ema": B,
    "args": argparse.Namespace(lr=0.1),
    "metric": np.float64(1.0),
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
}
DINO = {
    "student": under("module.backbone.", A),
    "teacher": {**under("backbone.", B), "head.last_layer.weight_g": EXTRA},
    "dino_loss": {"center": EXTRA},
}
MOCO = {
    "state_dict": {**under("module.encoder_q.", A), **under("module.encoder_k.", B), "module.queue": EXTRA}
}
EMA_MMPRETRAIN = {
    "state_dict": under("backbone.", A, "head.fc."),
    "ema_state_dict": {"steps": torch.tensor(1), **under("module.backbone.", B, "module.head.fc.")},
}
#: content, what is chosen, which network is loaded, a name that the notes say
FILES: dict[str, tuple[Any, str | None, str, str]] = {
    "timm": (TIMM, None, "second", "'state_dict_ema' taken; 'state_dict'"),
    "timm, chosen": (TIMM, "state_dict", "first", "'state_dict' taken; 'state_dict_ema'"),
    "timm, ema": (TIMM, "ema", "second", "state_dict_ema"),
    "torchvision": (
        {"model": A, "model_ema": {"n_averaged": torch.tensor(1), **under("module.", B)}},
        None,
        "second",
        "n_averaged",
    ),
    "dino": (DINO, None, "second", "'teacher' taken; 'student'"),
    "dino, student": (DINO, "student", "first", "'student' taken"),
    "moco": (MOCO, None, "first", "'encoder_q' taken; 'encoder_k'"),
    "moco, k": (MOCO, "k", "second", "'encoder_k' taken"),
    "moco 3": (
        {"state_dict": {**under("module.base_encoder.", A), **under("module.momentum_encoder.", B)}},
        None,
        "first",
        "momentum_encoder",
    ),
    "byol": ({"online_network": A, "target_network": B}, None, "first", "target_network"),
    "openmixup": ({"meta": {}, "state_dict": OPENMIXUP}, None, "second", "'backbone_k' taken"),
    "openmixup, q": ({"meta": {}, "state_dict": OPENMIXUP}, "q", "first", "'backbone_q' taken"),
    "mmpretrain": ({"state_dict": under("backbone.", A, "head.fc.")}, None, "first", "head.fc.weight"),
    "mmpretrain, ema": (EMA_MMPRETRAIN, None, "second", "ema_state_dict"),
    "lightning": (
        {"state_dict": {**under("model.", A), "criterion.weight": EXTRA}, "hyper_parameters": {"lr": 1}},
        None,
        "first",
        "criterion.weight",
    ),
    "lightning, average": (
        {"state_dict": {**under("model.", A), **under("ema_model.", B)}},
        None,
        "second",
        "ema",
    ),
    "model_state_dict": ({"model_state_dict": under("_orig_mod.", A)}, None, "first", "_orig_mod."),
    "net": ({"net": under("module._orig_mod.", A), "acc": 9.5}, None, "first", "module._orig_mod."),
    "nested": ({"model": A, "ema": {"module": B, "updates": 3}}, None, "second", "'ema' taken"),
    "a tensor beside it": ({"best_acc1": torch.tensor(0.5), "state_dict": A}, None, "first", "loaded"),
    "torchvision, model": (
        {"model": A, "model_ema": {"n_averaged": torch.tensor(1), **under("module.", B)}},
        "model",
        "first",
        "'model' taken; 'model_ema'",
    ),
    "an average of another name": (
        {"model": A, "swa_model": B},
        None,
        "second",
        "'swa_model' taken; 'model'",
    ),
    "ema_pytorch": (
        {**under("online_model.", A), **under("ema_model.", B), "initted": torch.tensor(True)},
        None,
        "second",
        "'ema_model' taken; 'online_model'",
    ),
    "lightly": (
        {"state_dict": {**under("backbone.", A), **under("backbone_momentum.", B)}},
        "momentum",
        "second",
        "'backbone_momentum' taken; 'backbone'",
    ),
    "a mapping in another": ({"state": {"model": A, "optimizer": {}}}, None, "first", "'state.model' taken"),
    "unknown names": ({"trunk": A, "other": B}, "other", "second", "'other' taken; 'trunk'"),
    "wrapped inside": (
        {
            key.replace("layer1.", "layer1._fsdp_wrapped_module._checkpoint_wrapped_module."): value
            for key, value in A.items()
        },
        None,
        "first",
        "_fsdp_wrapped_module.",
    ),
    "training only": (
        {"state_dict": {**A, "projector.0.weight": EXTRA}},
        None,
        "first",
        "projector.0.weight",
    ),
}


PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}


def in_places(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As of ``nn.Sequential(*list(network.children())[:-1])``, in which a ReLU has a place, too."""
    parts = [(key.partition("."), value) for key, value in state.items() if not key.startswith("linear.")]
    return {f"{prefix}{PLACES[part[0]]}.{part[2]}": value for part, value in parts}


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.encoder."])
def test_places_of_a_sequential_are_the_networks_parts(prefix: str, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {**in_places(prefix, A), "projection_head.0.weight": EXTRA}}, tmp_path / "x.pth"
    )
    said: list[str] = []
    network, info = load_encoder(tmp_path / "x.pth", NAME, say=said.append)
    assert info.num_classes == 0 and "nn.Sequential" in said[0]
    assert all(torch.equal(value, A[key]) for key, value in network.state_dict().items())


def test_another_sequential_is_not_taken_for_the_network(tmp_path: Path) -> None:
    state = in_places("", A)
    torch.save({key: value for key, value in state.items() if not key.startswith("6.")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth"):
        load_encoder(tmp_path / "x.pth", NAME)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.pth", {"module": {key: torch.zeros(0) for key in A}}, "ZeRO"),
        ("model.safetensors.index.json", {"weight_map": {}}, "join"),
    ],
)
def test_weights_that_lie_elsewhere(name: str, content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=words):
        load_encoder(tmp_path / name, NAME)


def test_a_field_called_format_does_not_make_a_checkpoint_ours(tmp_path: Path) -> None:
    torch.save({"format": "pt", "state_dict": A}, tmp_path / "x.pth")
    assert torch.equal(
        load_encoder(tmp_path / "x.pth", NAME)[0].state_dict()["conv1.weight"], A["conv1.weight"]
    )


@pytest.mark.parametrize("name", FILES)
def test_the_network_that_its_tool_takes_or_that_is_chosen(tmp_path: Path, name: str) -> None:
    content, which, wanted, said = FILES[name]
    torch.save(content, tmp_path / "x.pth")
    encoder = create_encoder(NAME, 10).eval()
    report = load_into(encoder, read_weights(tmp_path / "x.pth", which))
    assert_same(encoder, NETWORKS[wanted])
    assert report.matched == report.total and said in str(report)
    heard: list[str] = []
    assert_same(load_encoder(tmp_path / "x.pth", NAME, which, say=heard.append)[0], encoder)
    assert said in heard[0]


def test_arrays_and_projections_in_place_of_a_classifier(tmp_path: Path) -> None:
    arrays = {key: value.numpy() for key, value in A.items()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    assert_same(load_encoder(tmp_path / "x.pkl", NAME)[0], NETWORKS["first"])
    projection = {"module.encoder_q.linear.0.weight": EXTRA, "module.queue": EXTRA}
    torch.save({"state_dict": {**under("module.encoder_q.", A, None), **projection}}, tmp_path / "y.pth")
    heard: list[str] = []
    encoder, info = load_encoder(tmp_path / "y.pth", NAME, say=heard.append)
    assert info.num_classes == 0 and torch.equal(encoder.conv1.weight, A["conv1.weight"])
    assert "linear.0.weight" in heard[0]


def test_a_choice_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    torch.save(DINO, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth .*'queue'.*'teacher'.*'student'"):
        read_weights(tmp_path / "x.pth", "queue")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": torch.nn.Linear(2, 2)}, r"'model' is a whole object \(torch.nn.modules.linear.Linear\)"),
        ({"stem.conv1.weight": EXTRA, "res2.0.conv1.weight": EXTRA}, "MODEL.WEIGHTS"),
        ({f"resnet.embedder.{n}": EXTRA for n in range(3)}, r"'resnet\.'"),
    ],
)
def test_what_does_not_fit_is_called_by_its_name(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth.*{words}") as error:
        load_encoder(tmp_path / "x.pth", NAME)
    assert "run code" not in str(error.value) and "another architecture" not in str(error.value)
