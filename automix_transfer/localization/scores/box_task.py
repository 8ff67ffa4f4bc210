"""What an image with true boxes contributes: its predicted boxes and their IoU at all 257 slots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.localization.boxes.iou_curve import (
    SLOTS,
    best_iou,
    largest_boxes,
    pairwise_iou,
    quantize,
)
from automix_transfer.localization.records import COMMON
from automix_transfer.localization.targets import Target, boxes_on_map


class BoxTask:
    """Measures score maps against true boxes; thresholds come later, as look-ups.

    Args:
        map_size: side of the square maps that boxes are taken from, in pixels.
    """

    def __init__(self, map_size: int) -> None:
        self.map_size = map_size
        self.dtype = np.dtype(
            [
                *COMMON,
                ("peak", "u1"),  # largest grey value
                ("boxes", "i2" if map_size < 2**15 else "i4", (SLOTS, 4)),  # of the largest contour
                ("largest", "f8", (SLOTS,)),  # IoU of that box
                ("all", "f8", (SLOTS,)),  # best IoU of all contours
            ]
        )
        self.signature: dict[str, Any] = {"task": "boxes", "map_size": map_size}

    def measure(self, values: NDArray, target: Target) -> dict[str, Any]:
        """The fields of a record from a score map (map_size, map_size) in [0, 1]."""
        true_boxes = self.true_boxes(target)
        grey = quantize(values)
        boxes = largest_boxes(grey)
        return {
            "peak": int(grey.max()),
            "boxes": boxes,
            "largest": pairwise_iou(boxes, true_boxes).max(axis=1),
            "all": best_iou(grey, true_boxes),
        }

    def true_boxes(self, target: Target) -> NDArray[np.float64]:
        """(N, 4) true boxes of an image in pixels of the map."""
        assert target.size is not None
        return boxes_on_map(target.boxes, target.size, self.map_size)
