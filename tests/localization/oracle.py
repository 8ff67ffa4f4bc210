"""The reference evaluator's conventions, followed literally and slowly: one OpenCV call a threshold, plain
Python arithmetic.

Written without a look at the library, so that agreement means something.
"""

import cv2
import numpy as np


def inclusive_iou(p, q):
    """IoU of two boxes whose ends belong to them."""
    width = min(p[2], q[2]) - max(p[0], q[0]) + 1
    height = min(p[3], q[3]) - max(p[1], q[1]) + 1
    inside = max(0, width) * max(0, height)
    union = (p[2] - p[0] + 1) * (p[3] - p[1] + 1) + (q[2] - q[0] + 1) * (q[3] - q[1] + 1) - inside
    return inside / union if union > 0 else 0.0


def boxes_at(score_map, threshold, all_contours):
    """Every predicted box at one threshold."""
    height, width = score_map.shape
    grey = (score_map * 255).astype(np.uint8)
    cut = int(float(threshold) * int(grey.max()))
    mask = np.where(grey.astype(np.int64) > cut, 255, 0).astype(np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if len(found) == 0:
        return [[0, 0, 0, 0]]
    if not all_contours:
        areas = [cv2.contourArea(contour) for contour in found]
        found = [found[areas.index(max(areas))]]
    boxes = []
    for contour in found:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return boxes


def iou_curve(score_map, boxes, thresholds, all_contours):
    """Best IoU at every threshold."""
    curve = []
    for threshold in thresholds:
        predicted = boxes_at(score_map, threshold, all_contours)
        curve.append(
            max(inclusive_iou(p, q) for p in predicted for q in np.asarray(boxes, dtype=float).tolist())
        )
    return np.array(curve, dtype=np.float64)


def max_box_acc(curves, delta):
    """Percent of images hit at the best common threshold, over a list of curves."""
    hits = [100.0 * sum(curve[k] >= delta for curve in curves) / len(curves) for k in range(len(curves[0]))]
    return max(hits)
