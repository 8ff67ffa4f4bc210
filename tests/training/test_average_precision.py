"""Average precision against an oracle that follows the definition, and scikit-learn where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from automix_transfer.training.average_precision import average_precision, class_precisions, mean_precision


def oracle(scores: np.ndarray, labels: np.ndarray) -> float:
    """Σ (R_n - R_{n-1})·P_n over the thresholds, each counted anew."""
    known = labels >= 0
    scores, right = scores[known], labels[known] == 1
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        precision, recall = right[taken].mean(), right[taken].sum() / right.sum()
        total, before = total + (recall - before) * precision, recall
    return 100 * total


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_definition_with_ties_and_unknown_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, 40).astype(np.float32) / 7  # ties
    labels = rng.choice([-1, 0, 1], 40, p=[0.2, 0.6, 0.2])
    labels[0] = 1
    found = average_precision(scores, labels)
    assert found == pytest.approx(oracle(scores, labels), abs=1e-9)
    order = rng.permutation(40)
    assert average_precision(scores[order], labels[order]) == found


def test_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=200), rng.integers(0, 2, 200)
    assert average_precision(scores, labels) == pytest.approx(
        100 * metrics.average_precision_score(labels, scores)
    )


def test_by_hand() -> None:
    # ranks 1 (right), 2, 3 (right): (1/1 + 2/3) / 2; 11 points of recall would give (6·1 + 5·2/3) / 11
    assert average_precision([0.9, 0.8, 0.1], [1, 0, 1]) == pytest.approx(100 * 5 / 6)
    assert average_precision([0.5, 0.5], [1, 0]) == 50
    assert average_precision([1.0, 2.0], [0, 0]) is None and average_precision([1.0], [-1]) is None


def test_classes_that_nothing_shows_are_left_out_of_the_mean() -> None:
    labels = [[1, 0, np.nan], [0, 0, 1], [1, 0, 0]]
    found = class_precisions([[3, 1, 9], [2, 1, 2], [1, 1, 1]], labels)
    assert found == [pytest.approx(100 * 5 / 6), None, 100.0]
    assert mean_precision(found) == pytest.approx((100 * 5 / 6 + 100) / 2) and mean_precision([None]) is None
