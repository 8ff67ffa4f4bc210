"""The page of a localization: its numbers, its curve, why images were missed, and the best, median and worst
images with their maps."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automix_transfer import __version__
from automix_transfer.io import write_text
from automix_transfer.localization.maps.sources import read_target
from automix_transfer.localization.overlays import outline, overlay
from automix_transfer.localization.pipeline import Source
from automix_transfer.localization.scores.box_results import BoxImage, BoxResults
from automix_transfer.localization.scores.mask_results import MaskImage
from automix_transfer.localization.scores.pxap import read_mask
from automix_transfer.localization.writing import Results, plot
from automix_transfer.report import html
from automix_transfer.runs.folder import commit_of
from automix_transfer.training.record.run_folder import git_commit

HEIGHT = 240  #: pixels of a picture's height
GROUPS = ("Best", "Median", "Worst")
ERRORS = {
    "class wrong": "the predicted class is not the image's",
    "right": "IoU of the box and a true box is at least 0.5",
    "several objects": "the box covers more than 30 % of each of two or more true boxes",
    "part only": "more than 50 % of the box lies on the object",
    "too large": "more than 70 % of the object lies in the box",
    "elsewhere": "none of these",
}


@dataclass(frozen=True)
class Example:
    """One image of the page."""

    uri: str
    width: int
    height: int
    image_id: str
    score: str
    words: str


def write_page(results: Results, source: Source, path: Path, count: int = 8) -> Path:
    """Write the page to ``path``, one HTML file with everything inside; returns the path.

    Args:
        results: with image files.
        source: where the maps come from; those on the page are computed or read again.
        count: images in each group.
    """
    images: list[BoxImage | MaskImage] = list(results.images())
    groups = {
        name: [example(results, source, index, images[index]) for index in indices]
        for name, indices in zip(GROUPS, choose([image.score for image in images], count), strict=True)
    }
    content = {
        "title": path.stem,
        "s": results.summary,
        "boxes": isinstance(results, BoxResults),
        "groups": groups,
        "errors": ERRORS,
        "curve": "data:image/png;base64," + base64.b64encode(plot(results)).decode(),
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit_of(git_commit()),
        "split": results.target_set.name,
        "settings": settings(results.summary),
    }
    write_text(path, html.page("localization.html.j2", content))
    return path


def choose(scores: Sequence[float], count: int) -> list[list[int]]:
    """Indices of the best, median and worst ``count`` images, each at most once; images without a score (NaN)
    are left out."""
    order = sorted(
        (index for index in range(len(scores)) if not np.isnan(scores[index])),
        key=lambda index: -scores[index],
    )
    best, worst = order[:count], order[count:][-count:]
    between = order[count : len(order) - len(worst)]
    start = max(0, (len(between) - count) // 2)
    return [best, between[start : start + count], worst[::-1]]


def example(results: Results, source: Source, index: int, image: BoxImage | MaskImage) -> Example:
    """An image under its map with what is true (green) and what is predicted (red)."""
    target = results.target_set.targets[index]
    whole = read_target(target, results.target_set.crop_bottom)
    width = min(16 * HEIGHT, max(1, round(whole.width * HEIGHT / whole.height)))  # a strip is squeezed
    picture = np.asarray(whole.resize((width, HEIGHT), Image.Resampling.BILINEAR))
    heat = source.score_map(results.target_set, index)
    if isinstance(image, BoxImage):
        scale = np.array([picture.shape[1], picture.shape[0]] * 2) / results.task.map_size
        drawn = overlay(picture, heat, np.array(image.true_boxes) * scale, np.array(image.box) * scale)
        score, words = f"IoU {image.iou:.2f}", image.error
    else:
        drawn = outline(overlay(picture, heat, None, None), read_mask(target, results.task.map_size))
        score, words = f"AP {image.average_precision:.1f} %", ""
    if image.predicted is not None:
        names = results.target_set.classes
        name = names[image.predicted] if image.predicted < len(names) else f"class {image.predicted}"
        seen = "class right" if image.predicted == image.label else f"seen as {name}"
        words = "; ".join(filter(None, (words if words not in ("right", "class wrong") else "", seen)))
    return Example(_uri(drawn), drawn.shape[1], drawn.shape[0], image.image_id, score, words)


def _uri(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=85, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def settings(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to repeat the numbers."""
    names = {
        "encoder": "encoder",
        "map_method": "map",
        "cam_layer": "layer",
        "cam_class": "class of the map",
        "image_size": "image side",
        "output_stride": "output stride",
        "map_size": "side of the score maps",
        "checkpoint": "weights",
        "weights_sha256": "sha256",
        "scoremaps": "score maps",
        "dataset": "data set",
        "root": "folder",
        "metadata": "metadata",
    }
    return [(words, str(summary[key])) for key, words in names.items() if summary.get(key) is not None]
