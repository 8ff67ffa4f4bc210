"""What an image with masks contributes: its pixels by score, for PxAP."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.localization.records import COMMON
from automix_transfer.localization.scores.pxap import pixel_counts, read_mask, score_edges
from automix_transfer.localization.targets import Target


class MaskTask:
    """Counts object and background pixels of every score.

    Args:
        map_size: side of the square maps, in pixels; masks are resized to it.
        thresholds: (T,) ascending, from 0, below 1.
    """

    def __init__(self, map_size: int, thresholds: NDArray[np.float64]) -> None:
        self.map_size, self.edges = map_size, score_edges(thresholds)
        bins = (len(self.edges) - 1,)
        self.dtype = np.dtype([*COMMON, ("true", "u4", bins), ("false", "u4", bins)])
        self.signature: dict[str, Any] = {
            "task": "masks",
            "map_size": map_size,
            "thresholds": self.edges.tolist(),
        }

    def measure(self, values: NDArray, target: Target) -> dict[str, Any]:
        """The fields of a record from a score map (map_size, map_size) in [0, 1]."""
        true, false = pixel_counts(values, read_mask(target, self.map_size), self.edges)
        return {"true": true, "false": false}
