"""Boxes of a score map at every threshold, and their IoU with the true boxes, as the reference counts.

A map in [0, 1] becomes 8-bit grey by truncation; threshold t cuts it at T = int(t · grey.max()) and keeps
``grey > T``. So there are at most 257 different masks, *slots* here: slot s stands for T = s - 1, slot 0 for
"everything" (a negative threshold), slot 256 for "nothing". Whatever the number of thresholds, the work is
done once a slot, and a curve over thresholds is a look-up.

Two engines give the same bits: `component_tree` (numba, one pass for all slots) and `contours` (OpenCV, one
call a distinct mask).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from automix_transfer.errors import UserError
from automix_transfer.localization.boxes import contours
from automix_transfer.localization.boxes.contours import SLOTS, pairwise_iou

component_tree: Any
try:
    import automix_transfer.localization.boxes.component_tree as component_tree
except ImportError:  # numba is missing: slower, same bits
    component_tree = None

__all__ = [
    "SLOTS",
    "ScoreMapError",
    "best_iou",
    "iou_curve",
    "largest_boxes",
    "pairwise_iou",
    "quantize",
    "slots",
]


class ScoreMapError(UserError, ValueError):
    """A score map, a box or a threshold that cannot be evaluated."""


def iou_curve(
    score_map: ArrayLike, boxes: ArrayLike, thresholds: ArrayLike, all_contours: bool
) -> NDArray[np.float64]:
    """Best IoU of predicted and true boxes at every threshold, for MaxBoxAcc and MaxBoxAccV2 (Table 8).

    Args:
        score_map: (H, W) in [0, 1].
        boxes: (N, 4) true boxes x0, y0, x1, y1 in pixels of the map, both ends inclusive; N >= 1.
        thresholds: (T,) shares of the map's maximum.
        all_contours: True keeps every outer and hole contour (V2), False the one of the largest polygon area
            (V1).

    Returns:
        (T,) float64 in [0, 1].

    Raises:
        ScoreMapError: not a finite (H, W) map in [0, 1], boxes malformed or inverted, thresholds not finite.
    """
    grey = quantize(score_map)
    true_boxes = check_boxes(boxes)
    if all_contours:
        curve = best_iou(grey, true_boxes)
    else:
        curve = pairwise_iou(largest_boxes(grey), true_boxes).max(axis=1)
    return curve[slots(thresholds, int(grey.max()))]


def quantize(score_map: ArrayLike) -> NDArray[np.uint8]:
    """(H, W) grey of a map in [0, 1]: ``map * 255`` in the map's own precision, truncated.

    Raises:
        ScoreMapError: not two-dimensional, empty, not numeric, NaN or infinite, or outside [0, 1].
    """
    values = np.asarray(score_map)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiub":
        raise ScoreMapError(
            f"a score map must be a non-empty (H, W) array of numbers, this one is {values.shape} of "
            f"{values.dtype}"
        )
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails both comparisons
        if not np.isfinite(values).all():
            raise ScoreMapError(
                "the score map has NaN or infinite values; subtract its minimum and divide by its maximum, "
                "or write zeros"
            )
        raise ScoreMapError(
            f"the score map's values lie in [{low}, {high}], outside [0, 1]; subtract its minimum, divide by "
            "the maximum"
        )
    return np.ascontiguousarray((values * 255).astype(np.uint8))


def check_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    """True boxes as (N, 4) float64.

    Raises:
        ScoreMapError: wrong shape, none, not finite, or a box whose end lies before its start.
    """
    try:
        result = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoreMapError("true boxes must be numbers x0, y0, x1, y1") from error
    if result.ndim != 2 or result.shape[1] != 4 or not len(result):
        raise ScoreMapError(f"true boxes must have the shape (N, 4) with N >= 1, these have {result.shape}")
    if not np.isfinite(result).all() or (result[:, 2:] < result[:, :2]).any():
        raise ScoreMapError(
            f"true boxes must be finite with x0 <= x1 and y0 <= y1, these are {result.tolist()}"
        )
    return result


def slots(thresholds: ArrayLike, peak: int) -> NDArray[np.int64]:
    """(T,) slots of thresholds t on a grey map of maximum ``peak``: int(t · peak) + 1, clipped to 0..256.

    Raises:
        ScoreMapError: a threshold is NaN or infinite, or they are not a sequence.
    """
    values = np.asarray(thresholds, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ScoreMapError(
            "thresholds must be finite numbers, e.g. np.arange(0, 1, 0.001); these have the shape "
            f"{values.shape}"
        )
    cuts = np.trunc(np.clip(values * peak, -1.0, 255.0)).astype(np.int64)
    return cuts + 1


def largest_boxes(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(257, 4) box of the contour of largest area at every slot (V1), zeros where the mask is empty."""
    return (component_tree or contours).largest_boxes(grey)


def best_iou(grey: NDArray[np.uint8], true_boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(257,) best IoU of any outer or hole contour's box with any of the (N, 4) true boxes (V2)."""
    return (component_tree or contours).best_iou(grey, true_boxes)
