"""Devices by name, on machines that this one is not: only what torch says of the accelerator is replaced."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from automix_transfer.commands import doctor_report
from automix_transfer.data.loader import loader_options
from automix_transfer.device import choose_device, device_name, widest_float
from automix_transfer.errors import UserError
from automix_transfer.host.launched import LAUNCHER
from automix_transfer.training import joining


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``having("xpu", 2)``: this torch sees so many accelerators of a type; the number that is chosen is
    returned as the only item of a list."""

    def set_up(kind: str | None, count: int = 1) -> list[int]:
        chosen: list[int] = []
        found = torch.device(kind) if kind else None
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(
            torch.accelerator, "set_device_index", lambda device: chosen.append(torch.device(device).index)
        )
        return chosen

    for key in LAUNCHER:
        monkeypatch.delenv(key, raising=False)
    return set_up


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_auto_is_the_accelerator_that_is_there(having: Any, kind: str) -> None:
    having(kind)
    assert choose_device("auto") == torch.device(kind) == choose_device(kind)
    assert choose_device("auto", number=0) == torch.device(kind, 0) == choose_device(f"{kind}:0")
    assert choose_device("cpu", number=0) == torch.device("cpu")


def test_without_an_accelerator_auto_is_the_cpu(having: Any) -> None:
    having(None, 0)
    assert choose_device("auto", number=0) == torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "count", "asked"),
    [
        (None, 0, "cuda"),
        ("cuda", 1, "cuda:1"),
        ("cuda", 1, "mps"),
        ("mps", 1, "cuda"),
        ("mps", 1, "mps:1"),
        ("xpu", 2, "xpu:2"),
        ("cuda", 1, "meta"),
        ("cuda", 1, "gpu"),
        ("cuda", 1, ""),
        ("cuda", 1, "cuda:x"),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name(
    having: Any, kind: str | None, count: int, asked: str
) -> None:
    having(kind, count)
    with pytest.raises(UserError, match=f"train.device={asked} ") as caught:
        joining.start(asked)
    assert "\n" not in str(caught.value)


def test_each_process_takes_the_accelerator_of_its_number(
    having: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str] = []
    monkeypatch.setattr(joining, "join", lambda rank, size, backend, minutes: joined.append(backend))
    for name, value in zip(LAUNCHER, ("3", "4", "1", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    for kind, backend in (("cuda", "cpu:gloo,cuda:nccl"), ("xpu", "cpu:gloo,xpu:xccl")):
        chosen = having(kind, 2)
        assert joining.start("auto").device == torch.device(kind, 1)
        assert chosen == [1] and joined.pop() == backend
    assert joining.start("cpu").device == torch.device("cpu") and joined.pop() == "gloo"
    having("xpu", 1)
    with pytest.raises(UserError, match="train.device=auto .*fewer processes"):
        joining.start("auto")


def test_memory_is_pinned_for_those_that_can(having: Any) -> None:
    for kind, pinned in (("cuda", True), ("xpu", True), ("mps", False), (None, False)):
        having(kind)
        assert loader_options(0, 0)["pin_memory"] is pinned


def test_mps_has_no_float64() -> None:
    assert widest_float(torch.device("mps")) == torch.float32
    assert widest_float(torch.device("cpu")) == widest_float(torch.device("cuda")) == torch.float64


def test_the_doctor_names_any_accelerator(having: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    having("xpu", 2)
    module = SimpleNamespace(
        get_device_name=lambda device: f"Arc {device.index}",
        get_device_properties=lambda device: SimpleNamespace(total_memory=16e9),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert doctor_report.devices() == ["Arc 0, 16 GB, xpu", "Arc 1, 16 GB, xpu"]
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert doctor_report.devices() == [f"{device_name(torch.device('cpu'))}, xpu"] * 2
    having(None)
    assert doctor_report.devices()[0].startswith("no GPU")
