"""Does a network's confidence say how often it is right? ECE, Brier score, NLL, reliability (Fig. 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples of confidence in (low, high]: how many, their mean confidence, the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def probabilities(logits: ArrayLike) -> Floats:
    """Softmax of logits (N, K) in float64."""
    logits_NK = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def reliability(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> list[ReliabilityBin]:
    """Equal-width bins (a, b] of each sample's largest probability; the means of an empty one are 0.

    Args:
        probs: (N, K), rows that sum to 1.
        labels: (N,) true classes.
    """
    confidence, correct = _confidence(probs, labels)
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, correct)]
    means = [np.divide(total, counts, out=np.zeros(bins), where=counts > 0) for total in sums]
    columns = (edges[:-1], edges[1:], counts, *means)
    return [ReliabilityBin(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def expected_calibration_error(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ECE in percent: Σ |B|/N · |accuracy(B) - confidence(B)| over the bins of `reliability`.

    The paper's tool has 10 bins, most papers 15; a fine-grained figure without its number of bins says
    little.
    """
    rows = reliability(probs, labels, bins)
    total = sum(row.count for row in rows)
    return 100 * sum(row.count * abs(row.accuracy - row.confidence) for row in rows) / total


def adaptive_calibration_error(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ECE in percent over bins of equally many samples, in the order of their confidence.

    Sizes of bins differ by at most one; samples of equal confidence stay in their order.
    """
    confidence, correct = _confidence(probs, labels)
    order = np.argsort(confidence, kind="stable")
    gaps = [
        abs(float(np.sum(correct[part]) - np.sum(confidence[part]))) for part in np.array_split(order, bins)
    ]
    return 100 * sum(gaps) / len(order)


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean over samples of Σ_k (p_k - 1[k = y])², between 0 and 2."""
    probs_NK, labels_N = np.asarray(probs, dtype=np.float64), np.asarray(labels)
    right = probs_NK[np.arange(len(labels_N)), labels_N]
    return float(np.mean(np.square(probs_NK).sum(axis=1) - 2 * right + 1))


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean cross-entropy in nats of logits (N, K): finite even where the true probability underflows."""
    logits_NK, labels_N = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    largest = logits_NK.max(axis=1)
    log_sum = largest + np.log(np.exp(logits_NK - largest[:, None]).sum(axis=1))
    return float(np.mean(log_sum - logits_NK[np.arange(len(labels_N)), labels_N]))


def _confidence(probs: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """The largest probability of each sample, and 1.0 where its class is the true one."""
    probs_NK = np.asarray(probs, dtype=np.float64)
    return probs_NK.max(axis=1), (probs_NK.argmax(axis=1) == np.asarray(labels)).astype(np.float64)
