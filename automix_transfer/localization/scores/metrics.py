"""MaxBoxAcc and MaxBoxAccV2, accumulated image by image; memory does not grow with the number of images.

For each threshold t, shared by all images, count the images whose best IoU reaches delta. MaxBoxAcc is the
best share over t at delta 0.5 with each map's largest contour; MaxBoxAccV2 the mean over delta 0.3, 0.5, 0.7
of the best share over t with all contours, each delta at its own t (Table 8). Shares are percentages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

V1_DELTA = 0.5
V2_DELTAS = (0.3, 0.5, 0.7)


def default_thresholds(interval: float = 0.001) -> NDArray[np.float64]:
    """The reference's thresholds: 0, 0.001, ... below 1."""
    return np.arange(0, 1, interval)


def about_thresholds(thresholds: NDArray[np.float64]) -> dict[str, float]:
    """What a summary says of them."""
    return {"first": float(thresholds[0]), "last": float(thresholds[-1]), "count": len(thresholds)}


class MaxBoxAcc:
    """MaxBoxAcc, from the share of images whose IoU reaches each delta at every threshold.

    Feed it curves of the largest contour.

    Args:
        thresholds: (T,) of the curves that will be added.
        deltas: (D,) IoU that counts as a hit; a hit is IoU >= delta.
    """

    all_contours = False

    def __init__(self, thresholds: NDArray[np.float64], deltas: Sequence[float] = (V1_DELTA,)) -> None:
        self.thresholds = np.asarray(thresholds, dtype=np.float64)
        self.deltas = tuple(deltas)
        self.hits = np.zeros((len(self.deltas), len(self.thresholds)), dtype=np.int64)
        self.n_images = 0

    def add(self, curve: NDArray[np.float64], counts: bool = True) -> None:
        """Add one image's best IoU (T,); ``counts=False`` is a miss whatever its IoU (a wrong class)."""
        self.n_images += 1
        if counts:
            for row, delta in zip(self.hits, self.deltas, strict=True):
                row += curve >= delta

    def curve(self, delta: float) -> NDArray[np.float64]:
        """(T,) percent of images hit at each threshold."""
        return self.hits[self.deltas.index(delta)] * 100.0 / max(self.n_images, 1)

    def best(self, delta: float) -> tuple[float, int]:
        """The largest share in percent, and the index of the (first) threshold that reaches it."""
        curve = self.curve(delta)
        index = int(curve.argmax())
        return float(curve[index]), index

    @property
    def value(self) -> float:
        """Percent: the mean over delta of the best share; one delta is the rule."""
        return float(np.mean([self.best(delta)[0] for delta in self.deltas]))


class MaxBoxAccV2(MaxBoxAcc):
    """MaxBoxAccV2; feed it curves of all contours."""

    all_contours = True

    def __init__(self, thresholds: NDArray[np.float64], deltas: Sequence[float] = V2_DELTAS) -> None:
        super().__init__(thresholds, deltas)
