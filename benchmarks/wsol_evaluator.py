"""How fast the localization evaluator is, on one core, against the reference's own steps.

  four kinds of 224x224 maps, 1,000 thresholds; also checks that every curve is bit-equal:
    python benchmarks/wsol_evaluator.py
  instead images a second and peak memory of many images, with 1, 2, ... threads:
    python benchmarks/wsol_evaluator.py --many 2000

The reference's steps are written out below: threshold, contours, boxes, then the IoU of all boxes with NumPy.
Times are CPU times, the fastest of several rounds, in ms an image and metric. The first line says how long
the first curve takes in a fresh process: compiled code is cached beside the source, so that is seconds once
and milliseconds ever after.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from automix_transfer.localization.boxes import iou_curve as library
from automix_transfer.localization.boxes.iou_curve import iou_curve
from automix_transfer.localization.maps.score_maps import score_map
from automix_transfer.localization.pipeline import measure_all, open_records
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.localization.targets import Target, TargetSet

SIZE = 224


def smooth(rng: np.random.Generator) -> np.ndarray:
    """CAM-like: a 7x7 map, resized."""
    return score_map(rng.normal(size=(7, 7)) + 3 * np.exp(-((np.indices((7, 7)) - 3) ** 2).sum(0) / 6), SIZE)


def rectified(rng: np.random.Generator) -> np.ndarray:
    """CAM-like after a ReLU."""
    return score_map(
        np.maximum(rng.normal(size=(7, 7)) + 2 * np.exp(-((np.indices((7, 7)) - 3) ** 2).sum(0) / 6), 0), SIZE
    )


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Many small blobs."""
    return score_map(cv2.GaussianBlur(rng.random((SIZE, SIZE)), (0, 0), 6), SIZE)


def noisy(rng: np.random.Generator) -> np.ndarray:
    """Independent pixels on a smooth map."""
    return score_map(smooth(rng) + 0.3 * rng.random((SIZE, SIZE)), SIZE)


def reference_curve(
    values: np.ndarray, true_boxes: np.ndarray, thresholds: np.ndarray, all_contours: bool
) -> np.ndarray:
    """The reference evaluator's steps, one threshold after the other."""
    grey = (values * 255).astype(np.uint8)
    curve = np.empty(len(thresholds))
    for i, threshold in enumerate(thresholds):
        _, mask = cv2.threshold(grey, int(threshold * np.max(grey)), 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if not contours:
            predicted = np.zeros((1, 4), dtype=np.int64)
        else:
            if not all_contours:
                contours = [max(contours, key=cv2.contourArea)]
            found = []
            for contour in contours:
                x, y, w, h = cv2.boundingRect(contour)
                found.append([x, y, min(x + w, SIZE - 1), min(y + h, SIZE - 1)])
            predicted = np.asarray(found)
        a, b = predicted[:, None], true_boxes[None]
        sides = np.maximum(0, np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1)
        overlap = sides[..., 0] * sides[..., 1]
        area_a, area_b = ((c[..., 2] - c[..., 0] + 1) * (c[..., 3] - c[..., 1] + 1) for c in (a, b))
        curve[i] = (overlap / (area_a + area_b - overlap)).max()
    return curve


def best_time(function, rounds: int) -> float:
    """Fastest of several calls in ms of this thread's CPU time, which a busy machine disturbs least."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return 1000 * min(times)


class SmoothMaps:
    """A source of maps without files and network: raw 7x7 maps that differ from image to image."""

    about: dict[str, Any] = {}
    seconds = 0.0
    map_size = SIZE

    def check(self, _targets: TargetSet) -> dict[str, Any]:
        return {}

    def produce(
        self, _targets: TargetSet, todo: list[int], _pool: ThreadPoolExecutor
    ) -> Iterator[tuple[int, np.ndarray, None]]:
        for index in todo:
            yield index, np.random.default_rng(index).normal(size=(7, 7)), None

    def finish(self, _target: Target, raw: np.ndarray) -> np.ndarray:
        return score_map(raw, SIZE)


def many(count: int) -> None:
    """Images a second through the whole evaluator, by threads, and peak memory after each."""
    print(f"{'threads':>8}{'images':>8}{'images/s':>10}{'CPU ms an image':>17}{'peak MB':>9}")
    for threads in (1, *(2**k for k in range(1, 10) if 2**k <= (os.cpu_count() or 1))):
        for images in (count // 4, count):
            targets = TargetSet(
                "many", [Target(str(k), 0, ((40, 50, 170, 190),), (SIZE, SIZE)) for k in range(images)], ["0"]
            )
            task = BoxTask(SIZE)
            source: Any = SmoothMaps()
            records = open_records(source, targets, task, None, {})
            seconds = measure_all(source, targets, task, records, workers=threads)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            each = 1000 * seconds["evaluator"] / images
            print(f"{threads:8}{images:8}{images / seconds['wall']:10.0f}{each:17.2f}{peak:9.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=4, help="maps a kind (default 4)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="rounds of the reference; ours gets ten times as many (default 3)",
    )
    parser.add_argument(
        "--many", type=int, default=0, metavar="N", help="measure the throughput of N images instead"
    )
    args = parser.parse_args()
    cv2.setNumThreads(1)
    start = time.perf_counter()
    for all_contours in (False, True):
        iou_curve(np.eye(SIZE), [[0, 0, 9, 9]], [0.5], all_contours)
    print(f"first curves: {time.perf_counter() - start:.2f} s")
    if args.many:
        return many(args.many)
    thresholds, rng = np.arange(0, 1, 0.001), np.random.default_rng(0)
    true_boxes = np.array([[40, 50, 170, 190]])
    print(
        f"OpenCV {cv2.__version__}, engine "
        f"{'component tree (numba)' if library.component_tree else 'contours (OpenCV)'}"
    )
    print(f"ms an image, {SIZE}x{SIZE}, {len(thresholds)} thresholds, one core")
    print(f"{'maps':12}{'metric':14}{'reference':>12}{'ours':>10}{'ratio':>8}")
    for kind in (smooth, rectified, blobs, noisy):
        values = [kind(rng) for _ in range(args.maps)]
        for all_contours in (False, True):
            slow = fast = 0.0
            for value in values:
                ours = iou_curve(value, true_boxes, thresholds, all_contours)
                if not np.array_equal(ours, reference_curve(value, true_boxes, thresholds, all_contours)):
                    raise SystemExit(f"{kind.__name__}: the curves differ")
                slow += best_time(
                    lambda v=value, a=all_contours: reference_curve(v, true_boxes, thresholds, a), args.rounds
                )
                fast += best_time(
                    lambda v=value, a=all_contours: iou_curve(v, true_boxes, thresholds, a), 10 * args.rounds
                )
            metric = "MaxBoxAccV2" if all_contours else "MaxBoxAcc"
            times = f"{slow / args.maps:12.1f}{fast / args.maps:10.2f}{slow / fast:7.0f}x"
            print(f"{kind.__name__:12}{metric:14}{times}", flush=True)


if __name__ == "__main__":
    main()
