"""The moving average of the weights beside a method: by hand, for every method, and left alone by it."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from automix_transfer.mixing.average import Averaged, method_state
from tests.mixing.tiny_methods import EVERY, batch, tiny_method


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def steps(method, count: int = 3) -> list[float]:
    images, labels = batch(method)
    optimizer = torch.optim.SGD(
        [p for group in method.parameter_groups() for _, p in group["params"]], lr=0.05
    )
    losses = []
    for step in range(count):
        loss = method(images, labels, rng(step)).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step((step + 1) / count)
    return losses


@pytest.mark.parametrize(("warmup", "end"), [(False, None), (True, None), (False, 1.0)])
def test_the_average_is_the_sum_by_hand(warmup: bool, end: float | None) -> None:
    method = Averaged(tiny_method("vanilla"), 0.9, warmup=warmup, decay_end=end)
    encoder, (images, labels) = method.encoders()["encoder"], batch(method)
    expected = {key: value.clone() for key, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for step in range(1, 5):
        method(images, labels, rng()).loss.backward()
        optimizer.step()
        method.after_step(step / 4)
        m = min(0.9, step / (step + 9)) if warmup else 0.9
        m = (
            m if end is None else end - (end - m) * (math.cos(math.pi * step / 4) + 1) / 2
        )  # Eq. 12's schedule
        now = encoder.state_dict()
        expected = {
            k: m * v + (1 - m) * now[k] if v.is_floating_point() else now[k].clone()
            for k, v in expected.items()
        }
    found = method.inference_encoder().state_dict()
    assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in expected.items())
    assert not torch.equal(found["fc.weight"], now["fc.weight"])


@pytest.mark.parametrize("name", EVERY)
def test_it_takes_no_part_in_any_method(name: str) -> None:
    torch.manual_seed(0)
    alone = tiny_method(name)
    averaged = Averaged(copy.deepcopy(alone), 0.99)
    assert len(averaged.view_transforms()) == len(alone.view_transforms())
    torch.manual_seed(1)
    losses = steps(alone)
    torch.manual_seed(1)
    assert steps(averaged) == losses
    state = method_state(averaged.state_dict())
    assert (
        state.keys() == alone.state_dict().keys() and method_state(alone.state_dict()).keys() == state.keys()
    )
    assert all(
        torch.equal(value, state[key])
        for key, value in alone.state_dict().items()
        if isinstance(value, torch.Tensor)
    )
    assert {n for group in averaged.parameter_groups() for n, _ in group["params"]} == {
        n for n, p in averaged.named_parameters() if p.requires_grad
    }


def test_who_is_averaged_and_who_is_for_inference() -> None:
    method = Averaged(tiny_method("automix"), 0.99)
    assert list(method.encoders()) == ["ema", "k", "q"] and method.trained is method.encoders()["q"]
    assert list(Averaged(tiny_method("automix"), 0.99, inference=False).encoders()) == ["k", "q", "ema"]
    assert all(not p.requires_grad for p in method.average.parameters())
