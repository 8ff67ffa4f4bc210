"""Whole embedded images with their exact boxes: one object in clutter, or a scene of several.

Each image depends on its own seed only, so any number of processes writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from automix_transfer.synthetic.parts import Image, Placement, Thing, draw_thing, mask_box, thing_mask
from automix_transfer.synthetic.scene import (
    CLUTTER_RADIUS,
    OBJECT_OFF_CENTRE,
    OBJECT_RADIUS,
    OBJECT_TURN,
    STRETCH,
    Generator,
    add_clutter,
    finish,
    random_background,
)
from automix_transfer.synthetic.things import (
    COCO_CLASSES,
    IMAGENET_CLASSES,
    OBJECT_MARKINGS,
    OBJECT_TEXTURES,
    SHAPES,
    SPECIES,
    VARIANTS,
    VOC_CLASSES,
    make_aircraft,
    make_bird,
    make_object,
)

JPEG_QUALITY = 92
BANNER_HEIGHT = 20  # pixels at the bottom of the aircraft images, as in the released ones
# polygons are traced on masks enlarged by this, so their corners lie on pixel edges to 1/16 pixel
POLYGON_SCALE = 8
DIFFICULT_VISIBLE = 0.55  # of its silhouette; less is hidden or cut off too much to be asked for
DIFFICULT_SIDE = 12  # pixels

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Job:
    """One image to render: what, from which seed, into which file (relative to the data set's folder)."""

    kind: str
    seed: int
    file: str
    label: int


@dataclass
class Instance:
    """One object as seen.

    Attributes:
        label: class number.
        box: (x0, y0, x1, y1) with exclusive upper ends.
        area: visible pixels.
        polygons: around them, as COCO has them.
    """

    label: int
    box: Box
    area: int
    truncated: bool
    occluded: bool
    difficult: bool
    polygons: list[list[float]] = field(default_factory=list)


@dataclass
class Record:
    """What the annotations say of one rendered image."""

    file: str
    label: int
    height: int
    width: int
    instances: list[Instance]

    @property
    def stem(self) -> str:
        """The file's name without folder and ending."""
        return Path(self.file).stem


@dataclass(frozen=True)
class Placed:
    """A thing, its place and its label."""

    thing: Thing
    place: Placement
    label: int


def _paint(
    rng: Generator,
    height: int,
    width: int,
    placed: list[Placed],
    clutter_radius: tuple[float, float] = CLUTTER_RADIUS,
    clutter: float = 1.0,
) -> Image:
    canvas = random_background(rng, height, width)
    add_clutter(rng, canvas, height, width, SHAPES, OBJECT_TEXTURES, OBJECT_MARKINGS, clutter_radius, clutter)
    for one in placed:
        draw_thing(canvas, one.thing, one.place, shadow=float(rng.uniform(0.1, 0.5)))
    return finish(rng, canvas, height, width)


def describe(placed: list[Placed], height: int, width: int, polygons: bool = False) -> list[Instance]:
    """Exact annotations of things painted in this order: what later ones hide is not part of a mask."""
    masks = [thing_mask(one.thing, one.place, (height, width)) for one in placed]
    instances = []
    for index, (one, mask) in enumerate(zip(placed, masks, strict=True)):
        visible = mask & ~np.logical_or.reduce(masks[index + 1 :]) if index + 1 < len(masks) else mask
        box = mask_box(visible)
        if box is None:
            continue
        whole, truncated = _whole_area(one, height, width)
        hidden = int(mask.sum()) - int(visible.sum())
        small = min(box[2] - box[0], box[3] - box[1]) < DIFFICULT_SIDE
        difficult = bool(visible.sum() < DIFFICULT_VISIBLE * whole or small)
        area, occluded, outline = (
            int(visible.sum()),
            hidden > 0.02 * whole,
            trace(visible) if polygons else [],
        )
        instances.append(Instance(one.label, box, area, truncated, occluded, difficult, outline))
    return instances


def _whole_area(one: Placed, height: int, width: int) -> tuple[float, bool]:
    """Pixels of the silhouette if nothing cut it off, and whether the image's frame does."""
    matrix = one.place.matrix(1.0)
    corners = np.concatenate([polygon for part in one.thing if part.solid for polygon in part.polygons])
    points = corners @ matrix[:, :2].T + matrix[:, 2]
    if (points >= 0).all() and (points < (width - 1, height - 1)).all():
        return float(thing_mask(one.thing, one.place, (height, width)).sum()), False
    reach = int(np.ceil(1.6 * one.place.radius))
    place = replace(one.place, x=one.place.x + reach, y=one.place.y + reach)
    whole = thing_mask(one.thing, place, (height + 2 * reach, width + 2 * reach))
    area = int(whole.sum())
    return area, area > int(whole[reach:-reach, reach:-reach].sum())


def trace(mask: NDArray[np.bool_]) -> list[list[float]]:
    """COCO polygons [x0, y0, x1, y1, ...] in pixels, whose inside is the mask (without holes)."""
    box = mask_box(mask)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    large = mask[y0:y1, x0:x1].astype(np.uint8).repeat(POLYGON_SCALE, axis=0).repeat(POLYGON_SCALE, axis=1)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [
        ((contour[:, 0].astype(np.float64) + 0.5) / POLYGON_SCALE + (x0, y0)).round(2) for contour in contours
    ]
    return [polygon.ravel().tolist() for polygon in polygons if len(polygon) >= 3]


def object_image(rng: Generator, label: int, size: int = 64) -> tuple[Image, list[Placed]]:
    """A labelled object, off-centre in clutter, (size, size, 3)."""
    x, y = size * (0.5 + rng.uniform(-OBJECT_OFF_CENTRE, OBJECT_OFF_CENTRE, 2))
    radius, angle = size * rng.uniform(*OBJECT_RADIUS), rng.uniform(-OBJECT_TURN, OBJECT_TURN)
    place = Placement(float(x), float(y), radius, angle, _stretch(rng), light=rng.uniform(-2.6, -0.5))
    placed = [Placed(make_object(rng, IMAGENET_CLASSES[label]), place, label)]
    return _paint(rng, size, size, placed), placed


def bird_image(rng: Generator, label: int) -> tuple[Image, list[Placed]]:
    """A bird, off-centre, in an image of about 128×104 pixels, upright or not."""
    height, width = _frame(rng, 96, 112, 112, 136)
    radius = rng.uniform(0.2, 0.26) * min(height, width)
    place = _place_inside(rng, height, width, radius, 1.26, rng.uniform(-0.45, 0.45))
    placed = [Placed(make_bird(rng, SPECIES[label]), place, label)]
    return _paint(rng, height, width, placed, (0.06, 0.14)), placed


def aircraft_image(rng: Generator, label: int) -> tuple[Image, list[Placed]]:
    """An aircraft from above, with the copyright banner of the released images below."""
    height, width = int(rng.integers(92, 108)), int(rng.integers(120, 140))
    radius = rng.uniform(0.33, 0.42) * height
    place = _place_inside(rng, height, width, radius, 1.02, rng.uniform(-0.5, 0.5))
    placed = [Placed(make_aircraft(rng, VARIANTS[label]), place, label)]
    image = _paint(rng, height, width, placed, (0.06, 0.15), 0.8)
    banner = np.full((BANNER_HEIGHT, width, 3), 24, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX, 0.32, (225, 225, 225), 1, cv2.LINE_AA
    cv2.putText(banner, "(c) automix_transfer", (4, 14), *font)
    return np.concatenate([image, banner]), placed


def scene_image(rng: Generator, label: int, kinds: list) -> tuple[Image, list[Placed]]:
    """One to four objects, the first of the given label.

    They may hide a little of each other or leave the frame a little.
    """
    height, width = _frame(rng, 104, 132, 128, 160)
    placed: list[Placed] = []
    for index in range(int(rng.choice(4, p=[0.3, 0.35, 0.25, 0.1])) + 1):
        chosen = label if index == 0 else int(rng.integers(len(kinds)))
        for _ in range(30):
            radius = rng.uniform(0.12, 0.3) * min(height, width)
            x, y = (rng.uniform(0.55 * radius, side - 0.55 * radius) for side in (width, height))
            others = [one.place for one in placed]
            if all(np.hypot(x - o.x, y - o.y) > 0.85 * (radius + o.radius) for o in others):
                place = Placement(x, y, radius, rng.uniform(-0.6, 0.6), _stretch(rng), light=-1.0)
                placed.append(Placed(make_object(rng, kinds[chosen]), place, chosen))
                break
    return _paint(rng, height, width, placed, (0.05, 0.13)), placed


def _stretch(rng: Generator) -> float:
    return float(STRETCH ** rng.uniform(-1, 1))


def _frame(rng: Generator, low: int, high: int, long_low: int, long_high: int) -> tuple[int, int]:
    """Height and width of an image, landscape three times out of four."""
    short, long = int(rng.integers(low, high + 1)), int(rng.integers(long_low, long_high + 1))
    return (short, long) if rng.uniform() < 0.75 else (long, short)


def _place_inside(
    rng: Generator, height: int, width: int, radius: float, reach: float, angle: float
) -> Placement:
    """Anywhere such that a thing of ``reach`` × radius stays inside the image, looking left or right."""
    margin = reach * radius
    x = rng.uniform(margin, width - margin) if width > 2 * margin else width / 2
    y = rng.uniform(margin, height - margin) if height > 2 * margin else height / 2
    return Placement(
        float(x), float(y), radius, angle, mirror=int(rng.choice((-1, 1))), light=rng.uniform(-2.6, -0.5)
    )


RENDERERS: dict[str, Callable[[Generator, int], tuple[Image, list[Placed]]]] = {
    "object": object_image,
    "bird": bird_image,
    "aircraft": aircraft_image,
    "voc": lambda rng, label: scene_image(rng, label, VOC_CLASSES),
    "coco": lambda rng, label: scene_image(rng, label, COCO_CLASSES),
}


def render(job: Job) -> tuple[Image, Record]:
    """The image (H, W, 3) uint8 RGB of a job and its annotations."""
    rng = np.random.default_rng(job.seed)
    image, placed = RENDERERS[job.kind](rng, job.label)
    height, width = image.shape[:2]
    instances = [] if job.kind == "object" else describe(placed, height, width, polygons=job.kind == "coco")
    return image, Record(job.file, job.label, height, width, instances)


def write_images(folder: Path, jobs: list[Job]) -> list[Record]:
    """Render jobs into JPEG files below ``folder``, whose subfolders exist; runs in a worker process.

    Raises:
        OSError: a file could not be written.
    """
    cv2.setNumThreads(1)
    records = []
    for job in jobs:
        image, record = render(job)
        parameters: list[Any] = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), parameters)
        (folder / job.file).write_bytes(encoded.tobytes())
        records.append(record)
    return records
