"""Pictures of localization: an image with its map, its true box and the predicted one, and pages of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

TRUE_COLOUR = (40, 220, 60)
PREDICTED_COLOUR = (255, 40, 40)


def outline(
    picture: NDArray[np.uint8], mask: NDArray, colour: tuple[int, int, int] = TRUE_COLOUR
) -> NDArray[np.uint8]:
    """A copy of ``picture`` (H, W, 3) with the borders of a mask's objects (h, w), its 1s, drawn on it."""
    height, width = picture.shape[:2]
    on = cv2.resize(
        (np.asarray(mask) == 1).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    borders = cv2.findContours(on, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
    return np.asarray(
        cv2.drawContours(picture.copy(), borders, -1, colour, max(1, round(min(height, width) / 112))),
        dtype=np.uint8,
    )


def overlay(
    image: ArrayLike,
    cam: ArrayLike | None,
    true_box: ArrayLike | None,
    predicted_box: ArrayLike | None,
    text: str = "",
) -> NDArray[np.uint8]:
    """``image`` (H, W, 3) uint8 under its score map in colours, the true box green, the predicted one red.

    Args:
        cam: (h, w) map in [0, 1]; resized to the image.
        true_box, predicted_box: x0, y0, x1, y1 in pixels of the image, one box (4,) or several (N, 4).
        text: written in the upper left corner.
    """
    picture = np.ascontiguousarray(np.asarray(image, dtype=np.uint8)).copy()
    height, width = picture.shape[:2]
    if cam is not None:
        heat = cv2.resize(np.asarray(cam, dtype=np.float64), (width, height), interpolation=cv2.INTER_LINEAR)
        colours = cv2.applyColorMap((heat.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
        picture = np.asarray(
            cv2.addWeighted(picture, 0.6, np.ascontiguousarray(colours), 0.4, 0), dtype=np.uint8
        )
    thickness = max(1, round(min(height, width) / 112))
    for boxes, colour in ((true_box, TRUE_COLOUR), (predicted_box, PREDICTED_COLOUR)):
        if boxes is not None:
            pixels = np.round(np.asarray(boxes, dtype=np.float64).reshape(-1, 4)).astype(int)
            for x0, y0, x1, y1 in pixels.tolist():
                cv2.rectangle(picture, (x0, y0), (min(x1, width - 1), min(y1, height - 1)), colour, thickness)
    if text:
        scale = max(0.3, min(height, width) / 450)
        place = (3, int(14 * scale / 0.4))
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def grid(pictures: Sequence[NDArray[np.uint8]], columns: int, gap: int = 4) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) uint8 of one size, row by row on white, ``gap`` pixels apart."""
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    page = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        page[y : y + height, x : x + width] = picture
    return page


def to_png(picture: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
