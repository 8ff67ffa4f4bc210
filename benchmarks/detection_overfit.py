#!/usr/bin/env python3
r"""Does the whole detection pipeline learn? Train on real images, test on them: AP50 has to come near 100.

    python benchmarks/detection_overfit.py --data voc100 \
        --weights tf_efficientnet_lite0.safetensors --output runs/overfit_voc
    python benchmarks/detection_overfit.py --data coco128 --images 32 \
        --weights tf_efficientnet_lite0.safetensors --output runs/overfit_coco

Every test image is a copy of a training image under another name, since one image in both splits is refused.
The detector (see detection_overfit.yaml) starts from ImageNet weights and trains without augmentation. A
mistake anywhere between the annotation and the figure (a shifted box, a swapped class, a wrong scale, images
and annotations out of step) keeps the figure well below 100. Trailing KEY VALUE pairs override the config.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from automix_transfer.detection import compatibility
from automix_transfer.errors import run_script

CONFIG = Path(__file__).with_suffix(".yaml")


def twin_voc(source: Path, target: Path, count: int | None) -> int:
    """A VOC folder whose test images are copies of its training images."""
    names = [
        line.split()[0]
        for line in (source / "ImageSets" / "Main" / "trainval.txt").read_text().splitlines()
        if line.strip()
    ][:count]
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (target / folder).mkdir(parents=True)
        for name in names:
            content = (source / folder / f"{name}.{suffix}").read_bytes()
            for copy in (name, f"copy_{name}"):
                (target / folder / f"{copy}.{suffix}").write_bytes(
                    content.replace(f"{name}.jpg".encode(), f"{copy}.jpg".encode())
                    if suffix == "xml"
                    else content
                )
    (target / "ImageSets" / "Main").mkdir(parents=True)
    (target / "ImageSets" / "Main" / "trainval.txt").write_text("".join(f"{name}\n" for name in names))
    (target / "ImageSets" / "Main" / "test.txt").write_text("".join(f"copy_{name}\n" for name in names))
    return len(names)


def twin_coco(source: Path, target: Path, count: int | None) -> int:
    """A COCO folder likewise, with the categories that its images have."""
    content: dict[str, Any] = json.loads((source / "annotations" / "instances_train2017.json").read_text())
    images = content["images"][:count]
    kept = {image["id"] for image in images}
    annotations = [item for item in content["annotations"] if item["image_id"] in kept]
    used = {item["category_id"] for item in annotations if not item["iscrowd"]}
    annotations = [item for item in annotations if item["category_id"] in used]
    (target / "annotations").mkdir(parents=True)
    for split, prefix in (("train2017", ""), ("val2017", "copy_")):
        (target / split).mkdir()
        for image in images:
            shutil.copyfile(
                source / "train2017" / image["file_name"], target / split / (prefix + image["file_name"])
            )
        (target / "annotations" / f"instances_{split}.json").write_text(
            json.dumps(
                {
                    "images": [{**image, "file_name": prefix + image["file_name"]} for image in images],
                    "annotations": annotations,
                    "categories": [category for category in content["categories"] if category["id"] in used],
                }
            )
        )
    return len(images)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder in VOC or COCO layout (instances_train2017.json)"
    )
    parser.add_argument("--weights", required=True, help="ImageNet weights of timm's tf_efficientnet_lite0")
    parser.add_argument(
        "--output", type=Path, required=True, help="run folder; the twin data set goes below it"
    )
    parser.add_argument("--images", type=int, help="the first N images only (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    compatibility.require()
    from automix_transfer.detection.scores.results import table
    from automix_transfer.detection.trainer import run
    from automix_transfer.io import read_json

    twin = args.output / "data"
    if twin.exists():
        shutil.rmtree(twin)
    count = (twin_coco if (args.data / "annotations").is_dir() else twin_voc)(args.data, twin, args.images)
    begun = time.monotonic()
    figures = run(CONFIG, args.weights, twin, args.output, args.opts, args.seed)
    results = read_json(args.output / "results.json")
    print(table(results))
    print(
        f"{args.data.name}, {count} images, {results['iterations']} iterations of batch {results['batch']}, "
        f"{time.monotonic() - begun:.0f} s: AP {figures['AP']:.2f}  AP50 {figures['AP50']:.2f}  AP75 "
        f"{figures['AP75']:.2f} "
        f"({results['rule']}), on the images that it was trained on"
    )


if __name__ == "__main__":
    run_script(main)
