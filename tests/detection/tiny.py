"""Tiny data sets in both layouts, a config that trains two iterations on them, and backbone files."""

import json
import pickle
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from automix_transfer.recipes.find import RECIPES

CLASSES = ("circle", "square")
CONFIGS = RECIPES / "detection"
QUICK = [
    "SOLVER.IMS_PER_BATCH",
    "2",
    "SOLVER.MAX_ITER",
    "2",
    "SOLVER.WARMUP_ITERS",
    "1",
    "DATALOADER.NUM_WORKERS",
    "0",
    "INPUT.MIN_SIZE_TRAIN",
    "(64,)",
    "INPUT.MIN_SIZE_TEST",
    "64",
    "INPUT.MAX_SIZE_TRAIN",
    "96",
    "INPUT.MAX_SIZE_TEST",
    "96",
]


def _images(folder: Path, names: list[str], seed: int) -> list[list[tuple[str, tuple[int, int, int, int]]]]:
    """Noise with one bright square a picture; returns the objects of each (class, box 0-based half-open)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    objects = []
    for number, name in enumerate(names):
        pixels = rng.integers(0, 80, (64, 80, 3), dtype=np.uint8)
        x, y, side = int(rng.integers(2, 40)), int(rng.integers(2, 24)), int(rng.integers(16, 36))
        box = (x, y, min(x + side, 78), min(y + side, 62))
        pixels[box[1] : box[3], box[0] : box[2]] = (220, 40, 40) if number % 2 else (40, 220, 40)
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
        objects.append([(CLASSES[number % 2], box)])
    return objects


def write_voc(root: Path) -> Path:
    """A VOC2007 folder with four training and four test images."""
    names = [f"{n:06d}" for n in range(8)]
    objects = _images(root / "JPEGImages", names, seed=1)
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, items in zip(names, objects, strict=True):
        xml = "".join(
            f"<object><name>{label}</name><pose>Unspecified</pose>"
            "<truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            "</object>"
            for label, (x0, y0, x1, y1) in items
        )
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>"
            f"<size><width>80</width><height>64</height><depth>3</depth></size>{xml}</annotation>"
        )
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(names[:4]) + "\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names[4:]) + "\n")
    return root


def write_coco(root: Path) -> Path:
    """A COCO folder with category ids that have gaps, as the real ones have."""
    (root / "annotations").mkdir(parents=True)
    for split, first in (("train2017", 10), ("val2017", 100)):
        names = [f"{first + n:012d}" for n in range(4)]
        objects = _images(root / split, names, seed=first)
        annotations = [
            {
                "id": number + first,
                "image_id": number + first,
                "category_id": {"circle": 3, "square": 7}[label],
                "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
            }
            for number, items in enumerate(objects)
            for label, (x0, y0, x1, y1) in items
        ]
        images = [
            {"id": number + first, "file_name": f"{name}.jpg", "width": 80, "height": 64}
            for number, name in enumerate(names)
        ]
        categories = [{"id": 3, "name": "circle"}, {"id": 7, "name": "square"}]
        (root / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return root


def write_coco_masks(root: Path) -> Path:
    """`write_coco` with a polygon around every object."""
    write_coco(root)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for item in content["annotations"]:
            x, y, width, height = item["bbox"]
            item["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        file.write_text(json.dumps(content))
    return root


def detector(config: str, *overrides: str):
    """A Detectron2 model of one of our configs, on the CPU, and its config."""
    from detectron2.modeling import build_model

    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(CONFIGS / config, ["MODEL.WEIGHTS", "", *overrides], num_gpus=0)
    return build_model(cfg), cfg


def write_backbone(
    path: Path, arrays: dict[str, np.ndarray], author: str = "somebody", overlay: dict | None = None
) -> Path:
    path.write_bytes(
        pickle.dumps({"model": arrays, "__author__": author, "matching_heuristics": True}, protocol=4)
    )
    if overlay is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(overlay))
    return path
