"""A trained detector from its run folder, and nothing else: ``config.yaml``, ``categories.json`` and the
weights that lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from automix_transfer.data.images import pixels_of
from automix_transfer.detection.config import load_config
from automix_transfer.detection.config_checks import model_errors
from automix_transfer.detection.networks.memory import check_size
from automix_transfer.detection.weights.weights_check import load_weights
from automix_transfer.errors import UserError, few
from automix_transfer.io import read_json
from automix_transfer.text_files import MOST_BYTES, read_text

FINAL, LAST = "model_final.pth", "last_checkpoint"


@dataclass
class TrainedDetector:
    """A detector in eval mode; ``categories`` are COCO's (``id``, ``name``), in label order."""

    cfg: CfgNode
    model: nn.Module
    categories: list[dict[str, Any]]
    checkpoint: Path

    @property
    def names(self) -> list[str]:
        return [category["name"] for category in self.categories]

    @torch.no_grad()
    def detect(self, image: Image.Image) -> Instances:
        """What is in an RGB image, on the CPU: pred_boxes (x0 y0 x1 y1 in its pixels), scores, pred_classes,
        best first.

        The image is fed as Detectron2 feeds test images: scaled to ``INPUT.MIN_SIZE_TEST``, channels in the
        order of ``INPUT.FORMAT``.
        """
        width, height, short = *image.size, self.cfg.INPUT.MIN_SIZE_TEST
        if short:  # as its own resizing does, whose arrays take three times a large image's memory
            most = self.cfg.INPUT.MAX_SIZE_TEST
            size = T.ResizeShortestEdge.get_output_shape(height, width, short, most)
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = pixels_of(image)
        pixels = pixels if self.cfg.INPUT.FORMAT == "RGB" else pixels[:, :, ::-1]
        tensor = torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32))
        return self.model([{"image": tensor, "height": height, "width": width}])[0]["instances"].to("cpu")


def load_run(folder: str | Path, checkpoint: str | None = None, device: str = "cpu") -> TrainedDetector:
    """The detector that was trained in ``folder``.

    Args:
        checkpoint: a file in it; by default model_final.pth, or else the last checkpoint.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: something of the three is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder / 'config.yaml'} does not exist; give the OUTPUT_DIR of automix-transfer detect"
        )
    file = _checkpoint(folder, checkpoint)
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {device}, but torch can use no GPU of this machine; give --device cpu")
    options = ["MODEL.WEIGHTS", str(file), "MODEL.DEVICE", device]
    options += ["SOLVER.AMP.ENABLED", "False", "SOLVER.REFERENCE_WORLD_SIZE", "0"]
    # Not as a resumed run: another one may lie by now in the OUTPUT_DIR that the file names.
    cfg, _ = load_config(folder / "config.yaml", options, num_gpus=0 if device == "cpu" else 1)
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    categories = _categories(folder, cfg)
    check_size(cfg)
    with model_errors():
        model = build_model(cfg).eval()
    load_weights(model, str(file))
    return TrainedDetector(cfg, model, categories, file)


def _checkpoint(folder: Path, name: str | None) -> Path:
    if name is not None:
        if not (folder / name).is_file():
            there = few(sorted(path.name for path in folder.glob("*.pth")))
            hint = f"choose one of {there}" if there else "the folder has no .pth"
            raise UserError(f"{folder / name} does not exist; {hint}")
        return folder / name
    last = folder / LAST
    named = [FINAL, *([Path(read_text(last, MOST_BYTES).strip()).name] if last.is_file() else [])]
    for file in named:
        if file and (folder / file).is_file():
            return folder / file
    raise UserError(
        f"{folder} holds neither {FINAL} nor a checkpoint; give the OUTPUT_DIR of automix-transfer detect"
    )


def _categories(folder: Path, cfg: CfgNode) -> list[dict[str, Any]]:
    """Of ``categories.json``; plain Detectron2 writes none: then of the data set that the config names."""
    wanted, file = cfg.MODEL.ROI_HEADS.NUM_CLASSES, folder / "categories.json"
    form = 'list of {"id": 1, "name": "person"} in label order'
    if file.is_file():
        categories = read_json(file)
        if not isinstance(categories, list) or not all(_is_category(item) for item in categories):
            raise UserError(f"{file} must be a {form}; restore it from the run")
        if len({item["id"] for item in categories}) < len(categories):
            raise UserError(f"{file} has two categories of one id; restore it from the run")
    else:
        names = _names_of_data(cfg.DATASETS.TRAIN)
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        if not names:
            raise UserError(
                f"{file} does not exist, so what the detector finds has no names; write it, a {form}, for "
                f"all {wanted} classes"
            )
    if len(categories) != wanted:
        raise UserError(
            f"{file} has {len(categories)} categories, but MODEL.ROI_HEADS.NUM_CLASSES in config.yaml is "
            f"{wanted}; restore both from the run"
        )
    return categories


def _is_category(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and type(item.get("id")) is int
        and 0 <= item["id"] < 2**53
        and isinstance(item.get("name"), str)
    )


def _names_of_data(names: Sequence[str]) -> list[str]:
    known = names and names[0] in DatasetCatalog.list()
    return list(MetadataCatalog.get(names[0]).get("thing_classes", ())) if known else []
