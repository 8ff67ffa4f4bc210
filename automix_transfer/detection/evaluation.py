"""Which evaluator a data set gets."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from automix_transfer.detection.coco_evaluation import ENGINES, COCOEvaluator
from automix_transfer.detection.datasets import complete_builtin_voc
from automix_transfer.detection.voc_evaluation import VOCEvaluator
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
        return COCOEvaluator(name, os.path.join(cfg.OUTPUT_DIR, "inference"), masks=cfg.MODEL.MASK_ON, engine=engine)
    raise UserError(f"data set '{name}' in DATASETS.TEST has no box evaluator here (its kind is '{kind}'); "
                    "use a VOC or COCO data set, or --data-root")
