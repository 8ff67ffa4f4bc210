"""VOC's AP against Detectron2's own evaluator, pycocotools and figures worked out by hand."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.tiny import CLASSES, write_voc


class Instances:
    """The part of Detectron2's Instances that evaluators read, from plain lists."""

    def __new__(cls, boxes, scores, labels):
        from detectron2.structures import Boxes
        from detectron2.structures import Instances as Real

        found = Real((64, 80))
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores, found.pred_classes = torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)
        return found


@pytest.fixture()
def data(tmp_path) -> tuple[str, Path]:
    from automix_transfer.detection.datasets import register_folder

    root = write_voc(tmp_path / "VOC2007")
    hard = root / "Annotations" / "000005.xml"
    hard.write_text(hard.read_text().replace("<difficult>0", "<difficult>1"))
    return register_folder(root).test[0], root


def detections(name: str, seed: int) -> list[tuple[dict, dict]]:
    """For each image: its objects, shifted a little, twice, and random boxes; scores differ from each other in the third decimal."""
    from detectron2.data import DatasetCatalog

    rng = np.random.default_rng(seed)
    records = DatasetCatalog.get(name)
    scores = list(rng.permutation(np.arange(1, 999))[: 8 * len(records)] / 1000)
    found = []
    for record in records:
        true = np.array([item["bbox"] for item in record["annotations"]])
        boxes = np.concatenate([np.repeat(true, 3, 0) + rng.normal(0, 2, (3 * len(true), 4)), rng.uniform(0, 30, (4, 4)) + [0, 0, 20, 20]])
        labels = [item["category_id"] for item in record["annotations"] for _ in range(3)] + list(rng.integers(0, 2, 4))
        found.append(({"image_id": record["image_id"]}, {"instances": Instances(boxes, [scores.pop() for _ in boxes], labels)}))
    return found


def evaluate(evaluator, found) -> dict:
    evaluator.reset()
    for given, output in found:
        evaluator.process([given], [output])
    return evaluator.evaluate()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("year", [2007, 2012])
def test_equals_detectron2(data, year, seed):
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from automix_transfer.detection.voc_evaluation import VOCEvaluator

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

    from automix_transfer.detection.voc_evaluation import VOCEvaluator

    name, _ = data
    found = [({"image_id": record["image_id"]}, {"instances": Instances([item["bbox"] for item in record["annotations"]],
              [0.9] * len(record["annotations"]), [item["category_id"] for item in record["annotations"]])})
             for record in DatasetCatalog.get(name)]
    result = evaluate(VOCEvaluator(name), found)
    for rule in ("bbox", "bbox_area"):
        assert all(result[rule][key] == pytest.approx(100) for key in ("AP", "AP50", "AP75"))
    assert evaluate(VOCEvaluator(name), [])["bbox"]["AP"] == 0


def test_worked_out_by_hand():
    """Two objects; hit, miss, hit: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; a difficult object counts neither way."""
    from automix_transfer.detection.voc_evaluation import average_precision, precision_recall

    box, away = (1.0, 1.0, 20.0, 20.0), (40.0, 40.0, 60.0, 60.0)
    truth = {"a": (np.array([box]), np.array([False])), "b": (np.array([box, away]), np.array([False, True]))}
    found = [("a", 0.9, box), ("a", 0.8, box), ("b", 0.7, box), ("b", 0.6, away), ("c", 0.0, box)]
    recall, precision = precision_recall(found[:4], truth)[0]
    assert recall.tolist() == [0.5, 0.5, 1.0, 1.0] and precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 2 / 3])
    assert average_precision(recall, precision, "area") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(recall, precision, "11-point") == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert precision_recall(found, truth)[0][1][-1] == pytest.approx(2 / 4)  # an image without objects: a false detection
    assert precision_recall(found, {}) is None


def test_near_pycocotools_on_the_same_detections(data):
    """Two rules for one thing: boxes inclusive against exclusive, all points against 101; figures agree to a few points."""
    from detectron2.data import DatasetCatalog
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from automix_transfer.detection.voc_evaluation import VOCEvaluator

    name, _ = data
    records = DatasetCatalog.get(name)
    found = detections(name, seed=11)
    number = {record["image_id"]: index + 1 for index, record in enumerate(records)}

    def wide(box):
        x0, y0, x1, y1 = (float(value) for value in box)
        return [x0, y0, x1 - x0, y1 - y0]

    annotations = [{"id": 0, "image_id": number[record["image_id"]], "category_id": item["category_id"] + 1, "bbox": wide(item["bbox"]),
                    "area": 100.0, "iscrowd": int(item["difficult"])} for record in records for item in record["annotations"]]
    for index, item in enumerate(annotations):
        item["id"] = index + 1
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": index} for index in number.values()], "annotations": annotations, "info": {},
                         "categories": [{"id": 1, "name": CLASSES[0]}, {"id": 2, "name": CLASSES[1]}]}
        truth.createIndex()
        results = truth.loadRes([
            {"image_id": number[given["image_id"]], "category_id": int(label) + 1, "bbox": wide(box), "score": float(score)}
            for given, output in found for box, score, label in
            zip(output["instances"].pred_boxes.tensor, output["instances"].scores, output["instances"].pred_classes, strict=True)])
        coco = COCOeval(truth, results, "bbox")
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    result = evaluate(VOCEvaluator(name), found)["bbox_area"]
    assert result["AP50"] == pytest.approx(100 * coco.stats[1], abs=6)
    assert result["AP"] == pytest.approx(100 * coco.stats[0], abs=8)
