"""Average precision of each class, and its mean (mAP), for images with several labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Σ_n (R_n - R_{n-1})·P_n in percent over all ranks, without interpolation: scikit-learn's
    ``average_precision_score``, not the mean over 11 recalls of VOC 2007's devkit.

    Images of equal score have one rank together, so their order does not matter.

    Args:
        scores: (N,), the higher the surer.
        labels: (N,) 1, 0, or -1 where it is unknown; such images are left out.

    Returns:
        None where no image has the label 1.
    """
    scores_N, labels_N = np.asarray(scores), np.asarray(labels)
    known = labels_N >= 0
    order = np.argsort(-scores_N[known], kind="stable")
    ranked, found = scores_N[known][order], np.cumsum(labels_N[known][order] == 1)
    if not len(found) or not found[-1]:
        return None
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each score
    precision, recall = found[last] / (last + 1), found[last] / found[-1]
    return 100 * float((np.diff(recall, prepend=0) * precision).sum())


def class_precisions(scores: ArrayLike, labels: ArrayLike) -> list[float | None]:
    """`average_precision` of each of K classes, from scores (N, K) and labels (N, K), NaN or -1 where
    unknown."""
    labels_NK = np.nan_to_num(np.asarray(labels), nan=-1)
    return [average_precision(s, y) for s, y in zip(np.asarray(scores).T, labels_NK.T, strict=True)]


def mean_precision(precisions: Sequence[float | None]) -> float | None:
    """mAP: the mean over the classes that an image shows; None where there is none."""
    values = [value for value in precisions if value is not None]
    return float(np.mean(values)) if values else None
