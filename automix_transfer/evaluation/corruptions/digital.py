"""Contrast, brightness, saturation, elastic distortion, pixelation and JPEG.

Images (N, H, W, 3) in [0, 1], one generator an image.
"""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from automix_transfer.evaluation.corruptions.noise import Floats, Generators


def contrast(images: Floats, factor: float, rngs: Generators) -> Floats:
    """Distance of each channel from its mean times ``factor``."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def brightness(images: Floats, added: float, rngs: Generators) -> Floats:
    """The V of HSV plus ``added``."""
    hsv = rgb_to_hsv(images)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    return hsv_to_rgb(hsv)


def saturate(images: Floats, parameters: tuple[float, float], rngs: Generators) -> Floats:
    """(factor, added): the S of HSV times factor plus added."""
    hsv = rgb_to_hsv(images)
    hsv[..., 1] = np.clip(hsv[..., 1] * parameters[0] + parameters[1], 0, 1)
    return hsv_to_rgb(hsv)


def pixelate(images: Floats, factor: float, rngs: Generators) -> Floats:
    """Box-filtered to ``factor`` times the size, and enlarged again."""
    box, (height, width) = Image.Resampling.BOX, images.shape[1:3]
    small = [image.resize((int(width * factor), int(height * factor)), box) for image in _pil(images)]
    return np.stack([np.asarray(image.resize((width, height), box)) for image in small]) / 255


def jpeg_compression(images: Floats, quality: int, rngs: Generators) -> Floats:
    """Written as JPEG of ``quality``, and read again."""

    def through(image: Image.Image) -> np.ndarray:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer, formats=("JPEG",)))

    return np.stack([through(image) for image in _pil(images)]) / 255


def elastic_transform(images: Floats, parameters: tuple[float, float, float], rngs: Generators) -> Floats:
    """(strength, σ, shift) in sides of the image: an affine shift of three points, then smoothed noise.

    The points move by up to ``shift``; the noise in [-1, 1] is smoothed with σ and multiplied by
    ``strength``.
    """
    side = images.shape[1]
    strength, sigma, shift = (side * value for value in parameters)
    return np.stack(
        [_elastic(image, strength, sigma, shift, rng) for image, rng in zip(images, rngs, strict=True)]
    )


def _elastic(image: Floats, strength: float, sigma: float, shift: float, rng: np.random.Generator) -> Floats:
    height, width = image.shape[:2]
    centre, third = np.array([height, width]) // 2, min(height, width) // 3
    corners = np.array(
        [centre + third, [centre[0] + third, centre[1] - third], centre - third], dtype=np.float32
    )
    moved = corners + rng.uniform(-shift, shift, corners.shape).astype(np.float32)
    affine = cv2.getAffineTransform(corners, moved)
    warped = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    dx, dy = (
        strength * gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    )
    y, x = np.mgrid[:height, :width]
    places, channels = [y + dy, x + dx], np.moveaxis(warped, -1, 0)
    return np.stack([map_coordinates(c, places, order=1, mode="reflect") for c in channels], axis=-1)


def _pil(images: Floats) -> list[Image.Image]:
    return [Image.fromarray(image) for image in np.clip(images * 255, 0, 255).astype(np.uint8)]
