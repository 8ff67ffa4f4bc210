"""Calibration figures against torchmetrics, against sums written out, and where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import multiclass_calibration_error

from automix_transfer.evaluation import calibration as c


def random_case(
    seed: int, count: int = 400, classes: int = 7, sharpness: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)) * sharpness
    return logits, np.where(rng.random(count) < 0.6, logits.argmax(1), rng.integers(classes, size=count))


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("seed", range(5))
def test_ece_is_that_of_torchmetrics(seed: int, bins: int) -> None:
    logits, labels = random_case(seed)
    probs = c.probabilities(logits)
    expected = 100 * float(
        multiclass_calibration_error(
            torch.tensor(probs), torch.tensor(labels), probs.shape[1], n_bins=bins, norm="l1"
        )
    )
    # of 100; theirs sums in float32
    assert c.expected_calibration_error(probs, labels, bins) == pytest.approx(expected, abs=2e-4)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6), st.integers(1, 20))
def test_ece_by_its_definition(seed: int, count: int, classes: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.ones(classes), count), rng.integers(classes, size=count)
    total, edges = 0.0, np.linspace(0, 1, bins + 1)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = [i for i in range(count) if low < probs[i].max() <= high]
        if inside:
            total += (
                abs(sum(probs[i].argmax() == labels[i] for i in inside) - sum(probs[i].max() for i in inside))
                / count
            )
    assert c.expected_calibration_error(probs, labels, bins) == pytest.approx(100 * total, abs=1e-9)
    assert c.adaptive_calibration_error(probs, labels, 1) == pytest.approx(
        c.expected_calibration_error(probs, labels, 1), abs=1e-9
    )


def test_bins_are_closed_on_the_right() -> None:
    rows = c.reliability([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]], [0, 1, 0], bins=4)
    assert [(row.count, row.confidence, row.accuracy) for row in rows] == [
        (0, 0, 0),
        (1, 0.5, 1),
        (1, 0.75, 0),
        (1, 1, 1),
    ]


def test_adaptive_bins_hold_equally_many() -> None:
    probs = np.array([[p, 1 - p] for p in (0.6, 0.9, 0.7, 0.8)])
    # bins {0.6, 0.7} and {0.8, 0.9}: |2 - 1.3| and |1 - 1.7| over 4 samples
    assert c.adaptive_calibration_error(probs, [0, 1, 0, 0], bins=2) == pytest.approx(100 * (0.7 + 0.7) / 4)


@pytest.mark.parametrize("seed", range(3))
def test_brier_and_nll_by_their_definitions(seed: int) -> None:
    logits, labels = random_case(seed, count=50)
    probs = c.probabilities(logits)
    brier = (
        sum((p - (k == y)) ** 2 for row, y in zip(probs, labels, strict=True) for k, p in enumerate(row)) / 50
    )
    assert c.brier_score(probs, labels) == pytest.approx(brier)
    assert c.negative_log_likelihood(logits, labels) == pytest.approx(
        -sum(math.log(probs[i, y]) for i, y in enumerate(labels)) / 50
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_others_are_those_of_torchmetrics(seed: int) -> None:
    """Brier: K times the mean squared error of probabilities. Adaptive ECE: each part of equal size is one
    bin. NLL: cross-entropy."""
    logits, labels = random_case(seed, count=203)
    probs, targets = c.probabilities(logits), torch.tensor(labels)
    one_hot = torch.nn.functional.one_hot(targets, probs.shape[1]).double()
    assert c.brier_score(probs, labels) == pytest.approx(
        probs.shape[1] * float(mean_squared_error(torch.tensor(probs), one_hot)), abs=1e-6
    )
    cross_entropy = float(torch.nn.functional.cross_entropy(torch.tensor(logits), targets))
    assert c.negative_log_likelihood(logits, labels) == pytest.approx(cross_entropy)
    order, total = np.argsort(probs.max(1), kind="stable"), 0.0
    for part in np.array_split(order, 15):
        one = multiclass_calibration_error(
            torch.tensor(probs[part]), targets[part], probs.shape[1], n_bins=1, norm="l1"
        )
        total += 100 * float(one) * len(part) / len(labels)
    # of 100; theirs sums in float32
    assert c.adaptive_calibration_error(probs, labels, 15) == pytest.approx(total, abs=2e-4)


def test_a_perfect_and_a_perfectly_wrong_network() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    probs = c.probabilities(logits)
    for labels, error, brier, nll in (([0, 1], 0, 0, 0), ([1, 0], 100, 2, 1000)):
        assert (
            c.expected_calibration_error(probs, labels)
            == c.adaptive_calibration_error(probs, labels)
            == error
        )
        assert (c.brier_score(probs, labels), c.negative_log_likelihood(logits, labels)) == (brier, nll)
