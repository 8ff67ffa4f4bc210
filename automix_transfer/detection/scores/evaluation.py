"""Which evaluator a data set gets, and which figures it gives."""

from __future__ import annotations

import difflib
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from automix_transfer.detection.registered.datasets import class_names_of, complete_builtin_voc
from automix_transfer.detection.scores.coco_evaluation import CLASS_FIGURES, ENGINES, FIGURES, COCOEvaluator
from automix_transfer.detection.scores.validation_loss import TOTAL
from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator, tasks_of
from automix_transfer.errors import UserError


def build_evaluator(cfg: CfgNode, name: str, engine: str = ENGINES[0]) -> DatasetEvaluator:
    """VOC's AP, or COCO's by ``engine``; for folders of ours and for Detectron2's names.

    Raises:
        UserError: the data set is for neither, or the engine is not installed.
    """
    kind = MetadataCatalog.get(name).get("evaluator_type", "unknown")
    if kind == "pascal_voc":
        complete_builtin_voc(name)
        return VOCEvaluator(name)
    if kind == "coco":
        return COCOEvaluator(
            name, os.path.join(cfg.OUTPUT_DIR, "inference"), masks=cfg.MODEL.MASK_ON, engine=engine
        )
    raise UserError(
        f"data set '{name}' in DATASETS.TEST has no box evaluator here (its kind is '{kind}'); "
        "use a VOC or COCO data set, or --data-root"
    )


def check_metric(cfg: CfgNode, metric: str) -> None:
    """A `UserError` where no evaluation on ``DATASETS.TEST`` gives ``metric``, before any training."""
    if metric == TOTAL and not cfg.TEST.LOSS:
        raise UserError(f"--best-metric {metric} is measured with TEST.LOSS True; add it")
    known = metrics_of(cfg)
    if known and metric not in known:
        close = difflib.get_close_matches(metric, known, n=1)
        hint = f"did you mean {close[0]}? There are also" if close else "there are"
        means = ", ".join(name for name in known if "-" not in name.rpartition("/")[2])
        raise UserError(
            f"--best-metric {metric} is nothing that is measured here; {hint} {means}, and "
            f"{known[-1]} for a class"
        )


def metrics_of(cfg: CfgNode) -> list[str]:
    """Every figure of ``DATASETS.TEST`` as Detectron2 logs it: ``bbox/AP50``, ``bbox_area/AP75-dog``; of
    several sets, each with its name before it; and ``val_loss``, where it is measured. Empty where a set has
    no evaluator here."""
    found: list[str] = []
    for data in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(data)
        kind = metadata.get("evaluator_type", "unknown")
        tasks: tuple[str, ...]
        figures: tuple[str, ...] = CLASS_FIGURES
        if kind == "pascal_voc":
            tasks = tuple(tasks_of(metadata.year).values())
        elif kind == "coco":
            tasks, figures = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",), tuple(FIGURES)
        else:
            return []
        of_classes = (f"{figure}-{name}" for name in class_names_of(data) for figure in CLASS_FIGURES)
        before = f"{data}/" if len(cfg.DATASETS.TEST) > 1 else ""
        found += [f"{before}{task}/{figure}" for figure in (*figures, *of_classes) for task in tasks]
    return [TOTAL, *found] if cfg.TEST.LOSS else found
