"""PASCAL VOC average precision, by the 11-point and by the area rule, at IoU 0.50 to 0.95.

The arithmetic is that of the VOC devkit as Detectron2 has it: boxes are inclusive (a side is x1 - x0 + 1), a
detection belongs to the ground truth of largest IoU and hits where that IoU is *above* the threshold, later
hits on the same object are false, and difficult objects count neither way. Scores are rounded to 3 decimals
and boxes to 1, as Detectron2 rounds them, so that numbers are comparable; equal scores keep the order in
which the detector gave them. All thresholds share one computation of the IoUs.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

THRESHOLDS = tuple(t / 100 for t in range(50, 100, 5))
RULES = ("11-point", "area")

# image id, score, box x0 y0 x1 y1 (1-based, inclusive)
Detection = tuple[str, float, tuple[float, float, float, float]]
Truth = Mapping[str, tuple[np.ndarray, np.ndarray]]  # image id -> boxes (M, 4) likewise, difficult (M,) bool


class VOCEvaluator(DatasetEvaluator):
    """Evaluates on a registered VOC data set; call from every process.

    ``bbox`` holds AP (mean over `THRESHOLDS`), AP50 and AP75 in percent, of all classes and of each
    (``AP50-dog``), by the headline's rule, which is Detectron2's, so that figures compare with those of
    papers that used it: 11-point for 2007, area otherwise. ``bbox_area`` or ``bbox_11point`` holds the same
    by the other rule. Classes of which the split has no object that is not difficult are left out,
    of the means too (Detectron2's figures are NaN then).
    """

    def __init__(self, dataset_name: str):
        metadata = MetadataCatalog.get(dataset_name)
        self.classes: list[str] = list(metadata.thing_classes)
        self.tasks = tasks_of(metadata.year)
        self.truth = ground_truth(DatasetCatalog.get(dataset_name), len(self.classes))
        self.reset()

    def reset(self) -> None:
        self.detections: dict[int, list[Detection]] = defaultdict(list)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        for given, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            fields = (
                instances.pred_boxes.tensor.tolist(),
                instances.scores.tolist(),
                instances.pred_classes.tolist(),
            )
            for box, score, label in zip(*fields, strict=True):
                x0, y0, x1, y1 = (float(f"{value:.1f}") for value in (box[0] + 1, box[1] + 1, box[2], box[3]))
                self.detections[label].append(
                    (str(given["image_id"]), float(f"{score:.3f}"), (x0, y0, x1, y1))
                )

    def evaluate(self) -> dict[str, dict[str, float]]:
        gathered = comm.gather(dict(self.detections), dst=0)
        if not comm.is_main_process():
            return {}
        seen = {}
        for label, name in enumerate(self.classes):
            detections = [found for part in gathered for found in part.get(label, ())]
            curves = precision_recall(detections, self.truth[label])
            if curves is not None:
                seen[name] = curves
        results: dict[str, dict[str, float]] = OrderedDict()
        for rule, task in self.tasks.items():
            ap = {
                name: np.array([100 * average_precision(*curve, rule) for curve in curves])
                for name, curves in seen.items()
            }
            figures = _figures(np.mean(list(ap.values()), axis=0)) if ap else {}
            for name, values in ap.items():
                figures |= {f"{key}-{name}": value for key, value in _figures(values).items()}
            results[task] = figures
        return results


def tasks_of(year: int) -> dict[str, str]:
    """Rule -> what its figures are called in the results of a data set of ``year``; first the headline's,
    ``bbox``."""
    headline, other = RULES if year == 2007 else RULES[::-1]
    return {headline: "bbox", other: f"bbox_{other.replace('-', '')}"}


def _figures(by_threshold: np.ndarray) -> dict[str, float]:
    return {
        "AP": float(by_threshold.mean()),
        "AP50": float(by_threshold[THRESHOLDS.index(0.5)]),
        "AP75": float(by_threshold[THRESHOLDS.index(0.75)]),
    }


def ground_truth(
    records: Sequence[Mapping[str, Any]], classes: int
) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """For each class the objects of each image, from Detectron2 records whose annotations say ``difficult``;
    boxes 1-based, inclusive."""
    found: list[dict[str, tuple[list, list]]] = [{} for _ in range(classes)]
    for record in records:
        for item in record["annotations"]:
            boxes, difficult = found[item["category_id"]].setdefault(str(record["image_id"]), ([], []))
            x0, y0, x1, y1 = item["bbox"]
            boxes.append((x0 + 1, y0 + 1, x1, y1))
            difficult.append(bool(item.get("difficult", False)))
    return [
        {image: (np.array(boxes, float), np.array(flags, bool)) for image, (boxes, flags) in of_class.items()}
        for of_class in found
    ]


def precision_recall(
    detections: Sequence[Detection], truth: Truth
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """(recall, precision), each (D,), at every threshold of `THRESHOLDS`; None where there is no object to
    find."""
    first, total, easy = {}, 0, []
    for image, (_, difficult) in truth.items():
        first[image] = total  # objects are numbered through all images
        total += len(difficult)
        easy.append(~difficult)
    is_easy = np.concatenate(easy) if easy else np.zeros(0, bool)
    positives = int(is_easy.sum())
    if not positives:
        return None
    order = np.argsort(-np.array([score for _, score, _ in detections]), kind="stable")
    overlap, target = np.full(len(order), -np.inf), np.zeros(len(order), int)
    for rank, number in enumerate(order):
        image, _, box = detections[number]
        if image in truth:
            overlaps = inclusive_iou(np.array(box), truth[image][0])
            best = int(overlaps.argmax())
            overlap[rank], target[rank] = overlaps[best], first[image] + best
    curves = []
    for threshold in THRESHOLDS:
        matched = overlap > threshold
        hits = np.flatnonzero(matched & is_easy[target])
        true = np.zeros(len(order), bool)
        # the best-scored detection of each object
        true[hits[np.unique(target[hits], return_index=True)[1]]] = True
        false = ~true & ~(matched & ~is_easy[target])
        true_sum, false_sum = np.cumsum(true), np.cumsum(false)
        curves.append(
            (true_sum / positives, true_sum / np.maximum(true_sum + false_sum, np.finfo(float).eps))
        )
    return curves


def average_precision(recall: np.ndarray, precision: np.ndarray, rule: str) -> float:
    """Area under a precision-recall curve: the mean of 11 interpolated precisions, or exactly the area under
    the envelope."""
    if rule == "11-point":
        return sum(precision[recall >= level].max(initial=0.0) / 11 for level in np.arange(0.0, 1.1, 0.1))
    recall, precision = np.concatenate([[0.0], recall, [1.0]]), np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * envelope[steps + 1]).sum())


def inclusive_iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (M,) of one box (4,) with boxes (M, 4), sides counted inclusively."""
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + 1, 0)
    inside = sides.prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    return inside / ((box[2:] - box[:2] + 1).prod() + areas - inside)
