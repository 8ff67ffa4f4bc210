"""PxAP (OpenImages): pixel-wise average precision of score maps against masks, as the reference counts.

Pixels of all images are counted together. Thresholds are the left edges of bins 0, interval, 2·interval, ...
below 1, then 1 and 2; a pixel of score s lies in the bin [edge, next edge), so 1 has a bin of its own and the
last bin is empty: there the curve begins, at recall 0. From the highest threshold to the lowest, precision
and recall count the pixels at or above it; PxAP = Σ precision_k · (recall_k - recall_{k-1}). Pixels to be
ignored count nowhere. Instances are united before; an object's pixels are never ignored.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.images import read_image
from automix_transfer.errors import UserError
from automix_transfer.localization.boxes.iou_curve import ScoreMapError
from automix_transfer.localization.targets import Target

IGNORED = 255


def score_edges(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T + 3,) edges of the bins of T thresholds from 0 to below 1: those, 1, 2 and 3."""
    return np.append(np.asarray(thresholds, dtype=np.float64), (1.0, 2.0, 3.0))


class PxAP:
    """Accumulates score maps and masks; memory does not grow with the number of images.

    Args:
        thresholds: (T,) ascending, from 0, below 1.

    Raises:
        ScoreMapError: they are not.
    """

    def __init__(self, thresholds: NDArray[np.float64]) -> None:
        self.edges = score_edges(thresholds)
        if self.edges[0] != 0 or not (np.diff(self.edges) > 0).all():
            raise ScoreMapError(
                "PxAP needs ascending thresholds from 0 to below 1, e.g. np.arange(0, 1, 0.001)"
            )
        self.true = np.zeros(len(self.edges) - 1, dtype=np.int64)
        self.false = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def add(self, score_map: NDArray, mask: NDArray[np.uint8]) -> None:
        """Add a map (H, W) in [0, 1] and its mask (H, W): 1 object, 0 background, 255 ignored."""
        self.add_counts(*pixel_counts(score_map, mask, self.edges))

    def add_counts(self, true: NDArray, false: NDArray) -> None:
        """Add one image's `pixel_counts`."""
        self.true += true
        self.false += false

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Recall, precision (NaN where nothing is predicted) and threshold, from the highest threshold down.

        Shares in [0, 1].

        Raises:
            ScoreMapError: no object pixel was added, so recall is not defined.
        """
        if not self.true.any():
            raise ScoreMapError("PxAP is not defined: no mask has a single object pixel that is not ignored")
        hits, alarms = self.true[::-1].cumsum(), self.false[::-1].cumsum()
        found = hits + alarms
        precision = np.full(len(found), np.nan)
        np.divide(hits, found, out=precision, where=found > 0)
        return hits / hits[-1], precision, self.edges[:-1][::-1]

    @property
    def value(self) -> float:
        """Percent."""
        recall, precision, _ = self.curve()
        steps = precision[1:] * np.diff(recall)
        return float(steps[~np.isnan(steps)].sum() * 100)


def pixel_counts(
    score_map: NDArray, mask: NDArray[np.uint8], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Object and background pixels in every bin, as ``np.histogram`` counts them, three times as fast.

    Raises:
        ScoreMapError: shapes differ, values of the mask other than 0, 1 and 255, or a score that is NaN or
            outside [0, 1].
    """
    values = np.asarray(score_map, dtype=np.float64)
    if values.shape != mask.shape or values.ndim != 2:
        raise ScoreMapError(
            f"a map of {values.shape} and a mask of {mask.shape} do not belong together; both must be (H, W)"
        )
    if not np.isin(mask, (0, 1, IGNORED)).all():
        raise ScoreMapError(
            "a mask holds 1 (object), 0 (background) and 255 (ignored), this one has other values"
        )
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
        raise ScoreMapError(
            "the score map has values that are NaN or outside [0, 1]; subtract its minimum and divide by its "
            "maximum"
        )
    n_bins = len(edges) - 1
    # below 1: one bin a threshold, nearly of one width, so a division guesses the bin up to one
    regular = n_bins - 2
    bins = np.minimum((values.ravel() * regular).astype(np.int64), regular)
    bins -= values.ravel() < edges[bins]
    bins += values.ravel() >= edges[bins + 1]
    # thresholds of other distances
    if (values.ravel() < edges[bins]).any() or (values.ravel() >= edges[bins + 1]).any():
        bins = np.searchsorted(edges, values.ravel(), side="right") - 1
    flat = mask.ravel()
    return np.bincount(bins[flat == 1], minlength=n_bins), np.bincount(bins[flat == 0], minlength=n_bins)


def read_mask(target: Target, size: int) -> NDArray[np.uint8]:
    """(size, size) mask: 1 object (any instance), 0 background, 255 ignored; resized by the nearest pixel.

    Raises:
        UserError: a file cannot be read.
    """
    objects = np.zeros((size, size), dtype=bool)
    for file in target.masks:
        objects |= _on(file, size)
    result = objects.astype(np.uint8)
    if target.ignore is not None:
        result[_on(target.ignore, size) & ~objects] = IGNORED
    return result


def _on(file: object, size: int) -> NDArray[np.bool_]:
    try:
        grey = np.asarray(read_image(str(file)).convert("L"))
    except UserError as error:
        raise UserError(f"mask {error}") from error
    return np.asarray(cv2.resize(grey, (size, size), interpolation=cv2.INTER_NEAREST)) > 0
