"""What an evaluation leaves: a table on the screen, ``results.csv`` for every class, and ``results.json``.

The latter says that a run is done, so an evaluation alone writes ``results_eval.csv`` and ``.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from automix_transfer.detection.registered.datasets import class_names_of
from automix_transfer.io import write_json, write_text
from automix_transfer.shown import csv_text

HEADLINE = ("AP", "AP50", "AP75")
RULES = {"bbox": "", "segm": "masks, COCO rule", "bbox_area": "area rule", "bbox_11point": "11-point rule"}
# the files of a run that was trained to its end, and of an evaluation alone
TRAINED, EVALUATED = "results", "results_eval"
ALL = "(all)"  # the row of the means in results.csv


def summarize(
    cfg: CfgNode,
    measured: Mapping[str, Any],
    loaded: str | None,
    iterations: int | None,
    losses: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """AP, AP50 and AP75 of the first test set in percent, every other figure, each class's, and what they are
    figures of.

    Args:
        measured: what Detectron2's ``test`` returns: task -> figure -> value, below data set names where
            there are several.
        loaded: what was loaded, in words; None for a detector that went on from its own checkpoint.
        iterations: that the detector was trained for; None where its file does not say.
        losses: of `validation_losses`, which stand in the result where they were measured.
    """
    by_set = dict(measured) if len(cfg.DATASETS.TEST) > 1 else {name: measured for name in cfg.DATASETS.TEST}
    first = by_set.get(cfg.DATASETS.TEST[0], {}) if cfg.DATASETS.TEST else {}
    return {
        **{key: _number(first.get("bbox", {}).get(key)) for key in HEADLINE},
        "rule": rule_of(first),
        "data": short_name(cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else None,
        "detector": describe(cfg),
        "weights": cfg.MODEL.WEIGHTS,
        "loaded": loaded,
        "iterations": iterations,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "seed": cfg.SEED,
        **({"losses": {key: _number(value) for key, value in losses.items()}} if losses else {}),
        "metrics": {
            short_name(name): {
                task: {key: _number(value) for key, value in figures.items() if "-" not in key}
                for task, figures in tasks.items()
            }
            for name, tasks in by_set.items()
        },
        "per_class": {
            short_name(name): {task: _by_class(figures) for task, figures in tasks.items()}
            for name, tasks in by_set.items()
        },
        "objects": {short_name(name): objects_of(name) for name in by_set},
        "images": {short_name(name): len(DatasetCatalog.get(name)) for name in by_set},
    }


def describe(cfg: CfgNode) -> str:
    """The detector in words; Mask R-CNN's boxes are better than Faster R-CNN's."""
    name = cfg.MODEL.BACKBONE.NAME
    depth = f", depth {cfg.MODEL.RESNETS.DEPTH}" if "resnet" in name and "/" not in name else ""
    return f"{'Mask' if cfg.MODEL.MASK_ON else 'Faster'} R-CNN, {name}{depth}"


def rule_of(tasks: Mapping[str, Any]) -> str:
    """By which rule the boxes' figures of a data set were computed."""
    return (
        "area rule" if "bbox_11point" in tasks else "11-point rule" if "bbox_area" in tasks else "COCO rule"
    )


def objects_of(name: str) -> dict[str, int]:
    """Objects of each class that have to be found in a registered split: not crowds, not difficult ones."""
    classes = class_names_of(name)
    count = dict.fromkeys(classes, 0)
    for record in DatasetCatalog.get(name):
        for item in record.get("annotations", ()):
            if not item.get("iscrowd") and not item.get("difficult"):
                count[classes[item["category_id"]]] += 1
    return count


def write_results(folder: str | Path, results: Mapping[str, Any], stem: str = TRAINED) -> None:
    """Write ``<stem>.csv`` and then ``<stem>.json``; ``results.json`` says that the run is done."""
    keys = list(dict.fromkeys(key for tasks in results["metrics"].values() for key in _columns(tasks)))
    lines: list[list[Any]] = [["data", "rule", "class", "objects", *keys]]
    for data, tasks in results["metrics"].items():
        objects = results["objects"].get(data, {})
        for task, figures in tasks.items():
            rows = {ALL: (sum(objects.values()), figures)} | {
                name: (objects.get(name, ""), found)
                for name, found in results["per_class"][data][task].items()
            }
            for name, (count, found) in rows.items():
                rule = RULES.get(task, task) or rule_of(tasks)
                lines.append([data, rule, name, count, *(csv_cell(found.get(key)) for key in keys)])
    write_text(Path(folder) / f"{stem}.csv", csv_text(lines))
    write_json(Path(folder) / f"{stem}.json", results)


def write_categories(cfg: CfgNode) -> None:
    """Write ``categories.json``: the classes in label order, as COCO's ``categories``."""
    if cfg.DATASETS.TRAIN:
        ids = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_dataset_id_to_contiguous_id", {})
        number = {label: identity for identity, label in ids.items()}
        categories = [
            {"id": number.get(label, label + 1), "name": name}
            for label, name in enumerate(class_names_of(cfg.DATASETS.TRAIN[0]))
        ]
        write_json(Path(cfg.OUTPUT_DIR) / "categories.json", categories)


def table(results: Mapping[str, Any]) -> str:
    """The figures as text: by every rule, then each class by the headline's."""
    parts = []
    for data, tasks in results["metrics"].items():
        keys = [key for key in _columns(tasks) if not key.startswith("AR")]
        rows = [
            [
                RULES.get(task, task) or f"{rule_of(tasks)} (headline)",
                *(percent(found.get(key)) for key in keys),
            ]
            for task, found in tasks.items()
        ]
        objects = results["objects"].get(data, {})
        of_classes = [
            [name, str(objects.get(name, "")), *(percent(found.get(key)) for key in HEADLINE)]
            for name, found in results["per_class"][data].get("bbox", {}).items()
        ]
        heads = [f"{data}, %", *keys], ["class", "objects", *HEADLINE]
        parts += [aligned(head, body) for head, body in zip(heads, (rows, of_classes), strict=True) if body]
    return "\n\n".join(parts)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "simple") -> str:
    """A table in one of tabulate's styles: the first column to the left, the others to the right."""
    align = ["left", *["right"] * (len(head) - 1)]
    return tabulate(rows, head, style, colalign=align, disable_numparse=True)


def percent(value: float | None) -> str:
    """Two decimals; a dash where nothing was to be found."""
    return "–" if value is None else f"{value:.2f}"


def short_name(name: str) -> str:
    """Folders of ours are registered by their path."""
    return Path(name).name


def _by_class(figures: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """``{"AP50-traffic light": 3.0}`` -> ``{"traffic light": {"AP50": 3.0}}``."""
    found: dict[str, dict[str, float | None]] = {}
    for key, value in figures.items():
        figure, dash, name = key.partition("-")
        if dash:
            found.setdefault(name, {})[figure] = _number(value)
    return found


def _columns(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for figures in tasks.values() for key in figures))


def csv_cell(value: float | None) -> str:
    """Four decimals; nothing where there is no figure."""
    return "" if value is None else f"{value:.4f}"


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)
