"""The OpenCV engine: contours of every mask; slower than `component_tree`, the same bits, no compiler."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

SLOTS = 257


def largest_boxes(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(257, 4) box of the contour of largest polygon area at every slot; see `boxes.largest_boxes`."""
    result = np.zeros((SLOTS, 4), dtype=np.int64)
    for start, stop, found in _distinct_masks(grey):
        # max keeps the first of equals, as the reference does
        result[start:stop] = _box(max(found, key=cv2.contourArea), grey.shape)
    return result


def best_iou(grey: NDArray[np.uint8], true_boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(257,) best IoU over all contours at every slot; see `boxes.best_iou`."""
    # an empty mask's box is [0, 0, 0, 0]
    result = np.full(SLOTS, pairwise_iou(np.zeros((1, 4)), true_boxes).max())
    for start, stop, found in _distinct_masks(grey):
        result[start:stop] = pairwise_iou(
            np.array([_box(contour, grey.shape) for contour in found]), true_boxes
        ).max()
    return result


def pairwise_iou(predicted: NDArray, true_boxes: NDArray) -> NDArray[np.float64]:
    """(P, N) inclusive IoU (a side is end - start + 1) of (P, 4) and (N, 4) boxes x0, y0, x1, y1."""
    a, b = np.asarray(predicted, dtype=np.float64)[:, None], np.asarray(true_boxes, dtype=np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    overlap = np.maximum(0, sides[..., 0]) * np.maximum(0, sides[..., 1])
    area_a = (a[..., 2] - a[..., 0] + 1) * (a[..., 3] - a[..., 1] + 1)
    area_b = (b[..., 2] - b[..., 0] + 1) * (b[..., 3] - b[..., 1] + 1)
    return overlap / (area_a + area_b - overlap)


def _distinct_masks(grey: NDArray[np.uint8]) -> Iterator[tuple[int, int, tuple]]:
    """Runs of slots with the same non-empty mask: (first slot, one past the last, contours)."""
    start = 0
    for value in np.unique(grey).tolist():  # the mask of slots `start`..`value` is grey >= value
        mask = (grey >= value).astype(np.uint8)
        yield start, value + 1, cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        start = value + 1


def _box(contour: NDArray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x, y, x + w, y + h, clipped to the last pixel: one too far except at the frame, as in the reference."""
    x, y, width, height = cv2.boundingRect(contour)
    return x, y, min(x + width, shape[1] - 1), min(y + height, shape[0] - 1)
