#!/usr/bin/env python3
"""COCO's figures by pycocotools and by hotcoco: the same numbers, and how long each takes.

    python benchmarks/coco_evaluator.py --images 500

Random scenes of COCO's make (80 classes, 7 objects and 30 detections an image, one object in ten a crowd,
scores of two decimals, so that many tie). CPU time of matching and accumulating, as
`detection.scores.coco_evaluation.match` does it, with copies and loading.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from automix_transfer.detection import compatibility

CLASSES = range(1, 81)


def scenes(images: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO instances dict and detections: half of them near an object, half astray."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def detection(image: int, label: int, box: np.ndarray) -> None:
        found.append(
            {
                "image_id": image,
                "category_id": label,
                "bbox": [float(v) for v in box],
                "score": float(rng.integers(1, 100)) / 100,
            }
        )

    for image in range(1, images + 1):
        for _ in range(rng.integers(1, 14)):
            box = np.concatenate([rng.uniform(0, 400, 2), np.exp(rng.uniform(1.5, 5.5, 2))])
            label = int(rng.choice(CLASSES))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": [float(v) for v in box],
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(2):
                near = box + rng.normal(0, 0.1 * box[2:].mean(), 4)
                detection(image, label, np.concatenate([near[:2], np.maximum(near[2:], 1)]))
        for _ in range(15):
            detection(
                image,
                int(rng.choice(CLASSES)),
                np.concatenate([rng.uniform(0, 400, 2), rng.uniform(4, 200, 2)]),
            )
    truth = {
        "images": [
            {"id": k, "width": 640, "height": 640, "file_name": f"{k}.jpg"} for k in range(1, images + 1)
        ],
        "categories": [{"id": k, "name": str(k)} for k in CLASSES],
        "annotations": annotations,
    }
    return truth, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=500, help="images (default 500; COCO's val2017 has 5,000)"
    )
    args = parser.parse_args()
    compatibility.require()
    from automix_transfer.detection.scores.coco_evaluation import ENGINES, figures, match

    truth, found = scenes(args.images)
    seconds, results = {}, {}
    for engine in ENGINES:
        begun = time.process_time()
        results[engine] = match(truth, found, list(CLASSES), engine=engine)
        seconds[engine] = time.process_time() - begun
    slow, fast = (results[engine] for engine in ENGINES)
    same = np.array_equal(slow.precision, fast.precision) and np.array_equal(slow.recall, fast.recall)
    print(
        f"{args.images} images, {len(truth['annotations'])} objects, {len(found)} detections; AP "
        f"{figures(fast)['AP']:.4f}"
    )
    print(
        f"pycocotools {seconds['pycocotools']:.2f} s, hotcoco {seconds['hotcoco']:.2f} s of CPU time: "
        f"{seconds['pycocotools'] / seconds['hotcoco']:.0f}x; every number equal: {same}"
    )
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
