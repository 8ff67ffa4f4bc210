"""VOC's AP against Detectron2's own evaluator, pycocotools and figures worked out by hand."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detection.tiny import CLASSES, write_voc


class Instances:
    """The part of Detectron2's Instances that evaluators read, from plain lists."""

    def __new__(cls, boxes, scores, labels):
        from detectron2.structures import Boxes
        from detectron2.structures import Instances as Real

        found = Real((64, 80))
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores, found.pred_classes = (
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(labels, dtype=torch.int64),
        )
        return found


@pytest.fixture()
def data(tmp_path) -> tuple[str, Path]:
    from automix_transfer.detection.registered.datasets import register_folder

    root = write_voc(tmp_path / "VOC2007")
    hard = root / "Annotations" / "000005.xml"
    hard.write_text(hard.read_text().replace("<difficult>0", "<difficult>1"))
    return register_folder(root).test[0], root


def detections(name: str, seed: int) -> list[tuple[dict, dict]]:
    """For each image: its objects, shifted a little, twice, and random boxes; scores differ from each other
    in the third decimal."""
    from detectron2.data import DatasetCatalog

    rng = np.random.default_rng(seed)
    records = DatasetCatalog.get(name)
    scores = list(rng.permutation(np.arange(1, 999))[: 8 * len(records)] / 1000)
    found = []
    for record in records:
        true = np.array([item["bbox"] for item in record["annotations"]])
        boxes = np.concatenate(
            [
                np.repeat(true, 3, 0) + rng.normal(0, 2, (3 * len(true), 4)),
                rng.uniform(0, 30, (4, 4)) + [0, 0, 20, 20],
            ]
        )
        labels = [item["category_id"] for item in record["annotations"] for _ in range(3)] + list(
            rng.integers(0, 2, 4)
        )
        found.append(
            (
                {"image_id": record["image_id"]},
                {"instances": Instances(boxes, [scores.pop() for _ in boxes], labels)},
            )
        )
    return found


def evaluate(evaluator, found) -> dict:
    evaluator.reset()
    for sample, output in found:
        evaluator.process([sample], [output])
    return evaluator.evaluate()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("year", [2007, 2012])
def test_equals_detectron2(data, year, seed):
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    name, _ = data
    metadata = MetadataCatalog.get(name).as_dict() | {"year": year}
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**{key: value for key, value in metadata.items() if key != "name"})
    found = detections(name, seed)
    ours, theirs = evaluate(VOCEvaluator(name), found), evaluate(PascalVOCDetectionEvaluator(name), found)
    for key in ("AP", "AP50", "AP75"):
        assert ours["bbox"][key] == pytest.approx(theirs["bbox"][key], abs=1e-9)
    assert ours["bbox"]["AP"] == pytest.approx(np.mean([ours["bbox"][f"AP-{label}"] for label in CLASSES]))


def test_perfect_detections_are_100_by_both_rules(data):
    from detectron2.data import DatasetCatalog

    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    name, _ = data
    found = [
        (
            {"image_id": record["image_id"]},
            {
                "instances": Instances(
                    [item["bbox"] for item in record["annotations"]],
                    [0.9] * len(record["annotations"]),
                    [item["category_id"] for item in record["annotations"]],
                )
            },
        )
        for record in DatasetCatalog.get(name)
    ]
    result = evaluate(VOCEvaluator(name), found)
    for rule in ("bbox", "bbox_area"):
        assert all(result[rule][key] == pytest.approx(100) for key in ("AP", "AP50", "AP75"))
    assert evaluate(VOCEvaluator(name), [])["bbox"]["AP"] == 0


def test_worked_out_by_hand():
    """Two objects; hit, miss, hit: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; a difficult object counts
    neither way."""
    from automix_transfer.detection.scores.voc_evaluation import average_precision, precision_recall

    box, away = (1.0, 1.0, 20.0, 20.0), (40.0, 40.0, 60.0, 60.0)
    truth = {"a": (np.array([box]), np.array([False])), "b": (np.array([box, away]), np.array([False, True]))}
    found = [("a", 0.9, box), ("a", 0.8, box), ("b", 0.7, box), ("b", 0.6, away), ("c", 0.0, box)]
    recall, precision = precision_recall(found[:4], truth)[0]
    assert recall.tolist() == [0.5, 0.5, 1.0, 1.0] and precision.tolist() == pytest.approx(
        [1, 1 / 2, 2 / 3, 2 / 3]
    )
    assert average_precision(recall, precision, "area") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(recall, precision, "11-point") == pytest.approx((6 + 5 * 2 / 3) / 11)
    # an image without objects: a false detection
    assert precision_recall(found, truth)[0][1][-1] == pytest.approx(2 / 4)
    assert precision_recall(found, {}) is None


def test_near_pycocotools_on_the_same_detections(data):
    """Two rules for one thing: boxes inclusive against exclusive, all points against 101; figures agree to a
    few points."""
    from detectron2.data import DatasetCatalog
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    name, _ = data
    records = DatasetCatalog.get(name)
    found = detections(name, seed=11)
    number = {record["image_id"]: index + 1 for index, record in enumerate(records)}

    def wide(box):
        x0, y0, x1, y1 = (float(value) for value in box)
        return [x0, y0, x1 - x0, y1 - y0]

    annotations = [
        {
            "id": 0,
            "image_id": number[record["image_id"]],
            "category_id": item["category_id"] + 1,
            "bbox": wide(item["bbox"]),
            "area": 100.0,
            "iscrowd": int(item["difficult"]),
        }
        for record in records
        for item in record["annotations"]
    ]
    for index, item in enumerate(annotations):
        item["id"] = index + 1
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": index} for index in number.values()],
            "annotations": annotations,
            "info": {},
            "categories": [{"id": 1, "name": CLASSES[0]}, {"id": 2, "name": CLASSES[1]}],
        }
        truth.createIndex()
        results = truth.loadRes(
            [
                {
                    "image_id": number[given["image_id"]],
                    "category_id": int(label) + 1,
                    "bbox": wide(box),
                    "score": float(score),
                }
                for given, output in found
                for box, score, label in zip(
                    output["instances"].pred_boxes.tensor,
                    output["instances"].scores,
                    output["instances"].pred_classes,
                    strict=True,
                )
            ]
        )
        coco = COCOeval(truth, results, "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    result = evaluate(VOCEvaluator(name), found)["bbox_area"]
    assert result["AP50"] == pytest.approx(100 * coco.stats[1], abs=6)
    assert result["AP"] == pytest.approx(100 * coco.stats[0], abs=8)


def devkit(detections, truth, threshold, rule) -> float | None:
    """AP of one class, as the VOC devkit reads: one detection after the other, plain Python, no array in
    sight."""
    used = {image: [False] * len(boxes) for image, (boxes, _) in truth.items()}
    positives = sum(not hard for _, difficult in truth.values() for hard in difficult)
    if not positives:
        return None
    points, hits, misses = [], 0, 0
    for image, _, box in sorted(detections, key=lambda found: -found[1]):  # sorted() keeps the order of ties
        best, which = -1.0, -1
        for number, true in enumerate(truth[image][0] if image in truth else ()):
            wide = min(box[2], true[2]) - max(box[0], true[0]) + 1
            high = min(box[3], true[3]) - max(box[1], true[1]) + 1
            shared = max(wide, 0) * max(high, 0)
            union = (
                (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                + (true[2] - true[0] + 1) * (true[3] - true[1] + 1)
                - shared
            )
            if shared / union > best:
                best, which = shared / union, number
        if best <= threshold:
            misses += 1
        elif not truth[image][1][which]:
            hits, misses = (hits, misses + 1) if used[image][which] else (hits + 1, misses)
            used[image][which] = True
        points.append((hits / positives, hits / (hits + misses) if hits + misses else 0.0))
    if rule == "11-point":
        return (
            sum(max((p for r, p in points if r >= level), default=0.0) for level in np.arange(0.0, 1.1, 0.1))
            / 11
        )
    area, reached = 0.0, 0.0
    for number, (recall, _) in enumerate(points):
        area += (recall - reached) * max(p for _, p in points[number:])
        reached = recall
    return area


CORNER, SIDE = st.integers(1, 30), st.integers(4, 20)
BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
SCORE = st.sampled_from([0.1, 0.2, 0.2, 0.5, 0.9])  # many ties


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.tuples(BOX, st.booleans()), min_size=1, max_size=4)),
    st.lists(st.tuples(st.sampled_from("abcd"), SCORE, BOX), max_size=12),
    st.data(),
)
@settings(max_examples=60)
def test_equals_a_brute_force_devkit(objects, stray, data):
    """Every threshold, both rules, ties, difficult objects, images without objects: against an implementation
    that shares nothing."""
    from automix_transfer.detection.scores.voc_evaluation import (
        RULES,
        THRESHOLDS,
        average_precision,
        precision_recall,
    )

    near = [
        (image, data.draw(SCORE), tuple(float(v + data.draw(st.integers(-2, 2))) for v in box))
        for image, items in objects.items()
        for box, _ in items
        for _ in range(data.draw(st.integers(0, 2)))
    ]
    detections = data.draw(st.permutations([*stray, *near]))
    truth = {
        image: (np.array([box for box, _ in items]), np.array([hard for _, hard in items]))
        for image, items in objects.items()
    }
    curves = precision_recall(detections, truth)
    for number, threshold in enumerate(THRESHOLDS):
        for rule in RULES:
            wanted = devkit(detections, truth, threshold, rule)
            found = None if curves is None else average_precision(*curves[number], rule)
            assert found == (None if wanted is None else pytest.approx(wanted, abs=1e-12))


def test_rounding_is_detectron2s_and_decides_ties(data):
    """Scores of .9004 and .8996 are both .900 there: the order of detection decides, not the fourth decimal.
    Boxes have one decimal."""
    from detectron2.data import DatasetCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    name, _ = data
    record = DatasetCatalog.get(name)[0]
    item = record["annotations"][0]
    x0, y0, x1, y1 = item["bbox"]
    boxes = [[x0 + 40, y0, x1 + 40, y1], [x0 + 0.04, y0, x1, y1]]
    found = [
        (
            {"image_id": record["image_id"]},
            {"instances": Instances(boxes, [0.8996, 0.9004], [item["category_id"]] * 2)},
        )
    ]
    ours, theirs = evaluate(VOCEvaluator(name), found), evaluate(PascalVOCDetectionEvaluator(name), found)
    assert ours["bbox"]["AP50"] == pytest.approx(theirs["bbox"]["AP50"], abs=1e-9)
    best_first = evaluate(
        VOCEvaluator(name),
        [
            (
                {"image_id": record["image_id"]},
                {"instances": Instances(boxes[::-1], [0.9004, 0.8996], [item["category_id"]] * 2)},
            )
        ],
    )
    assert best_first["bbox"]["AP50"] > ours["bbox"]["AP50"]


def test_a_class_without_objects_is_left_out_rather_than_nan(data):
    """Its only object is difficult, so there is nothing to find; Detectron2's mean is NaN then."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    name, _ = data
    records = [
        record
        for record in DatasetCatalog.get(name)
        if record["annotations"][0]["category_id"] == 0 or record["annotations"][0]["difficult"]
    ]
    assert {item["category_id"] for record in records for item in record["annotations"]} == {0, 1}
    other = f"{name}-part"
    DatasetCatalog.register(other, lambda: records)
    MetadataCatalog.get(other).set(thing_classes=list(CLASSES), year=2007)
    try:
        result = evaluate(VOCEvaluator(other), detections(other, seed=3))
    finally:
        DatasetCatalog.remove(other)
        MetadataCatalog.remove(other)
    for figures in result.values():
        assert np.isfinite(list(figures.values())).all()
        assert f"AP-{CLASSES[0]}" in figures and f"AP-{CLASSES[1]}" not in figures
        assert figures["AP50"] == figures[f"AP50-{CLASSES[0]}"]


def test_both_rules_have_every_class(data):
    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    name, _ = data
    result = evaluate(VOCEvaluator(name), detections(name, seed=1))
    # 2007: the 11-point rule is the headline, as Detectron2's evaluator has it
    assert list(result) == ["bbox", "bbox_area"]
    for figures in result.values():
        for key in ("AP", "AP50", "AP75"):
            assert figures[key] == pytest.approx(np.mean([figures[f"{key}-{label}"] for label in CLASSES]))
