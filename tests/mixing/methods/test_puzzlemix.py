"""PuzzleMix: minimum cuts against brute force and scipy, its prices against loops, transport against its
definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow

from automix_transfer.errors import UserError
from automix_transfer.mixing.methods.puzzlemix import (
    PuzzleMix,
    PuzzleMixDraw,
    PuzzleMixOptions,
    mask_problem,
    solve_masks,
    transport_blocks,
)
from automix_transfer.mixing.parts.grid_labels import solve_grid
from automix_transfer.mixing.parts.mincut import adjacency, max_flow
from automix_transfer.mixing.parts.saliency import (
    block_means,
    block_shares,
    input_saliency,
    saliency_with_loss,
)
from automix_transfer.mixing.parts.transport import distance_costs, move_blocks, plan_transport
from automix_transfer.models.encoders import EncoderInfo
from tests.mixing.tiny_methods import SIZE, batch, tiny_method, tiny_resnet

SEEDS = st.integers(0, 10_000)
INFO = EncoderInfo("none", 4, image_size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def puzzle(**options: Any) -> PuzzleMix:
    """The method without a network, which is not asked where the saliency is given."""
    method = PuzzleMix(torch.nn.Identity(), PuzzleMixOptions(**options))
    method.prepare(INFO)
    return method


# The solver


def energy(labels: np.ndarray, unary: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Σ unary + Σ w·((l - l')/(n-1))² of labels (N, h, w), which `solve_grid` makes least."""
    share = labels / (unary.shape[3] - 1)
    cells = np.take_along_axis(unary, labels[..., None].astype(np.int64), axis=3)[..., 0].sum(axis=(1, 2))
    below = (down * np.diff(share, axis=1) ** 2).sum(axis=(1, 2))
    return cells + below + (right * np.diff(share, axis=2) ** 2).sum(axis=(1, 2))


@settings(max_examples=25)
@given(seed=SEEDS, nodes=st.integers(2, 9), dense=st.floats(0.2, 0.9))
def test_flows_are_scipys(seed: int, nodes: int, dense: float) -> None:
    random = np.random.default_rng(seed)
    capacity = random.integers(0, 50, (nodes, nodes)) * (random.random((nodes, nodes)) < dense)
    np.fill_diagonal(capacity, 0)
    pairs = [(i, j) for i in range(nodes) for j in range(i + 1, nodes)]
    heads = np.array([end for i, j in pairs for end in (j, i)], np.int64)
    left = np.array([c for i, j in pairs for c in (capacity[i, j], capacity[j, i])], np.int64)
    start, arcs = adjacency(heads, nodes)
    full = left.copy()
    value, level = max_flow(start, arcs, heads, left, 0, nodes - 1)
    assert value == maximum_flow(csr_matrix(capacity.astype(np.int32)), 0, nodes - 1).flow_value
    side = level >= 0
    assert side[0] and not side[-1]
    # max-flow = min-cut
    assert value == sum(c for a, c in enumerate(full) if side[heads[a ^ 1]] and not side[heads[a]])
    assert (left >= 0).all()


@pytest.mark.parametrize(
    "height, width, levels", [(2, 2, 3), (2, 3, 3), (1, 4, 3), (3, 3, 2), (2, 2, 4), (1, 1, 3)]
)
def test_grid_labels_are_optimal(height: int, width: int, levels: int) -> None:
    random = np.random.default_rng(height * 10 + width)
    unary = random.normal(size=(12, height, width, levels)) * 10.0 ** random.integers(-8, 4, (12, 1, 1, 1))
    down, right = (random.random((12, height - 1, width)), random.random((12, height, width - 1)))
    scale = np.abs(unary).max(axis=(1, 2, 3))[:, None, None]
    found = energy(solve_grid(unary, down * scale, right * scale), unary, down * scale, right * scale)
    every = np.array(list(itertools.product(range(levels), repeat=height * width))).reshape(-1, height, width)
    for n in range(12):
        one = [
            np.broadcast_to(part[n], (len(every), *part[n].shape))
            for part in (unary, down * scale, right * scale)
        ]
        assert found[n] == pytest.approx(energy(every, *one).min(), abs=1e-9 * scale[n, 0, 0])


def iterated(unary: np.ndarray, down: np.ndarray, right: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Iterated conditional modes: each cell in turn takes its best label."""
    labels = start.copy()
    for _ in range(10):
        for y, x in np.ndindex(labels.shape[1:]):
            tried = []
            for label in range(unary.shape[3]):
                labels[:, y, x] = label
                tried.append(energy(labels, unary, down, right))
            labels[:, y, x] = np.argmin(tried, axis=0)
    return labels


def test_energies_are_never_above_a_heuristics() -> None:
    """Peaky saliency is where the authors' solver overflows: one block holds nearly everything."""
    saliency = torch.rand(8, 32, 32, generator=rng(0)) ** 12
    saliency[:4, 5, 7] = 1e6
    options, draw = PuzzleMixOptions(), PuzzleMixDraw(0.4, torch.randperm(8, generator=rng(1)), 4)
    plain = torch.rand(8, 3, 32, 32, generator=rng(2))
    unary, down, right = (
        part.double().numpy() for part in mask_problem(plain, block_shares(saliency, (4, 4)), draw, options)
    )
    exact = energy(solve_grid(unary, down, right), unary, down, right)
    for start in (unary.argmin(axis=3), np.zeros((8, 4, 4), int), np.full((8, 4, 4), 2)):
        assert (exact <= energy(iterated(unary, down, right, start), unary, down, right) + 1e-9).all()


def test_threads_do_not_change_the_masks() -> None:
    unary = np.random.default_rng(0).normal(size=(9, 4, 4, 3))
    down, right = np.full((9, 3, 4), 0.3), np.full((9, 4, 3), 0.3)
    assert np.array_equal(
        solve_grid(unary, down, right, threads=1), solve_grid(unary, down, right, threads=4)
    )


# The problem


def test_prices_are_those_of_the_definition() -> None:
    """Every label's total, written out with loops: unary terms, seams of what is shown, smoothness, prior."""
    options, b, n = PuzzleMixOptions(seam_size=4), 4, 3
    plain, saliency = (
        torch.rand(2, 3, 32, 32, generator=rng(0)).double(),
        torch.rand(2, 32, 32, generator=rng(1)).double(),
    )
    draw = PuzzleMixDraw(0.3, torch.tensor([1, 0]), b)
    shares = block_shares(saliency, (b, b)).double()
    unary, down, right = mask_problem(plain, shares, draw, options)
    # only pure blocks, for which seams have a plain meaning
    labels = torch.randint(0, 2, (2, b, b), generator=rng(2)) * 2
    found = energy(labels.numpy(), unary.double().numpy(), down.double().numpy(), right.double().numpy())
    beta = 1.2 / (16 * b)
    small = block_means(plain, (8, 8))
    for i, j in ((0, 1), (1, 0)):
        shown = [i, None, j]  # label 0 shows image i, 2 its partner
        total = 0.0
        for y, x in np.ndindex(b, b):
            label = int(labels[i, y, x])
            probability = 0.3**2 if label == 0 else 0.7**2
            total += float(shares[j if label == 0 else i, y, x]) - 0.2 / b**2 * np.log(probability + 1e-8)
            for dy, dx in ((1, 0), (0, 1)):
                if y + dy < b and x + dx < b:
                    other = int(labels[i, y + dy, x + dx])

                    def seam(upper: int, lower: int, y: int = y, x: int = x, dy: int = dy) -> float:
                        if dy:
                            cells = (
                                small[upper][:, 2 * y + 1, 2 * x : 2 * x + 2]
                                - small[lower][:, 2 * y + 2, 2 * x : 2 * x + 2]
                            )
                        else:
                            cells = (
                                small[upper][:, 2 * y : 2 * y + 2, 2 * x + 1]
                                - small[lower][:, 2 * y : 2 * y + 2, 2 * x + 2]
                            )
                        return beta * 0.5 * float(cells.abs().mean())

                    # the split into single and pairwise terms adds the same to every choice
                    total += (
                        seam(shown[label], shown[other])
                        + (seam(i, j) + seam(j, i)) / 2
                        + beta * (label != other)
                    )
        assert found[i] == pytest.approx(total, abs=1e-5)
    assert unary.shape == (2, b, b, n)


@settings(max_examples=15)
@given(
    seed=SEEDS,
    kind=st.sampled_from(["zero", "nan", "inf", "tiny", "huge"]),
    blocks=st.sampled_from([2, 3, 4]),
    size=st.sampled_from([(12, 12), (24, 12), (36, 60)]),
    channels=st.sampled_from([1, 3]),
)
def test_odd_saliency_still_gives_masks(
    seed: int, kind: str, blocks: int, size: tuple[int, int], channels: int
) -> None:
    images = torch.randn(2, channels, *size, generator=rng(seed))
    saliency = {
        "zero": torch.zeros(2, *size),
        "nan": torch.full((2, *size), torch.nan),
        "inf": torch.full((2, *size), torch.inf),
        "tiny": torch.rand(2, *size, generator=rng(seed)) * 1e-38,
        "huge": torch.rand(2, *size, generator=rng(seed)) * 1e37,
    }[kind]
    draw = PuzzleMixDraw(0.5, torch.tensor([1, 0]), blocks)
    mixed = puzzle().mix_salient(images, torch.zeros(len(images)), draw, saliency)
    assert torch.isfinite(mixed.images).all() and set((2 * mixed.mask).unique().tolist()) <= {0.0, 1.0, 2.0}
    assert torch.allclose(torch.as_tensor(mixed.lam), mixed.mask.mean(dim=(1, 2, 3)), atol=1e-6)
    assert torch.allclose(block_shares(saliency, (blocks, blocks)).sum(dim=(1, 2)), torch.ones(2))


def test_an_image_mixed_with_itself_is_itself() -> None:
    images = torch.randn(3, 3, 16, 16, generator=rng(0))
    draw = PuzzleMixDraw(0.5, torch.arange(3), 4)
    mixed = puzzle(transport=False).mix_salient(images, torch.zeros(len(images)), draw, torch.rand(3, 16, 16))
    assert torch.allclose(mixed.images, images)


def test_masks_show_what_is_salient() -> None:
    saliency = torch.full((2, 16, 16), 0.01)
    saliency[0, :, :8], saliency[1, :, 8:] = 1.0, 1.0
    draw = PuzzleMixDraw(0.5, torch.tensor([1, 0]), 4)
    masks = solve_masks(
        torch.full((2, 3, 16, 16), 0.5), block_shares(saliency, (4, 4)), draw, PuzzleMixOptions()
    )
    assert (
        (masks[0, :, :2] == 1).all() and (masks[0, :, 2:] == 0).all() and torch.equal(masks[1], 1 - masks[0])
    )


# Saliency


def test_saliency_is_the_gradients_size() -> None:
    encoder, images, labels = tiny_resnet().eval(), torch.randn(3, 3, SIZE, SIZE), torch.tensor([0, 1, 2])
    found = input_saliency(encoder, images, labels)
    for n in range(3):
        one = images[n : n + 1].clone().requires_grad_(True)
        torch.nn.functional.cross_entropy(encoder(one), labels[n : n + 1]).backward()
        assert torch.allclose(found[n], one.grad[0].square().mean(dim=0).sqrt(), atol=1e-6)
    assert all(p.grad is None for p in tiny_resnet().parameters())


def test_the_clean_loss_trains_as_if_it_had_been_computed_alone() -> None:
    encoder, images, labels = tiny_resnet().train(), torch.randn(4, 3, SIZE, SIZE), torch.tensor([0, 1, 2, 2])
    saliency, loss = saliency_with_loss(encoder, images, labels)
    (3 * loss).backward()
    kept = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    plain = torch.nn.functional.cross_entropy(encoder(images), labels)
    (3 * plain).backward()
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)
    for one, other in zip(kept, encoder.parameters(), strict=True):
        assert torch.allclose(one, other.grad, atol=1e-5, rtol=1e-4)
    assert saliency.shape == (4, SIZE, SIZE)


def test_the_clean_loss_in_float16_goes_through_the_scaler() -> None:
    """Small gradients, which float16 loses unless the loss was scaled before they were taken."""
    torch.manual_seed(0)
    encoder, images, labels = tiny_resnet().train(), torch.randn(4, 3, SIZE, SIZE), torch.tensor([0, 1, 2, 2])

    def gradients(loss: torch.Tensor, scale: float) -> list[torch.Tensor]:
        encoder.zero_grad()
        (scale * loss).backward()
        return [p.grad / scale for p in encoder.parameters()]

    with torch.no_grad():
        encoder.fc.weight *= 1e-6  # the features' gradients below float16's least number
    exact = gradients(torch.nn.functional.cross_entropy(encoder(images), labels), 1.0)
    with torch.autocast("cpu", torch.float16):
        _, loss = saliency_with_loss(encoder, images, labels)
    found = gradients(loss, 2.0**14)
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() <= 0.25 * other.norm() + 1e-12


def test_the_saliency_pass_leaves_no_trace() -> None:
    method = tiny_method("puzzlemix").train()
    before = {name: value.clone() for name, value in method.named_buffers()}
    images, labels = batch(method)
    input_saliency(method.encoder, images, labels)
    assert method.encoder.training and all(
        torch.equal(value, before[name]) for name, value in method.named_buffers()
    )
    assert all(p.grad is None for p in method.parameters())


# Transport


def by_definition(shares: torch.Tensor, mask: torch.Tensor, strength: float, rounds: int) -> torch.Tensor:
    """One image's plan with full matrices, as the rounds are described."""
    places = shares.numel()
    cost = strength * distance_costs(tuple(shares.shape), shares.device) - shares.reshape(-1, 1) * (
        mask.reshape(1, -1) > 0
    )
    for _ in range(rounds):
        wanted = cost.argmin(dim=1)
        winner = {}
        for row in range(places):
            place = int(wanted[row])
            if place not in winner or cost[row, place] < cost[winner[place], place]:
                winner[place] = row
        losers = [row for row in range(places) if winner[int(wanted[row])] != row]
        for row in losers:
            cost[row, wanted[row]] += 1
    return torch.tensor([winner.get(place, place) for place in range(places)])


@settings(max_examples=20)
@given(seed=SEEDS, size=st.sampled_from([(2, 2), (3, 4), (4, 4)]), strength=st.sampled_from([0.0, 0.05, 0.8]))
def test_plans_are_those_of_the_rounds(seed: int, size: tuple[int, int], strength: float) -> None:
    shares = torch.rand(3, *size, generator=rng(seed)) ** 4
    shares /= shares.sum(dim=(1, 2), keepdim=True)
    masks = torch.randint(0, 3, (3, *size), generator=rng(seed)) / 2
    plans = plan_transport(shares, masks, strength)
    for n in range(3):
        assert torch.equal(plans[n], by_definition(shares[n], masks[n], strength, max(size)))


def test_a_full_mask_moves_nothing_and_identity_plans_change_nothing() -> None:
    shares = block_shares(torch.rand(2, 16, 16, generator=rng(0)), (4, 4))
    assert torch.equal(plan_transport(shares, torch.ones(2, 4, 4)), torch.arange(16).expand(2, 16))
    images = torch.randn(2, 3, 8, 12)
    assert torch.equal(move_blocks(images, torch.arange(8).expand(2, 8), (2, 4)), images)
    swapped = move_blocks(images, torch.tensor([[1, 0, 2, 3, 4, 5, 6, 7]] * 2), (2, 4))
    assert torch.equal(swapped[:, :, :4, :3], images[:, :, :4, 3:6]) and torch.equal(
        swapped[:, :, 4:], images[:, :, 4:]
    )


def test_moving_blocks_divide_those_of_the_mask() -> None:
    assert transport_blocks((32, 32), 2, 4) == (8, 8)
    assert transport_blocks((32, 32), 16, 4) == (16, 16)
    # 14-pixel blocks, on which the released code fails
    assert transport_blocks((224, 224), 16, 4) == (16, 16)
    assert transport_blocks((224, 224), 4, 16) == (16, 16) and transport_blocks((224, 224), 4, 4) == (16, 16)
    assert transport_blocks((64, 64), 32, 4) == (32, 32)  # those of the mask, however many
    assert transport_blocks((32, 64), 4, 0) == (4, 4)


def test_block_counts_must_divide_the_image() -> None:
    method = PuzzleMix(tiny_resnet(), PuzzleMixOptions(blocks=[2, 3]))
    with pytest.raises(UserError, match="32x32.*2, 4, 8"):
        method.check_size((32, 32))
