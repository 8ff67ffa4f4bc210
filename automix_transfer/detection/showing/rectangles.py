"""Boxes with names and scores on an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[int, int, int]
TRUE: Colour = (40, 220, 60)


def class_colour(label: int) -> Colour:
    """A bright colour for each class; neighbours in label order are far apart (steps of the golden ratio
    around the colour circle)."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * label) % 1.0, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: ArrayLike, boxes: ArrayLike, texts: Sequence[str], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    """A copy of ``image`` (H, W, 3) uint8 with ``boxes`` (N, 4), x0 y0 x1 y1 in its pixels, each with its
    text in its colour.

    The first box is drawn last, so the best detection stays on top.
    """
    picture = np.ascontiguousarray(np.asarray(image, dtype=np.uint8)).copy()
    height, width = picture.shape[:2]
    thickness = max(1, round(min(height, width) / 150))
    scale = max(0.35, min(height, width) / 900)
    corners = np.round(np.asarray(boxes, dtype=np.float64).reshape(-1, 4)).astype(int).tolist()
    for (x0, y0, x1, y1), text, colour in reversed(list(zip(corners, texts, colours, strict=True))):
        cv2.rectangle(picture, (x0, y0), (min(x1, width - 1), min(y1, height - 1)), colour, thickness)
        if text:
            _label(picture, text, x0, y0, scale, colour)
    return picture


def _label(picture: NDArray[np.uint8], text: str, x: int, y: int, scale: float, colour: Colour) -> None:
    (wide, high), below = cv2.getTextSize(_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = int(min(max(x, 0), max(picture.shape[1] - wide - 2, 0)))
    top = max(y - high - below - 2, 0)  # above the box, or inside it at the upper edge of the image
    cv2.rectangle(picture, (left, top), (left + wide + 2, top + high + below + 2), colour, cv2.FILLED)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 130
    cv2.putText(
        picture,
        _ascii(text),
        (left + 1, top + high + 1),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (255, 255, 255) if dark else (0, 0, 0),
        1,
        cv2.LINE_AA,
    )


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters


def fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """``image`` scaled to fit into a square of ``side`` pixels, centred on white; (side, side, 3) uint8."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    page = np.full((side, side, 3), 255, dtype=np.uint8)
    y, x = (side - size[1]) // 2, (side - size[0]) // 2
    page[y : y + size[1], x : x + size[0]] = small
    return page
