"""`iou_curve` against the brute-force oracle, bit for bit."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from automix_transfer.errors import UserError
from automix_transfer.localization.boxes import contours
from automix_transfer.localization.boxes import iou_curve as library
from automix_transfer.localization.boxes.iou_curve import iou_curve
from tests.localization import oracle
from tests.localization import sample_maps as maps

THRESHOLDS = np.arange(0, 1, 0.031)


@pytest.fixture(params=["component_tree", "contours"])
def engine(request, monkeypatch):
    """Both engines in turn."""
    if request.param == "contours":
        monkeypatch.setattr(library, "component_tree", None)
    elif library.component_tree is None:
        pytest.skip("numba is not installed")
    return request.param


def assert_same(score_map, boxes, thresholds=THRESHOLDS):
    """`iou_curve` gives the oracle's bits."""
    for all_contours in (False, True):
        curve = iou_curve(score_map, boxes, thresholds, all_contours)
        assert curve.dtype == np.float64
        np.testing.assert_array_equal(
            curve,
            oracle.iou_curve(score_map, boxes, thresholds, all_contours),
            err_msg=f"all_contours={all_contours}: {score_map!r} {boxes!r}",
        )


def assert_all_same(score_map, boxes, thresholds=THRESHOLDS):
    """Every engine that is installed gives the oracle's bits."""
    grey = library.quantize(score_map)
    at = library.slots(thresholds, int(grey.max()))
    true_boxes = library.check_boxes(boxes)
    for all_contours in (False, True):
        theirs = oracle.iou_curve(score_map, boxes, thresholds, all_contours)
        ours = {"iou_curve": iou_curve(score_map, boxes, thresholds, all_contours)}
        for engine in filter(None, (library.component_tree, contours)):
            largest = library.pairwise_iou(engine.largest_boxes(grey), true_boxes).max(axis=1)
            ours[engine.__name__] = (engine.best_iou(grey, true_boxes) if all_contours else largest)[at]
        for name, curve in ours.items():
            assert curve.dtype == np.float64
            np.testing.assert_array_equal(
                curve, theirs, err_msg=f"{name}, all_contours={all_contours}: {score_map!r} {boxes!r}"
            )


@pytest.mark.parametrize("kind", maps.KINDS, ids=lambda kind: kind.__name__)
def test_equals_the_oracle_on_small_maps(kind):
    """2,700 maps with all kinds, at eight thresholds each; every map has others."""
    rng = np.random.default_rng(maps.KINDS.index(kind))
    for height, width in maps.SIZES:
        for _ in range(14 if height * width < 300 else 6):
            assert_same(
                kind(rng, height, width),
                maps.random_boxes(rng, height, width),
                rng.choice(THRESHOLDS, 8, replace=False),
            )


@pytest.mark.slow
@pytest.mark.parametrize("kind", maps.KINDS, ids=lambda kind: kind.__name__)
def test_equals_the_oracle_at_evaluation_size(kind):
    rng = np.random.default_rng(100 + maps.KINDS.index(kind))
    height, width = ((224, 224), (500, 375), (61, 200))[maps.KINDS.index(kind) % 3]
    assert_all_same(
        kind(rng, height, width),
        maps.random_boxes(rng, height, width),
        np.array([0.0, *rng.choice(THRESHOLDS, 2)]),
    )


@pytest.mark.parametrize("kind", maps.KINDS, ids=lambda kind: kind.__name__)
def test_the_engines_agree_on_hundreds_of_maps(kind):
    """Both engines at all 257 slots, which is every threshold there is."""
    if library.component_tree is None:
        pytest.skip("numba is not installed, so there is one engine only")
    rng = np.random.default_rng(200 + maps.KINDS.index(kind))
    for _ in range(80):
        height, width = (int(side) for side in rng.integers(1, 15, 2))
        grey, boxes = (
            library.quantize(kind(rng, height, width)),
            maps.random_boxes(rng, height, width) + rng.choice([0.0, 0.3]),
        )
        np.testing.assert_array_equal(
            library.component_tree.largest_boxes(grey), contours.largest_boxes(grey), err_msg=repr(grey)
        )
        np.testing.assert_array_equal(
            library.component_tree.best_iou(grey, boxes), contours.best_iou(grey, boxes), err_msg=repr(grey)
        )


@settings(max_examples=150)
@given(st.data())
def test_equals_the_oracle_on_anything(data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    values = data.draw(
        arrays(np.float64, (height, width), elements=st.sampled_from([0.0, 0.004, 0.3, 0.5, 0.998, 1.0]))
    )
    x, y = (
        sorted(data.draw(st.tuples(*[st.integers(0, width - 1)] * 2))),
        sorted(data.draw(st.tuples(*[st.integers(0, height - 1)] * 2))),
    )
    assert_all_same(
        values, np.array([[x[0], y[0], x[1], y[1]]]), np.array([-0.5, 0.0, 0.2, 0.4, 0.6, 0.999, 1.0, 1.5])
    )


@settings(max_examples=100)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 1)),
    st.integers(0, 2**32 - 1),
)
def test_equals_the_oracle_on_any_floats(values, seed):
    assert_all_same(values, maps.random_boxes(np.random.default_rng(seed), *values.shape))


def test_by_hand(engine):
    """A 3×4 map: two blobs and a threshold that parts them."""
    score_map = np.array([[1.0, 1.0, 0.2, 0.6], [1.0, 1.0, 0.2, 0.6], [0.0, 0.0, 0.0, 0.6]])
    # grey 255, 51, 153. At t=0 T=0: everything but the bottom left, box 0,0,3,2 (ends clipped to the last
    # pixel). At t=0.3 T=76: the square (box 0,0,2,2, one pixel too far) and the bar (box 3,0,3,2).
    # At t=0.7 T=178: the square alone. At t=1: nothing, box 0,0,0,0.
    true = [[3, 0, 3, 2]]
    thresholds = [0.0, 0.3, 0.7, 1.0]
    assert iou_curve(score_map, true, thresholds, all_contours=True).tolist() == [3 / 12, 1.0, 0.0, 0.0]
    assert iou_curve(score_map, true, thresholds, all_contours=False).tolist() == [3 / 12, 0.0, 0.0, 0.0]
    assert iou_curve(score_map, [[0, 0, 1, 1]], thresholds, all_contours=False).tolist() == [
        4 / 12,
        4 / 9,
        4 / 9,
        1 / 4,
    ]


def test_a_hole_is_a_candidate(engine):
    """A ring: the hole's box is the hole grown by one pixel, and may be the best one."""
    score_map = np.zeros((9, 9))
    score_map[1:8, 1:8] = 1
    score_map[3:6, 3:6] = 0
    true = [[2, 2, 7, 7]]  # hole 3..5, grown 2..6, end one too far 7
    assert iou_curve(score_map, true, [0.5], all_contours=True).tolist() == [1.0]
    assert iou_curve(score_map, true, [0.5], all_contours=False).tolist() == [36 / 64]


def test_a_map_of_single_precision_stays_in_it(engine):
    """``map * 255`` is computed in the map's own type, as NumPy does, so float32 maps truncate as the
    reference truncates them."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        assert_same(
            (np.arange(256).reshape(16, 16) / np.float32(255)).astype(np.float32)[rng.permutation(16)],
            [[2, 3, 9, 12]],
        )


@pytest.mark.parametrize(
    "score_map, boxes, thresholds, word",
    [
        (np.array([[0.0, np.nan]]), [[0, 0, 1, 0]], [0.5], "NaN"),
        (np.array([[0.0, np.inf]]), [[0, 0, 1, 0]], [0.5], "NaN"),
        (np.array([[0.0, 1.5]]), [[0, 0, 1, 0]], [0.5], "outside"),
        (np.array([[-0.1, 0.5]]), [[0, 0, 1, 0]], [0.5], "outside"),
        (np.zeros((2, 2, 1)), [[0, 0, 1, 0]], [0.5], "(H, W)"),
        (np.zeros((0, 3)), [[0, 0, 1, 0]], [0.5], "(H, W)"),
        (np.array([["a"]]), [[0, 0, 1, 0]], [0.5], "(H, W)"),
        (np.zeros((2, 2)), [0, 0, 1, 0], [0.5], "(N, 4)"),
        (np.zeros((2, 2)), np.zeros((0, 4)), [0.5], "(N, 4)"),
        (np.zeros((2, 2)), [[1, 0, 0, 0]], [0.5], "x0 <= x1"),
        (np.zeros((2, 2)), [[0, 0, np.nan, 0]], [0.5], "finite"),
        (np.zeros((2, 2)), [["a", 0, 1, 0]], [0.5], "numbers"),
        (np.zeros((2, 2)), [[0, 0, 1, 0]], [np.nan], "thresholds"),
        (np.zeros((2, 2)), [[0, 0, 1, 0]], 0.5, "thresholds"),
    ],
)
def test_bad_input_is_refused_by_name(score_map, boxes, thresholds, word):
    with pytest.raises(UserError, match=word.replace("(", r"\(").replace(")", r"\)")):
        iou_curve(score_map, boxes, thresholds, all_contours=True)


@pytest.mark.slow
def test_compiled_code_is_cached():
    """A fresh process compiles nothing again."""
    if library.component_tree is None:
        pytest.skip("numba is not installed")
    iou_curve(np.eye(4), [[0, 0, 1, 1]], [0.5], True)
    iou_curve(np.eye(4), [[0, 0, 1, 1]], [0.5], False)
    program = """
import subprocess
import sys

import numpy as np
from automix_transfer.localization import iou_curve
from automix_transfer.localization.boxes import component_tree, flood, neighbours
for all_contours in (True, False):
    iou_curve(np.eye(4), [[0, 0, 1, 1]], [0.5], all_contours)
used = (flood.flood_levels, neighbours.bright_first, neighbours.earlier_neighbours,
        component_tree._rank_components, component_tree._spread)
print([(sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values())) for f in used])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([(1, 0)] * 5)
