"""Terms whose graphs are freed one by one: the gradients of the sum, in a fraction of its memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from automix_transfer.mixing.parts.freed import FreedLoss


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def loss_of(net: nn.Module, early: bool, terms: int = 2) -> Tensor:
    loss = FreedLoss(net.parameters(), early)
    for seed in range(terms):
        loss.add(net(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))).square().mean())
    return loss.total()


def grads(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("factor", [1.0, 0.25, 0.3])
def test_gradients_are_those_of_one_graph(factor: float) -> None:
    first, second = network(), network()
    losses = loss_of(first, early=True), loss_of(second, early=False)
    assert torch.equal(*losses)
    for loss in losses:
        (factor * loss).backward()
    assert len(grads(first)) == 6
    for a, b in zip(grads(first), grads(second), strict=True):
        # powers of two round nothing
        assert torch.equal(a, b) if factor != 0.3 else torch.allclose(a, b, rtol=1e-6)


def test_every_graph_is_gone_before_the_next_is_built() -> None:
    alive: list[int] = [0]
    most: list[int] = []

    class Held:
        """A saved tensor as long as autograd holds it."""

        def __init__(self, value: Tensor) -> None:
            self.value, alive[0] = value, alive[0] + 1

        def __del__(self) -> None:
            alive[0] -= 1

    for early in (True, False):
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.value):
            loss = loss_of(network(), early, terms=3)
        most.append(alive[0])
        loss.backward()
        del loss
    assert most[0] == 0 < most[1]


def test_gradients_add_to_what_is_there_and_can_be_taken_by_autograd_grad() -> None:
    net, other = network(), network()
    for _ in range(2):
        loss_of(net, early=True).backward()
    loss_of(other, early=True).backward()
    for a, b in zip(grads(net), grads(other), strict=True):
        assert torch.equal(a, b + b)
    taken = torch.autograd.grad(loss_of(other, early=True), list(other.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(taken, grads(other), strict=True))


def test_parameters_that_share_a_gradient_are_scaled_once() -> None:
    """Autograd may hand one tensor to two parameters."""
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    loss = FreedLoss([a, b])
    loss.add((a + b).sum())
    loss.add((a + b).sum())
    (3 * loss.total()).backward()
    assert torch.equal(a.grad, torch.full((3,), 6.0)) and torch.equal(b.grad, torch.full((3,), 6.0))


def test_what_takes_no_part_has_no_gradient_and_frozen_weights_are_left_alone() -> None:
    net, idle = network(), nn.Linear(2, 2)
    net[0].requires_grad_(False)
    loss = FreedLoss([*net.parameters(), *idle.parameters()])
    loss.add(net(torch.randn(5, 4)).square().mean())
    loss.total().backward()
    assert idle.weight.grad is None and net[0].weight.grad is None and net[2].weight.grad is not None


def test_half_precision_keeps_the_graph_for_the_scaler() -> None:
    net = network()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = FreedLoss(net.parameters())
        loss.add(net(torch.randn(5, 4)).square().mean())
    assert loss.gradients == [None] * 6 and loss.total().requires_grad


def test_without_gradients_it_is_a_sum_and_a_second_backward_is_refused() -> None:
    net = network()
    with torch.no_grad():
        assert not loss_of(net, early=True).requires_grad
    loss = loss_of(net, early=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="early=False"):
        loss.backward()
