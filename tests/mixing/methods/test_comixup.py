"""Co-Mixup: its labelling against brute force and plain coordinate descent, its objective, its labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automix_transfer.mixing.methods.comixup import (
    CoMixup,
    CoMixupDraw,
    CoMixupOptions,
    partitions,
    similarity,
    solve_shares,
)
from automix_transfer.mixing.parts.comixup_solver import label_outputs, objective, one_output, push_apart
from automix_transfer.mixing.parts.potts import label_output, labelling_energy, neighbour_pairs

SEEDS = st.integers(0, 10_000)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_labelling(cells: int, labels: int) -> np.ndarray:
    return np.array(list(itertools.product(range(labels), repeat=cells)))


@settings(max_examples=40)
@given(
    seed=SEEDS,
    size=st.sampled_from([(2, 2), (1, 4), (2, 3)]),
    labels=st.integers(2, 4),
    beta=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
)
def test_labels_of_one_output_are_optimal_on_tiny_grids(
    seed: int, size: tuple[int, int], labels: int, beta: float
) -> None:
    random, pairs = np.random.default_rng(seed), neighbour_pairs(*size)
    cells = size[0] * size[1]
    unary, distance = random.normal(size=(cells, labels)), beta * (1 - np.eye(labels))
    start = random.integers(0, labels, cells)
    found = labelling_energy(label_output(unary, start, distance, pairs), unary, distance, pairs)
    best = min(
        labelling_energy(candidate, unary, distance, pairs) for candidate in every_labelling(cells, labels)
    )
    assert found <= labelling_energy(start, unary, distance, pairs) + 1e-12
    assert found >= best - 1e-12
    if labels == 2:
        assert found == pytest.approx(best, abs=1e-9)  # one swap is the minimum cut
    else:
        assert found <= best + 0.1 * abs(best)  # alpha-beta swaps end in a strong local optimum


def coordinate_descent(
    costs: np.ndarray,
    similar: np.ndarray,
    start: np.ndarray,
    size: tuple[int, int],
    beta: float,
    gamma: float,
    rounds: int,
) -> np.ndarray:
    """Plain: each output in turn takes the labelling that is best by trying all of them."""
    inputs, cells = costs.shape
    shares, every = np.eye(inputs)[start], every_labelling(cells, inputs)
    for _ in range(rounds):
        for j in range(len(start)):
            tried = []
            for labels in every:
                shares[j] = np.eye(inputs)[labels]
                tried.append(objective(shares, costs, similar, size, beta, gamma))
            shares[j] = np.eye(inputs)[every[int(np.argmin(tried))]]
    return shares


@pytest.mark.parametrize("seed", range(6))
def test_objective_is_no_worse_than_plain_coordinate_descent(seed: int) -> None:
    """With a threshold of 0 every shared input counts, and a round is exact coordinate descent; the extra
    labels can only help."""
    random, size, inputs = np.random.default_rng(seed), (2, 2), 3
    costs = -random.dirichlet(np.ones(4), inputs)
    start = random.integers(0, inputs, (inputs, 4))
    beta, gamma, similar = 0.32 / 4, 1 / 4, np.eye(inputs)
    began = objective(np.eye(inputs)[start], costs, similar, size, beta, gamma)
    for rounds in (1, 2, 4):
        ours = objective(
            label_outputs(costs, similar, start, size, beta, gamma, 0.0, rounds),
            costs,
            similar,
            size,
            beta,
            gamma,
        )
        assert ours <= began + 1e-12
        if rounds == 1:  # the same moves
            plain = objective(
                coordinate_descent(costs, similar, start, size, beta, gamma, 1),
                costs,
                similar,
                size,
                beta,
                gamma,
            )
            assert ours <= plain + 1e-9


@settings(max_examples=15)
@given(
    seed=SEEDS,
    inputs=st.integers(1, 5),
    threshold=st.sampled_from([0.0, 3.3, 100.0]),
    omega=st.sampled_from([0.0, 0.001, 0.5]),
)
def test_objective_never_ends_above_its_start(seed: int, inputs: int, threshold: float, omega: float) -> None:
    random = np.random.default_rng(seed)
    costs = -random.dirichlet(np.ones(16) * 0.2, inputs)
    similar = (1 - omega) * np.eye(inputs) + omega * random.random((inputs, inputs))
    start = random.integers(0, inputs, (inputs, 16))
    shares = label_outputs(costs, similar, start, (4, 4), 0.02, 1 / 16, threshold, 4)
    before = objective(np.eye(inputs)[start], costs, similar, (4, 4), 0.02, 1 / 16)
    assert objective(shares, costs, similar, (4, 4), 0.02, 1 / 16) <= before + 1e-12
    assert np.allclose(shares.sum(axis=2), 1) and set(np.unique(shares)) <= {0.0, 0.5, 1.0}


def test_objective_is_the_sum_written_out() -> None:
    random = np.random.default_rng(0)
    shares, costs, similar = (
        random.dirichlet(np.ones(3), (2, 4)),
        random.normal(size=(3, 4)),
        random.random((3, 3)),
    )
    total = sum(costs[k, c] * shares[j, c, k] for j in range(2) for c in range(4) for k in range(3))
    total += sum(
        0.35 * ((shares[j, p] - shares[j, q]) ** 2).sum()
        for j in range(2)
        for p, q in ((0, 1), (2, 3), (0, 2), (1, 3))
    )
    counts = shares.sum(axis=1)
    total += 1.5 * sum(counts[j] @ similar @ counts[other] for j, other in ((0, 1), (1, 0)))
    assert objective(shares, costs, similar, (2, 2), 0.7, 1.5) == pytest.approx(total)


def test_a_cell_may_show_two_inputs_by_halves() -> None:
    unary = np.full((4, 3), 1.0)
    unary[0, 0], unary[1, 1], unary[2:, :2] = 0.0, 0.0, 0.5
    current = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    shares = one_output(unary, current, neighbour_pairs(2, 2), 0.2, halves=True)
    assert np.allclose(shares[2:, :2], 0.5) and np.allclose(shares[0], [1, 0, 0])
    assert set(np.unique(one_output(unary, current, neighbour_pairs(2, 2), 0.2, halves=False))) == {0.0, 1.0}


def test_equal_outputs_are_pushed_apart() -> None:
    extra = push_apart(np.array([[2.0, 2, 0], [3, 1, 0], [0, 4, 0], [0, 4, 0]]))
    assert extra.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]


@settings(max_examples=12)
@given(
    seed=SEEDS,
    count=st.integers(2, 9),
    kind=st.sampled_from(["random", "zero", "nan"]),
    partition=st.integers(2, 6),
    channels=st.sampled_from([1, 3]),
)
def test_images_and_labels_have_the_same_shares(
    seed: int, count: int, kind: str, partition: int, channels: int
) -> None:
    """Constant images with the value of their number: what an output shows can be read off its pixels."""
    options = CoMixupOptions(partition=partition)
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, channels, 8, 12)
    saliency = {
        "random": torch.rand(count, 8, 12, generator=rng(seed)) ** 6,
        "zero": torch.zeros(count, 8, 12),
        "nan": torch.full((count, 8, 12), torch.nan),
    }[kind]
    method = CoMixup(torch.nn.Identity(), options)
    method.classes = count
    draw = method.draw(count, (8, 12), rng(seed))
    labels = torch.arange(count)  # a class each, so that labels are shares of images
    found = method.mix_salient(images, labels, draw, saliency)
    mixed, targets, own = found.images, found.targets, found.mask
    assert torch.allclose(targets.sum(dim=1), torch.ones(count), atol=1e-6)
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets @ torch.arange(count).float(), atol=1e-4)
    assert torch.allclose(own.mean(dim=(1, 2, 3)), targets.diagonal(), atol=1e-6)
    for begin, end in partitions(count, partition):
        outside = targets[begin:end].clone()
        outside[:, begin:end] = 0
        assert outside.sum() == 0


def test_an_image_alone_in_its_partition_stays_itself() -> None:
    images = torch.randn(3, 3, 8, 8)
    method = CoMixup(torch.nn.Linear(1, 2), CoMixupOptions(partition=2))
    draw = method.draw(3, (8, 8), rng(0))
    mixed = method.mix_salient(images, torch.tensor([0, 1, 1]), draw, torch.rand(3, 8, 8))
    assert torch.equal(mixed.images[2], images[2]) and mixed.targets[2].tolist() == [0, 1]


def test_threads_do_not_change_the_labels() -> None:
    options, saliency = CoMixupOptions(partition=4), torch.rand(12, 8, 8, generator=rng(0)) ** 8
    draw = CoMixup(torch.nn.Identity(), options).draw(12, (8, 8), rng(1))
    for one, other in zip(
        solve_shares(saliency, draw, options, 1), solve_shares(saliency, draw, options, 3), strict=True
    ):
        assert torch.equal(one, other)


def test_salient_inputs_share_outputs() -> None:
    """Two images, each salient in one half: outputs show both."""
    saliency = torch.full((2, 16, 16), 1e-3)
    saliency[0, :, :8], saliency[1, :, 8:] = 1.0, 1.0
    options = CoMixupOptions(partition=2, tau=2.0)
    (shares,) = solve_shares(
        saliency,
        CoMixupDraw(torch.tensor([0.5, 0.5], dtype=torch.float64), torch.zeros(2, 16).long()),
        options,
    )
    assert torch.allclose(shares.mean(dim=(1, 2)), torch.full((2, 2), 0.5))


def test_similarity_is_the_identity_where_all_look_at_one_place() -> None:
    same = similarity(torch.ones(3, 16, 16), 0.5, 8)
    assert torch.allclose(same, 0.5 * torch.eye(3, dtype=torch.float64))
    saliency = torch.zeros(2, 16, 16)
    saliency[0, 0, 0], saliency[1, 15, 15] = 1, 1
    apart = similarity(saliency, 0.1, 8)
    # 0.1 · 2 · D/ΣD
    assert torch.allclose(apart, torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64))
