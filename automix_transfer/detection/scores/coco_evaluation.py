"""COCO's AP family, per class too, by pycocotools or, with identical figures, by the faster hotcoco.

The engine matches detections and fills COCO's arrays of precision and recall; the means over them are taken
here, once for both. Against Detectron2's evaluator: classes keep their own AP whatever their order or subset
(`--class-names`), an annotation with id 0 counts (to pycocotools 0 means "not matched"), a detector that
finds nothing has AP 0 rather than NaN, and AP50 and AP75 of each class are there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from automix_transfer.data.detection.coco import load_coco
from automix_transfer.errors import UserError
from automix_transfer.io import write_text

ENGINES = ("pycocotools", "hotcoco")
HOTCOCO = "hotcoco>=1.3"

#: figure -> (array, index of the IoU threshold or None for all, of the area range, of the largest number of
#: detections)
FIGURES: dict[str, tuple[str, int | None, int, int]] = {
    "AP": ("precision", None, 0, 2),
    "AP50": ("precision", 0, 0, 2),
    "AP75": ("precision", 5, 0, 2),
    "APs": ("precision", None, 1, 2),
    "APm": ("precision", None, 2, 2),
    "APl": ("precision", None, 3, 2),
    "AR1": ("recall", None, 0, 0),
    "AR10": ("recall", None, 0, 1),
    "AR100": ("recall", None, 0, 2),
    "ARs": ("recall", None, 1, 2),
    "ARm": ("recall", None, 2, 2),
    "ARl": ("recall", None, 3, 2),
}
CLASS_FIGURES = ("AP", "AP50", "AP75")


class COCOEvaluator(DatasetEvaluator):
    """Evaluates boxes, and masks where the detector has them, on a registered COCO data set; call from every
    process.

    ``bbox`` (and ``segm``) hold `FIGURES` in percent and AP, AP50 and AP75 of each class (``AP-person``).
    What is not defined, such as APs of a split without small objects, is left out.
    ``coco_instances_results.json`` in ``output`` has the detections.
    """

    def __init__(
        self,
        dataset_name: str,
        output: str | Path | None = None,
        masks: bool = False,
        engine: str = ENGINES[0],
    ):
        metadata = MetadataCatalog.get(dataset_name)
        self.truth = truth_of(PathManager.get_local_path(metadata.json_file), dataset_name)
        labels = metadata.thing_dataset_id_to_contiguous_id
        self.category = {label: number for number, label in labels.items()}
        self.classes: list[str] = list(metadata.thing_classes)
        self.output, self.tasks, self.engine = output, ("bbox", "segm") if masks else ("bbox",), engine
        check_engine(engine)
        self.reset()

    def reset(self) -> None:
        self.detections: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        for given, output in zip(inputs, outputs, strict=True):
            for found in instances_to_coco_json(output["instances"].to("cpu"), given["image_id"]):
                self.detections.append({**found, "category_id": self.category[found["category_id"]]})

    def evaluate(self) -> dict[str, dict[str, float]]:
        gathered = comm.gather(self.detections, dst=0)
        if not comm.is_main_process():
            return {}
        detections = [found for part in gathered for found in part]
        if self.output is not None:
            write_text(Path(self.output) / "coco_instances_results.json", json.dumps(detections))
        # the test sets whose annotations are secret: the file above is what their server wants
        if self.truth is None:
            return {}
        names = {self.category[label]: name for label, name in enumerate(self.classes)}
        results: dict[str, dict[str, float]] = OrderedDict()
        for task in self.tasks:
            numbers = sorted(names, key=by_kind)
            arrays = match(self.truth, detections, numbers, task, self.engine)
            results[task] = figures(arrays)
            for position, number in enumerate(numbers):
                of_class = figures(arrays, position)
                results[task] |= {
                    f"{key}-{names[number]}": of_class[key] for key in CLASS_FIGURES if key in of_class
                }
        return results


def truth_of(file: str | Path, dataset_name: str) -> dict[str, Any] | None:
    """The ground truth of a registered data set in COCO's instances format, from its file: every box as it is
    there, and what other tools leave out filled in. None where the annotations are secret."""
    content = load_coco(file)
    if content.secret:
        return None
    sizes: dict[Any, tuple[int, int]] = {}
    if any(None in (image["height"], image["width"]) for image in content.images):
        records = DatasetCatalog.get(dataset_name)
        sizes = {record["image_id"]: (record["height"], record["width"]) for record in records}
    images, part = [], MetadataCatalog.get(dataset_name).get("image_ids")  # of a part of a data set
    for image in content.images:
        if part is not None and image["id"] not in part:
            continue
        height, width = sizes.get(image["id"], (image["height"], image["width"]))
        images.append({**image, "height": height, "width": width})
    categories = [{"id": number, "name": name} for number, name in content.categories.items()]
    annotations = content.annotations
    if part is not None:
        annotations = [item for item in annotations if item["image_id"] in part]
    return {"images": images, "categories": categories, "annotations": annotations}


def by_kind(identifier: int | str) -> tuple[bool, int | str]:
    """Sorts ids: numbers, then text."""
    return isinstance(identifier, str), identifier


def _numbered(identifiers: Sequence[int | str]) -> dict[int | str, int]:
    """A number for each id, in their order, which decides between equal scores; numbers stay."""
    if not any(isinstance(identifier, str) for identifier in identifiers):
        return {identifier: int(identifier) for identifier in identifiers}
    return {identifier: number for number, identifier in enumerate(sorted(identifiers, key=by_kind), 1)}


@dataclass(frozen=True)
class Arrays:
    """COCO's ``precision`` (T, R, K, A, M) and ``recall`` (T, K, A, M); -1 where there is nothing to find.

    T: IoU thresholds .50 to .95; R: 101 levels of recall; K: classes; A: all, small, medium, large; M: at
    most 1, 10, 100 detections.
    """

    precision: np.ndarray
    recall: np.ndarray


def check_engine(engine: str) -> None:
    """Refuse an engine that is unknown or not installed."""
    if engine not in ENGINES:
        raise UserError(f"--coco-evaluator {engine} is unknown; choose one of {', '.join(ENGINES)}")
    if importlib.util.find_spec(engine) is None:
        remedy = {"hotcoco": f"pip install '{HOTCOCO}', or leave the option out"}.get(engine, "install it")
        raise UserError(
            f"--coco-evaluator {engine} needs the package {engine}, which is not installed; {remedy}"
        )


def match(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    categories: Sequence[int | str],
    task: str = "bbox",
    engine: str = ENGINES[0],
) -> Arrays:
    """Match ``detections`` (COCO's result format) with ``truth`` (COCO's instances format) in each of
    ``categories`` (ids, ascending).
    Ids are numbers or text.

    Args:
        task: ``bbox`` or ``segm``.
    """
    image = _numbered([item["id"] for item in truth["images"]])
    category = _numbered([item["id"] for item in truth["categories"]])

    def copied(item: Mapping[str, Any]) -> dict[str, Any]:  # since pycocotools writes into both
        return {**item, "image_id": image[item["image_id"]], "category_id": category[item["category_id"]]}

    # ids from 1, since pycocotools takes a match with annotation 0 for none
    annotations = [{**copied(item), "id": number} for number, item in enumerate(truth["annotations"], 1)]
    numbered = {
        "info": {},
        "images": [{**item, "id": image[item["id"]]} for item in truth["images"]],
        "categories": [{**item, "id": category[item["id"]]} for item in truth["categories"]],
        "annotations": annotations,
    }
    found = [copied(item) for item in detections]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = {"pycocotools": _pycocotools, "hotcoco": _hotcoco}[engine](numbered, found, task)
        evaluation.params.catIds = [category[number] for number in categories]
        evaluation.evaluate()
        evaluation.accumulate()
    return Arrays(np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"]))


def figures(arrays: Arrays, position: int | None = None) -> dict[str, float]:
    """`FIGURES` in percent, of all classes or of the one at ``position``; what has no object is left out."""
    result = {}
    for name, (kind, threshold, area, most) in FIGURES.items():
        values = (arrays.precision if kind == "precision" else arrays.recall)[..., area, most]
        values = values if threshold is None else values[threshold : threshold + 1]
        values = values if position is None else values[..., position]
        values = values[values > -1]
        if values.size:
            result[name] = 100 * float(np.mean(values))
    return result


def _pycocotools(truth: dict[str, Any], found: list[dict[str, Any]], task: str) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true, results = COCO(), COCO()
    true.dataset = truth
    true.createIndex()
    if found:
        results = true.loadRes(found)
    else:  # loadRes fails on an empty list
        results.dataset = {**truth, "annotations": []}
        results.createIndex()
    return COCOeval(true, results, task)


def _hotcoco(truth: dict[str, Any], found: list[dict[str, Any]], task: str) -> Any:
    import hotcoco

    true = hotcoco.COCO(truth)
    return hotcoco.COCOeval(true, true.loadRes(found), task)
