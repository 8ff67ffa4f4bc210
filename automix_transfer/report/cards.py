"""Examples as cards of the page: what a trained classifier looks at, and what trained detectors find on the
same images.

``DIR/shots.json`` and the pictures beside it are a group of cards; any command may write one into a folder
that the page is made of.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automix_transfer.data.images import read_image
from automix_transfer.data.registry import DATASETS
from automix_transfer.errors import UserError
from automix_transfer.io import atomic_write, read_json, write_json
from automix_transfer.localization.maps.score_maps import read_map
from automix_transfer.localization.overlays import overlay
from automix_transfer.runs.collect import SHOTS
from automix_transfer.shown import from_csv

SIDE = 200  #: pixels of a picture's side
THRESHOLD = 0.3  #: score of a detection that is drawn


@dataclass(frozen=True)
class Shot:
    """A card: pictures (H, W, 3) uint8 with the word under each, and a line of text."""

    pictures: Sequence[tuple[str, NDArray[np.uint8]]]
    text: str


def write_shots(folder: Path, shots: Sequence[Shot], about: Mapping[str, Any]) -> Path:
    """Write the pictures as WebP and ``shots.json`` last; returns it. ``about``: ``heading``, ``caption``,
    ``source`` (a run's folder)."""
    cards = []
    for number, shot in enumerate(shots):
        files = []
        for place, (word, picture) in enumerate(shot.pictures):
            name = f"{number:03d}_{place}.webp"
            save_webp(folder / name, picture)
            files.append({"file": name, "word": word})
        cards.append({"pictures": files, "text": shot.text})
    write_json(folder / SHOTS, {**about, "cards": cards})
    return folder / SHOTS


def save_webp(path: Path, picture: NDArray[np.uint8], quality: int = 86) -> None:
    """Write (H, W, 3) uint8, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    atomic_write(path, lambda file: file.write(buffer.getvalue()))


def cam_shots(results: Path, maps: Path, root: Path | None = None, count: int = 8) -> list[Shot]:
    """Images spread over the split with their maps, true boxes green and predicted ones red, from the files
    of automix-transfer localize.

    Args:
        results: its ``--output``; the CSV beside it has the boxes, in pixels of the map.
        maps: its ``--save-maps``.
        root: of the data set; None takes the one that was measured on.

    Raises:
        UserError: the files or the data are not there, or have no boxes.
    """
    about = read_json(results)
    try:
        with open(results.with_suffix(".csv"), newline="", encoding="utf-8") as file:
            rows = [row | {"image_id": from_csv(row["image_id"])} for row in csv.DictReader(file)]
        listing = DATASETS[about["dataset"]](root or Path(about["root"]), about["split"])
        true = {str(path): boxes for path, boxes in zip(listing.paths, listing.boxes or [], strict=True)}
        shots = []
        for row in rows[:: max(1, len(rows) // count)][:count]:
            name = next(path for path in true if path.endswith(row["image_id"]))
            heat, image = read_map(maps, row["image_id"]), read_image(Path(name))
            scale = np.array([SIDE / image.width, SIDE / image.height] * 2)
            predicted = np.array([float(row[key]) for key in ("x0", "y0", "x1", "y1")]) * SIDE / heat.shape[0]
            plain = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            boxes = np.array(true[name]) * scale, predicted
            pictures = [("boxes", overlay(plain, None, *boxes)), ("map", overlay(plain, heat, *boxes))]
            shots.append(Shot(pictures, f"IoU {float(row['iou']):.2f}"))
    except (OSError, KeyError, ValueError, TypeError, StopIteration) as error:
        raise UserError(
            f"{results.with_suffix('.csv')} does not fit {results} and its data set ({type(error).__name__}: "
            f"{error}); "
            "run automix-transfer localize again"
        ) from error
    return shots


def detection_shots(runs: Mapping[str, Path], data_root: Path, count: int = 6) -> list[Shot]:
    """The same test images for every run (name -> folder): what it finds with a score of `THRESHOLD` or more,
    true boxes in green."""
    from automix_transfer.detection.showing.examples import detect_examples
    from automix_transfer.detection.showing.rectangles import TRUE, class_colour, draw_boxes

    columns = []
    for name, run in runs.items():
        column = []
        for found in detect_examples(run, data_root, count, THRESHOLD):
            height, width = found.image.shape[:2]
            side = (SIDE, max(1, round(SIDE * height / width)))
            scale = np.array([side[0] / width, side[1] / height] * 2)
            picture = np.asarray(
                cv2.resize(
                    found.image, side, interpolation=cv2.INTER_AREA if width > SIDE else cv2.INTER_CUBIC
                )
            )
            picture = draw_boxes(
                picture,
                found.true_boxes * scale,
                [""] * len(found.true_boxes),
                [TRUE] * len(found.true_boxes),
            )
            texts = [f"{label} {score:.2f}" for label, score in zip(found.names, found.scores, strict=True)]
            picture = draw_boxes(
                picture, found.boxes * scale, texts, [class_colour(label) for label in found.labels]
            )
            column.append((f"{name}: {len(found.boxes)} found", picture, len(found.true_boxes)))
        columns.append(column)
    return [
        Shot(
            [(word, picture) for word, picture, _ in row],
            f"{row[0][2]} object{'s' if row[0][2] != 1 else ''} here",
        )
        for row in zip(*columns, strict=True)
    ]
