"""Pictures of what a trained classifier looks at and of what a trained detector finds."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.images import read_image
from automix_transfer.data.registry import DATASETS
from automix_transfer.errors import UserError
from automix_transfer.io import atomic_write
from automix_transfer.localization.maps import read_map
from automix_transfer.localization.pictures import grid, overlay, to_png

Boxes = NDArray[np.float64]
SIDE = 192  #: pixels of a picture's side


def cams_figure(path: Path, results: Path, maps: Path, dataset: str, root: Path, split: str, count: int = 12) -> Path:
    """CAMs with true (green) and predicted (red) boxes of ``count`` images spread over a split, from the files of wsol/evaluate.py.

    Args:
        results: its ``--output`` (the CSV beside it has the boxes, in pixels of the map).
        maps: its ``--save-maps``.
    """
    listing = DATASETS[dataset](root, split)
    with open(results.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not listing.boxes:
        raise UserError(f"{results.with_suffix('.csv')} has no images, so there is nothing to show")
    true = {str(p): boxes for p, boxes in zip(listing.paths, listing.boxes, strict=True)}
    pictures = []
    for row in rows[:: max(1, len(rows) // count)][:count]:
        file_name = next(name for name in true if name.endswith(row["image_id"]))
        heat = read_map(maps, row["image_id"])
        image = read_image(Path(file_name))
        scale = np.array([SIDE / image.width, SIDE / image.height] * 2)
        predicted = np.array([float(row[key]) for key in ("x0", "y0", "x1", "y1")]) * SIDE / heat.shape[0]
        pictures.append(overlay(np.asarray(image.resize((SIDE, SIDE))), heat, np.array(true[file_name]) * scale, predicted,
                                f"IoU {float(row['iou']):.2f}"))
    atomic_write(path, lambda file: file.write(to_png(grid(pictures, columns=6))))
    return path


def detections_figure(path: Path, runs: dict[str, Path], data_root: Path, count: int = 6) -> Path:
    """A row for each run: its detections (red) beside the true boxes (green) on the same test images."""
    from automix_transfer.detection.examples import detect_examples

    pictures = []
    for name, run in runs.items():
        for index, found in enumerate(detect_examples(run, data_root, count)):
            height, width = found.image.shape[:2]
            scale = np.array([SIDE / width, SIDE / height] * 2)
            image = cv2.resize(found.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            pictures.append(overlay(image, None, found.true_boxes * scale, found.boxes * scale, name if index == 0 else ""))
    atomic_write(path, lambda file: file.write(to_png(grid(pictures, columns=count))))
    return path
