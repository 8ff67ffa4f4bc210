"""Boxes with names and scores on an image."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from automix_transfer.shown import LONGEST_LABEL, clean

Colour = tuple[int, int, int]
TRUE: Colour = (40, 220, 60)
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def class_colour(label: int) -> Colour:
    """A bright colour for each class; neighbours in label order are far apart (steps of the golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * label) % 1.0, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: ArrayLike | Image.Image, boxes: ArrayLike, texts: Sequence[str], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    """A copy of ``image`` (H, W, 3) uint8 with ``boxes`` (N, 4), x0 y0 x1 y1 in its pixels, and their texts.

    The first box is drawn last, so the best detection stays on top. A text stands above its box, or inside it
    at the upper edge of the image.
    """
    picture = Image.fromarray(np.asarray(image, dtype=np.uint8))
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    thickness = max(1, round(min(picture.size) / 150))
    font = ImageFont.truetype(FONT, max(9, min(picture.size) // 32))
    corners = np.round(np.asarray(boxes, dtype=np.float64).reshape(-1, 4)).astype(int).tolist()
    for (x0, y0, x1, y1), text, colour in reversed(list(zip(corners, texts, colours, strict=True))):
        draw.rectangle((x0, y0, min(x1, width - 1), min(y1, height - 1)), outline=colour, width=thickness)
        text = clean(text, LONGEST_LABEL)  # a class may have any name
        if text:
            *_, wide, high = draw.textbbox((0, 0), text, font)
            left, top = min(max(x0, 0), max(width - wide - 3, 0)), max(y0 - high - 2, 0)
            draw.rectangle((left, top, left + wide + 2, top + high + 2), fill=colour)
            dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 130
            draw.text((left + 1, top), text, "white" if dark else "black", font)
    return np.array(picture)


def drawable(image: Image.Image, most: int) -> tuple[Image.Image, float]:
    """``image`` with at most ``most`` pixels, and the scale that this took."""
    factor = math.ceil(math.sqrt(image.width * image.height / most))
    return (image.reduce(factor) if factor > 1 else image), 1 / factor


def fit(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """``image`` scaled to fit into a square of ``side`` pixels, centred on white; (side, side, 3) uint8."""
    picture = Image.fromarray(image)
    least = -(-max(picture.size) // side)  # so that a strip keeps a row of pixels
    if min(picture.size) < least:
        picture = picture.resize((max(picture.width, least), max(picture.height, least)))
    return np.array(ImageOps.pad(picture, (side, side), color="white"))
