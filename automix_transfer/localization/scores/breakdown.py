"""Why an image was not localized: every image falls into exactly one of six kinds, each with a formula.

P is the predicted box, B the true boxes, ∩ inclusive areas in pixels of the map. The first that holds, in
this order:

- ``class wrong``: the predicted class is not the image's (skipped where no class is known).
- ``right``: some IoU(P, B) >= 0.5.
- ``several objects``: at least two true boxes with |P ∩ B| / |B| > 0.3: one box for more than one object.
- ``part only``: some |P ∩ B| / |P| > 0.5: most of the prediction lies on the object, so it shows a part of
  it.
- ``too large``: some |P ∩ B| / |B| > 0.7: most of the object is inside, but the prediction is far larger.
- ``elsewhere``: the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automix_transfer.localization.boxes.iou_curve import pairwise_iou
from automix_transfer.localization.scores.metrics import V1_DELTA

KINDS = ("class wrong", "right", "several objects", "part only", "too large", "elsewhere")
SEVERAL, PART, LARGE = 0.3, 0.5, 0.7


def kind_of(predicted: NDArray, true_boxes: NDArray, class_right: bool | None) -> str:
    """The kind of an image from its ``predicted`` box (4,), ``true_boxes`` (N, 4) and ``class_right``."""
    if class_right is False:
        return "class wrong"
    p, b = np.asarray(predicted, dtype=np.float64), np.asarray(true_boxes, dtype=np.float64)
    if pairwise_iou(p[None], b).max() >= V1_DELTA:
        return "right"
    sides = np.maximum(np.minimum(p[2:], b[:, 2:]) - np.maximum(p[:2], b[:, :2]) + 1, 0)
    overlap = sides.prod(axis=1)
    of_true = overlap / (b[:, 2:] - b[:, :2] + 1).prod(axis=1)
    of_predicted = overlap / (p[2:] - p[:2] + 1).prod()
    if (of_true > SEVERAL).sum() >= 2:
        return "several objects"
    if of_predicted.max() > PART:
        return "part only"
    return "too large" if of_true.max() > LARGE else "elsewhere"
