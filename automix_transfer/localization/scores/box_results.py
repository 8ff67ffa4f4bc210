"""From records of boxes to numbers: accuracies, localization, baselines, classes, why images were missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.localization.boxes.iou_curve import largest_boxes, pairwise_iou, quantize, slots
from automix_transfer.localization.maps import score_maps as maps
from automix_transfer.localization.records import Records
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.localization.scores.breakdown import KINDS, kind_of
from automix_transfer.localization.scores.metrics import (
    V1_DELTA,
    V2_DELTAS,
    MaxBoxAcc,
    MaxBoxAccV2,
    about_thresholds,
)
from automix_transfer.localization.targets import TargetSet

V1 = "MaxBoxAcc"


@dataclass
class BoxImage:
    """One image at the run's threshold.

    Box (pixels of the map) and IoU of the largest contour, its best IoU at any threshold, the best IoU of all
    contours, and the kind of error (see `breakdown`).
    """

    image_id: str
    label: int
    predicted: int | None
    iou: float
    box: tuple[int, int, int, int]
    best_iou: float
    iou_all_contours: float
    error: str
    true_boxes: list[list[int]]

    @property
    def score(self) -> float:
        """What images are ranked by."""
        return self.iou

    def row(self) -> dict[str, Any]:
        """Its line of the CSV."""
        return {
            "image_id": self.image_id,
            "label": self.label,
            "predicted": "" if self.predicted is None else self.predicted,
            "iou": f"{self.iou:.6f}",
            **dict(zip(("x0", "y0", "x1", "y1"), self.box, strict=True)),
            "best_iou": f"{self.best_iou:.6f}",
            "iou_all_contours": f"{self.iou_all_contours:.6f}",
            "error": self.error,
        }


@dataclass
class BoxResults:
    """All numbers of one evaluation with boxes; percentages as floats."""

    summary: dict[str, Any]
    thresholds: NDArray[np.float64]
    curves: dict[str, NDArray[np.float64]]
    records: Records
    target_set: TargetSet
    task: BoxTask
    chosen: BoxResults | None = None  # of the split that the threshold was chosen on

    def close(self) -> None:
        """Delete the intermediate records; the results have been written."""
        self.records.remove()
        if self.chosen is not None:
            self.chosen.close()

    def images(self) -> Iterator[BoxImage]:
        """Each image's row, in order, at ``localization_threshold``."""
        at = self.summary["localization_threshold"]
        for record, target in zip(self.records, self.target_set.targets, strict=True):
            peak = int(record["peak"])
            slot = int(slots([at], peak)[0])
            predicted = None if record["top"][0] < 0 else int(record["top"][0])
            true_boxes = self.task.true_boxes(target)
            right = None if predicted is None else predicted == target.label
            yield BoxImage(
                target.image_id,
                target.label,
                predicted,
                float(record["largest"][slot]),
                tuple(record["boxes"][slot].tolist()),
                float(record["largest"][slots(self.thresholds, peak)].max()),
                float(record["all"][slot]),
                kind_of(record["boxes"][slot], true_boxes, right),
                true_boxes.astype(int).tolist(),
            )


def summarize_boxes(
    records: Records,
    target_set: TargetSet,
    task: BoxTask,
    thresholds: NDArray[np.float64],
    threshold: float | None = None,
    chosen: BoxResults | None = None,
    about: dict[str, Any] | None = None,
) -> BoxResults:
    """Everything that is reported.

    Args:
        thresholds: (T,) that the maxima are taken over.
        threshold: fixed threshold of GT-known and top-k localization; None takes ``chosen``'s, or the one
            that MaxBoxAcc is reached at.
        chosen: results of another split, at whose best thresholds this one is reported too.
        about: settings, copied into the summary.
    """
    v1, v2, zero_maps = MaxBoxAcc(thresholds), MaxBoxAccV2(thresholds), 0
    for record in records:
        used = slots(thresholds, int(record["peak"]))
        v1.add(record["largest"][used])
        v2.add(record["all"][used])
        zero_maps += record["peak"] == 0
    best = {
        V1: float(thresholds[v1.best(V1_DELTA)[1]]),
        **{str(d): float(thresholds[v2.best(d)[1]]) for d in V2_DELTAS},
    }
    other = chosen.summary["best_thresholds"] if chosen is not None else best
    fixed = other[V1] if threshold is None else float(threshold)
    summary: dict[str, Any] = {
        **_accuracies(v1, v2),
        "best_threshold": best[V1],
        "best_thresholds": best,
        "localization_threshold": fixed,
    }
    if chosen is not None:
        summary["threshold_split"] = _at_thresholds(records, chosen)
    curves = {V1: v1.curve(V1_DELTA), **{str(d): v2.curve(d) for d in V2_DELTAS}}
    results = BoxResults(summary, thresholds, curves, records, target_set, task, chosen)
    summary |= _localization(results)
    summary |= {
        **_baselines(target_set, task, thresholds),
        "n_images": len(records),
        "n_classes": len(target_set.classes),
        "zero_maps": int(zero_maps),
        **(about or {}),
        "thresholds": about_thresholds(thresholds),
    }
    return results


def _localization(results: BoxResults) -> dict[str, Any]:
    """GT-known, top-1 and top-5 localization, accuracy, the same by class, and the kinds of errors."""
    classes, records = results.target_set.classes, results.records
    # images, hits, class right, both, class in the top 5, both
    counts = np.zeros((len(classes), 6), dtype=np.int64)
    kinds: Counter[str] = Counter()
    known = True
    for record, image in zip(records, results.images(), strict=True):
        hit, first, five = image.iou >= V1_DELTA, image.predicted == image.label, image.label in record["top"]
        known &= image.predicted is not None
        counts[image.label] += (1, hit, first, hit and first, five, hit and five)
        kinds[image.error] += 1
    names = ("gt_known", "top1_accuracy", "top1_localization", "top5_accuracy", "top5_localization")

    def shares(row: Any) -> dict[str, float | None]:
        return {
            name: float(value * 100.0 / row[0]) if known or name == "gt_known" else None
            for name, value in zip(names, row[1:], strict=True)
        }

    per_class = {
        name: {"n_images": int(row[0]), **shares(row)}
        for name, row in zip(classes, counts, strict=True)
        if row[0]
    }
    errors = {kind: kinds[kind] * 100.0 / len(records) for kind in KINDS if known or kind != "class wrong"}
    return {**shares(counts.sum(axis=0)), "errors": errors, "per_class": per_class}


def _at_thresholds(records: Records, chosen: BoxResults) -> dict[str, Any]:
    """Shares of images hit at the best thresholds of another split."""
    at = chosen.summary["best_thresholds"]
    hits = dict.fromkeys(at, 0)
    for record in records:
        for name, threshold in at.items():
            slot = slots([threshold], int(record["peak"]))[0]
            hit = record["largest"][slot] >= V1_DELTA if name == V1 else record["all"][slot] >= float(name)
            hits[name] += int(hit)
    shares = {name: count * 100.0 / len(records) for name, count in hits.items()}
    per_delta = {str(delta): shares[str(delta)] for delta in V2_DELTAS}
    return {
        "split": chosen.target_set.name,
        "n_images": len(chosen.records),
        "best_thresholds": at,
        "BoxAcc": shares[V1],
        "BoxAccV2": float(np.mean(list(per_delta.values()))),
        "per_delta": per_delta,
    }


def _baselines(target_set: TargetSet, task: BoxTask, thresholds: NDArray[np.float64]) -> dict[str, Any]:
    """The centre box, whose size the threshold chooses, and the whole image, evaluated like a method."""
    grey = quantize(maps.gaussian_map(task.map_size))
    boxes, used = largest_boxes(grey), slots(thresholds, int(grey.max()))
    whole = np.array([[0, 0, task.map_size - 1, task.map_size - 1]])
    center = MaxBoxAcc(thresholds), MaxBoxAccV2(thresholds)
    full = MaxBoxAcc(thresholds[:1]), MaxBoxAccV2(thresholds[:1])
    for target in target_set.targets:
        true_boxes = task.true_boxes(target)
        for accuracy in center:
            accuracy.add(pairwise_iou(boxes, true_boxes).max(axis=1)[used])
        for accuracy in full:
            accuracy.add(pairwise_iou(whole, true_boxes).max(axis=1))
    return {"center_box": _accuracies(*center), "full_image": _accuracies(*full)}


def _accuracies(v1: MaxBoxAcc, v2: MaxBoxAccV2) -> dict[str, Any]:
    return {V1: v1.value, "MaxBoxAccV2": v2.value, "per_delta": {str(d): v2.best(d)[0] for d in v2.deltas}}
