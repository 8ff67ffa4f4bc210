"""What a step costs, counted by torch's FLOP counter on tensors without data, and that a step never waits for
a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from automix_transfer.mixing import build_method
from automix_transfer.models import create_encoder
from automix_transfer.models.taps import features

BATCH = 16


class NoModules:
    """In place of the counter's module tracker, which cannot follow `torch.autograd.grad` within a forward
    pass."""

    parents = frozenset({"Global"})

    def __enter__(self) -> NoModules:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def flops(run: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()
    with counter:
        run()
    return counter.get_total_flops()


def take_step(method: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    method(images, labels, torch.Generator().manual_seed(0)).loss.backward()


def step_flops(name: str, stem: str, size: int, encoder: str = "resnet18", **options: Any) -> int:
    """Of one step."""
    method = build_method(name, create_encoder(encoder, 100, stem), options).to("meta")
    images, labels = (
        torch.empty(BATCH, 3, size, size, device="meta"),
        torch.empty(BATCH, dtype=torch.long, device="meta"),
    )
    return flops(lambda: take_step(method, images, labels))


@pytest.mark.parametrize(
    "encoder, stem, size, most",
    [
        ("resnet18", "cifar", 32, 2.94),
        ("resnet18", "imagenet", 224, 2.97),
        pytest.param("resnet50", "imagenet", 224, 2.97, marks=pytest.mark.slow),
    ],
)
def test_a_step_costs_at_most(encoder: str, stem: str, size: int, most: float) -> None:
    ratio = step_flops("automix", stem, size, encoder) / step_flops("vanilla", stem, size, encoder)
    assert 2.8 < ratio <= most


#: options -> passes in place of 8.8: q mixed + q clean + k clean to the layer + generator, each in forward
#: passes of the encoder
CANDIDATES: dict[str, tuple[dict[str, Any], Callable[[float], tuple[float, float, float, float]]]] = {
    "robust": ({}, lambda z: (1, 1, z, 2)),
    "without clean": ({"clean_share": 0.0}, lambda z: (1, 0, z, 2)),
    "clean on a quarter": ({"clean_share": 0.25}, lambda z: (1, 0.25, z, 2)),
    "generator on a quarter": ({"generator_share": 0.25}, lambda z: (1, 1, z, 0.5)),
    "features at half size": ({"features_scale": 0.5}, lambda z: (1, 1, z / 4, 2)),
    "mixed on half": ({"mixed_share": 0.5}, lambda z: (0.5, 1, z, 2)),
    "fast": ({"preset": "fast"}, lambda z: (0.5, 0.5, z, 0.5)),
    "openmixup": ({"preset": "openmixup"}, lambda z: (1, 1, 1, 2)),
}


@pytest.fixture(scope="module")
def parts() -> dict[str, float]:
    """FLOPs of one pass forward, of one up to the layer, and of a vanilla step."""
    encoder, images = (
        create_encoder("resnet18", 100).to("meta"),
        torch.empty(BATCH, 3, 224, 224, device="meta"),
    )
    with torch.no_grad():
        forward, part = flops(lambda: encoder(images)), flops(lambda: features(encoder, images, "layer3"))
    return {"forward": forward, "part": part, "vanilla": step_flops("vanilla", "imagenet", 224)}


@pytest.mark.parametrize("name", CANDIDATES)
def test_each_approximation_costs_what_it_says(name: str, parts: dict[str, float]) -> None:
    options, passes = CANDIDATES[name]
    mixed, clean, looked, generated = passes(parts["part"] / parts["forward"])
    cost = step_flops("automix", "imagenet", 224, **options)
    least = (mixed + clean) * parts["vanilla"] + (looked + generated) * parts["forward"]
    # the Mix Block; and half of 7x7 is 4x4, in two of the passes
    assert 0 < cost - least < 0.06 * parts["forward"]
    if name == "fast":
        assert cost <= 1.5 * parts["vanilla"]


class NeverWait(TorchDispatchMode):
    """Raises where a step would make the CPU wait for the device: a value read, or a copy from or to it that
    is not asynchronous."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, resolve_name(func) or str(func)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        out = func(*args, **kwargs)
        devices = {t.device.type for t in tensors} | (
            {out.device.type} if isinstance(out, torch.Tensor) else set()
        )
        scalars = all(t.ndim == 0 for t in tensors if t.device.type == "cpu")
        if "_local_scalar_dense" in name and "meta" in devices:
            raise AssertionError(f"{name} reads a value from the device")
        if (
            devices == {"cpu", "meta"}
            and not scalars
            and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True))
        ):
            raise AssertionError(f"{name} copies between devices and waits")
        return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "openmixup"},
        {"preset": "fast"},
        {"mask": "random_grids"},
        {"pipeline": "joint"},
        {"smoothing": 0.1, "loss": "bce"},
        {"mask_variance_weight": 2.0, "features_scale": 0.5},
    ],
)
def test_a_step_never_waits_for_the_device(options: dict[str, Any]) -> None:
    """Tensors without data have no values to wait for: reading one raises by itself, copying one is caught
    here."""
    method = build_method("automix", create_encoder("resnet10_32", 10), options).to("meta")
    images, labels = torch.empty(8, 3, 64, 64, device="meta"), torch.empty(8, dtype=torch.long, device="meta")
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    with NeverWait():
        for _ in range(2):
            take_step(method, images, labels)
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(0.5)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: x[torch.tensor([1, 0]).to(x.device)],
        lambda x: x.cpu(),
        lambda x: bool((x > 0).any()),
        lambda x: torch.ones(3).to(x.device),
    ],
)
def test_what_waits_is_caught(wait: Callable[[torch.Tensor], Any]) -> None:
    with NeverWait(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(torch.empty(2, 3, device="meta"))
