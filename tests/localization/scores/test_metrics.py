"""MaxBoxAcc and MaxBoxAccV2 against a brute-force count, and a case counted by hand."""

import numpy as np

from automix_transfer.localization import MaxBoxAcc, MaxBoxAccV2, iou_curve
from automix_transfer.localization.maps.score_maps import gaussian_map, score_map
from tests.localization import oracle
from tests.localization import sample_maps as maps


def test_by_hand():
    """Three images at three thresholds: t is shared by all images, and each delta has its own."""
    thresholds = np.array([0.0, 0.3, 0.6])
    curves = np.array([[0.2, 0.5, 0.9], [0.6, 0.4, 0.1], [0.35, 0.55, 0.75]])
    v1, v2 = MaxBoxAcc(thresholds), MaxBoxAccV2(thresholds)
    for curve in curves:
        v1.add(curve)
        v2.add(curve)
    # an IoU of exactly delta is a hit; the first of equal thresholds is named
    assert v1.best(0.5) == (200 / 3, 1)
    assert v2.best(0.3) == (100.0, 1) and v2.best(0.7) == (200 / 3, 2)
    assert v2.value == np.mean([100.0, 200 / 3, 200 / 3])


def test_equal_to_brute_force_on_random_maps():
    rng, thresholds = np.random.default_rng(3), np.arange(0, 1, 0.05)
    v1, v2 = MaxBoxAcc(thresholds), MaxBoxAccV2(thresholds)
    curves = {False: [], True: []}
    for _ in range(20):
        values, boxes = maps.smooth(rng, 28, 28), maps.random_boxes(rng, 28, 28)
        for metric in (v1, v2):
            metric.add(iou_curve(values, boxes, thresholds, metric.all_contours))
            curves[metric.all_contours].append(
                oracle.iou_curve(values, boxes, thresholds, metric.all_contours)
            )
    assert v1.value == oracle.max_box_acc(curves[False], 0.5)
    assert v2.value == np.mean([oracle.max_box_acc(curves[True], delta) for delta in (0.3, 0.5, 0.7)])


def test_a_wrong_class_is_a_miss():
    metric = MaxBoxAcc(np.array([0.5]))
    metric.add(np.array([1.0]))
    metric.add(np.array([1.0]), counts=False)
    assert metric.value == 50.0


def test_score_map_follows_the_reference():
    raw = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    values = score_map(raw, 56)
    assert values.dtype == np.float64 and values.shape == (56, 56) and values.min() == 0 and values.max() == 1
    assert not score_map(np.full((3, 3), 2.5), 8).any()
    assert not score_map(np.array([[0.0, np.nan], [1.0, 2.0]]), 8).any()


def test_the_centre_box_grows_from_the_centre_to_the_whole_image():
    values = gaussian_map(64)
    boxes = [oracle.boxes_at(values, threshold, False)[0] for threshold in (0.99, 0.5, 0.0)]
    sides = [box[2] - box[0] for box in boxes]
    assert sides[0] < 12 < sides[1] < 50 and boxes[2] == [0, 0, 63, 63]
    assert all(box[0] == box[1] and box[2] == box[3] for box in boxes)
    for side in (1, 2):  # all pixels are at one distance: 0 / 0, if it were scaled
        assert gaussian_map(side).tolist() == [[0.0] * side] * side
    assert gaussian_map(3).min() == 0 and gaussian_map(3).max() == 1
