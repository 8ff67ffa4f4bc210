"""Tiny-ImageNet's own boxes as COCO annotations, so that its backbones can be compared as detectors.

python benchmarks/evidence_boxes.py --data tiny-imagenet-40 --output runs/tiny
automix-transfer transfer --backbones vanilla='v_{seed}.pt' automix='a_{seed}.pt' \\
    --tasks detection --data tiny=runs/tiny --detector embedded_R10_FPN --output runs/tiny-answer

`annotations/instances_train.json` has the first 100 training images of each class, on which backbones were
trained too (without their boxes), `instances_val.json` the official validation images. Images are linked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from automix_transfer.data.listing import Listing
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import write_json

SIDE = 64  #: pixels of every image of Tiny-ImageNet
PER_CLASS = 100  #: training images of a class


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="Tiny-ImageNet, as released")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    config = DataConfig("tiny_imagenet", options.data, limit_per_class=PER_CLASS)
    for split in ("train", "val"):
        listing = load_listing(config, split)
        write_json(options.output / "annotations" / f"instances_{split}.json", coco(listing))
        folder = options.output / split
        folder.mkdir(parents=True, exist_ok=True)
        for path in listing.paths:
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(path.resolve())
        print(f"{split}: {len(listing):,} images")


def coco(listing: Listing) -> dict[str, object]:
    """COCO's instances format; boxes are (x, y, width, height)."""
    if listing.boxes is None:
        raise UserError("this layout has no boxes; give Tiny-ImageNet as released")
    images, annotations = [], []
    for number, (path, label, boxes) in enumerate(
        zip(listing.paths, listing.labels, listing.boxes, strict=True), 1
    ):
        images.append({"id": number, "file_name": path.name, "width": SIDE, "height": SIDE})
        for x0, y0, x1, y1 in boxes:
            box = [x0, y0, x1 - x0, y1 - y0]
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": label + 1,
                "bbox": box,
            }
            annotations.append({**annotation, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(listing.classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    run_script(main)
