"""What a trained detector finds on a few test images, for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.modeling import build_model
from numpy.typing import NDArray

from automix_transfer.data.images import read_image
from automix_transfer.detection.config import default_config
from automix_transfer.detection.datasets import class_names_of, register_folder
from automix_transfer.errors import UserError


@dataclass(frozen=True)
class Detections:
    """One image (H, W, 3) uint8, its true boxes (N, 4), and the boxes (M, 4) found with a score of at least the threshold, x0 y0 x1 y1."""

    image: NDArray[np.uint8]
    true_boxes: NDArray[np.float64]
    boxes: NDArray[np.float64]
    names: list[str]
    scores: list[float]


@torch.no_grad()
def detect_examples(run: Path, data_root: Path, count: int, threshold: float = 0.3) -> list[Detections]:
    """Run the detector of ``run`` (a folder with config.yaml and model_final.pth) on the first ``count`` test images of ``data_root``.

    Raises:
        UserError: the folder holds no trained detector.
    """
    for name in ("config.yaml", "model_final.pth"):
        if not (run / name).is_file():
            raise UserError(f"{run / name} does not exist; give the OUTPUT_DIR of a finished detection/train_net.py")
    data = register_folder(data_root)
    cfg = default_config()
    cfg.merge_from_file(str(run / "config.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    DetectionCheckpointer(model).load(str(run / "model_final.pth"))
    mapper, classes = DatasetMapper(cfg, is_train=False), class_names_of(data.test[0])
    found = []
    for record in DatasetCatalog.get(data.test[0])[:count]:
        instances = model([mapper(dict(record))])[0]["instances"].to("cpu")
        instances = instances[instances.scores >= threshold]
        found.append(Detections(
            np.asarray(read_image(record["file_name"])), np.array([item["bbox"] for item in record["annotations"]], dtype=np.float64),
            instances.pred_boxes.tensor.double().numpy(), [classes[i] for i in instances.pred_classes.tolist()], instances.scores.tolist()))
    return found
