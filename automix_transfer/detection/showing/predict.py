"""A trained detector over a folder of images: boxes drawn, and one json in COCO's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL import Image

from automix_transfer.data.detection.image_files import vanishes
from automix_transfer.data.images import is_image_name, read_image
from automix_transfer.detection.showing.inference import TrainedDetector
from automix_transfer.detection.showing.rectangles import class_colour, draw_boxes, drawable
from automix_transfer.errors import UserError
from automix_transfer.io import atomic_write, read_json, write_json
from automix_transfer.progress import Progress

MOST_SIDE = 65_500  # pixels, of libjpeg
MOST_DRAWN = 1 << 25  # pixels of a picture; larger images are drawn smaller


@dataclass
class Predictions:
    """What was found: ``images`` and ``annotations`` as in COCO's format, and a sentence for each image that
    could not be read."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self, detector: TrainedDetector, threshold: float) -> dict[str, Any]:
        """A COCO instances json; its ``annotations`` are what pycocotools' ``loadRes`` takes."""
        about = f"detections of {detector.checkpoint} with a score of at least {threshold}"
        return {
            "info": {"description": about, "problems": self.problems},
            "images": self.images,
            "categories": detector.categories,
            "annotations": self.annotations,
        }


def is_predictions(file: Path) -> bool:
    """Whether ``file`` holds what `predict` has written."""
    content = read_json(file)
    info = content.get("info") if isinstance(content, dict) else None
    return isinstance(info, dict) and str(info.get("description", "")).startswith("detections of ")


def find_images(given: Sequence[Path]) -> list[tuple[Path, str]]:
    """Image files with the names that they get in the output: of a folder, all below it, by their path in it.

    Raises:
        UserError: something does not exist, a folder holds no image, or two files would get one name.
    """
    found: list[tuple[Path, str]] = []
    for path in given:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if is_image_name(file.name)]
            if not files:
                raise UserError(
                    f"{path} holds no image (.jpg, .png, ...); give image files or a folder of them"
                )
            found += [(file, file.relative_to(path).as_posix()) for file in files]
        elif path.is_file():
            found.append((path, path.name))
        else:
            raise UserError(f"{path} does not exist; give image files or a folder of them")
    twice = [name for name, count in Counter(name for _, name in found).items() if count > 1]
    if twice:
        raise UserError(
            f"two images are called {twice[0]}; predict them into two outputs, or give the folder of both"
        )
    return found


def predict(
    detector: TrainedDetector,
    images: Sequence[tuple[Path, str]],
    output: Path,
    threshold: float = 0.5,
    draw: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Predictions:
    """Detect in every image; writes ``output/predictions.json`` and, with ``draw``,
    ``output/drawn/<name>.jpg``.

    An image that cannot be read is reported (``say``, ``problems``) and left out.

    Args:
        threshold: the lowest score that is kept. The model has dropped scores below its
            ``MODEL.ROI_HEADS.SCORE_THRESH_TEST`` already.

    Raises:
        UserError: no image could be read, or ``output`` cannot be written.
    """
    result = Predictions()
    drawn = dict(_drawn_names([name for _, name in images]))
    progress = Progress(write=say)
    for number, (file, name) in enumerate(images, 1):
        try:
            image = read_image(file, upright=True)
            check_sides(file, image.size, detector.cfg.INPUT.MAX_SIZE_TEST)
        except UserError as error:
            sentence = str(error).replace("remove it, or set data.on_bad_image=skip", "or remove it")
            result.problems.append(sentence)
            say(f"left out: {sentence}")
            continue
        instances = detector.detect(image)
        instances = instances[instances.scores >= threshold]
        add(result, instances, name, *image.size, detector.categories)
        if draw:
            image, scale = drawable(image, MOST_DRAWN)
            picture = draw_instances(image, instances, detector.names, scale)
            atomic_write(
                output / "drawn" / drawn[name],
                partial(Image.fromarray(picture).save, format="JPEG", quality=92),
            )
        progress(number, len(images))
    if not result.images:
        raise UserError(f"none of the {len(images)} images could be read (the first: {result.problems[0]})")
    write_json(output / "predictions.json", result.to_dict(detector, threshold))
    return result


def check_sides(file: Path, size: tuple[int, int], most: int) -> None:
    """Raise a `UserError` for an image that has no pixel left where its long side is scaled to ``most``, or
    that JPEG, in which it is drawn, cannot hold."""
    if max(size) > MOST_SIDE or vanishes(size, most):
        raise UserError(
            f"image {file} is {size[0]} x {size[1]} pixels, too narrow or too long for a detector; cut it "
            "into parts, or remove it"
        )


def add(
    result: Predictions,
    instances: Instances,
    name: str,
    width: int,
    height: int,
    categories: Sequence[dict[str, Any]],
) -> None:
    """Append an image and its detections, ids from 1; boxes become x, y, width, height."""
    image = len(result.images) + 1
    result.images.append({"id": image, "file_name": name, "width": width, "height": height})
    for found in instances_to_coco_json(instances, image):
        box = found["bbox"]
        result.annotations.append(
            {
                "id": len(result.annotations) + 1,
                **found,
                "category_id": categories[found["category_id"]]["id"],
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
        )


def draw_instances(
    image: Image.Image, instances: Instances, names: Sequence[str], scale: float = 1
) -> np.ndarray:
    """The image, ``scale`` times as large as the detector's, with a box, a name and a score for each
    detection."""
    labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return draw_boxes(
        np.asarray(image),
        scale * instances.pred_boxes.tensor.numpy(),
        texts,
        [class_colour(label) for label in labels],
    )


def _drawn_names(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``a.png`` -> ``a.jpg``, or ``a.png.jpg`` where an ``a.jpg`` is taken."""
    taken: set[str] = set()
    for name in sorted(names, key=lambda name: not name.lower().endswith(".jpg")):
        short = str(Path(name).with_suffix(".jpg"))
        chosen = name + ".jpg" if short.lower() in taken else short
        taken.add(chosen.lower())
        yield name, chosen
