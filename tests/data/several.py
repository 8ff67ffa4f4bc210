"""Tiny VOC and COCO folders whose images show several classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

#: of each image, its objects: (class, difficult)
SHOWN = [
    [("cat", False), ("dog", False)],
    [("dog", False), ("dog", True)],
    [("cat", True), ("person", False)],
    [("person", False)],
    [("cat", False)],
    [("dog", False), ("person", False), ("cat", False)],
    [],
    [("person", False), ("dog", True)],
]
SIDE = 32


def _image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def voc(
    root: Path, names: dict[str, str] | None = None, lists: tuple[str, ...] = ("trainval", "test")
) -> Path:
    """The 8 images of `SHOWN` in VOC's layout, all in each of ``lists``; ``names`` of other classes."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, objects in enumerate(SHOWN):
        _image(root / "JPEGImages" / f"{number:06d}.jpg", number)
        inside = "".join(
            f"<object><name>{(names or {}).get(name, name)}</name><difficult>{int(hard)}</difficult><bndbox>"
            "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            for name, hard in objects
        )
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{number:06d}.jpg</filename>{size}{inside}</annotation>"
        (root / "Annotations" / f"{number:06d}.xml").write_text(text)
    for name in lists:
        rows = "".join(f"{number:06d}\n" for number in range(len(SHOWN)))
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(rows)
    return root


def coco(root: Path) -> Path:
    """The same in COCO's layout, difficult objects as crowds; category ids in another order than names."""
    categories = {"person": 1, "dog": 18, "cat": 17, "zebra": 24}
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        items = [
            {
                "image_id": number,
                "category_id": categories[name],
                "bbox": [1, 1, 9, 9],
                "area": 81,
                "iscrowd": int(hard),
            }
            for number, objects in enumerate(SHOWN)
            for name, hard in objects
        ]
        for number in range(len(SHOWN)):
            _image(root / split / f"{number:012d}.jpg", number)
        content = {
            "images": [
                {"id": n, "file_name": f"{n:012d}.jpg", "height": SIDE, "width": SIDE}
                for n in range(len(SHOWN))
            ],
            "annotations": [item | {"id": number} for number, item in enumerate(items, start=1)],
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
