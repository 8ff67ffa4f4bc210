"""Blur of a lens, of frosted glass, of motion and of zooming.

Images (N, H, W, 3) in [0, 1], one generator an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from automix_transfer.evaluation.corruptions.noise import Floats, Generators
from automix_transfer.host.compiled import compiled


def gaussian_blur(images: Floats, sigma: float, rngs: Generators) -> Floats:
    """A Gaussian of ``sigma`` pixels, cut at 4σ, with the border's pixels beyond it."""
    return gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest", truncate=4)


def glass_blur(images: Floats, parameters: tuple[float, int, int], rngs: Generators) -> Floats:
    """(σ, reach, rounds): blur, in each round replace every pixel by one at most ``reach`` away, blur.

    The released generator's text means to swap the two, but assigns views of one array to each other, which
    copies. The published images are made like that, so these are, too.
    """
    sigma, reach, rounds = parameters
    blurred = (gaussian_blur(images, sigma, rngs) * 255).astype(np.uint8)
    rows, columns = (max(length - 2 * reach, 0) for length in images.shape[1:3])
    for image, rng in zip(blurred, rngs, strict=True):
        _shuffle(image, rng.integers(-reach, reach, (rounds, rows, columns, 2)), reach)
    return gaussian_blur(blurred / 255, sigma, rngs)


@compiled
def _shuffle(image, offsets, reach):
    rounds, rows, columns, _ = offsets.shape
    for turn in range(rounds):
        for i in range(rows):
            for j in range(columns):
                y, x = rows + reach - i, columns + reach - j  # from the lower right corner
                other_y, other_x = y + offsets[turn, i, j, 1], x + offsets[turn, i, j, 0]
                for channel in range(image.shape[2]):
                    image[y, x, channel] = image[other_y, other_x, channel]


def defocus_blur(images: Floats, parameters: tuple[float, float], rngs: Generators) -> Floats:
    """(radius, σ of the disk's soft border): the mean over a disk."""
    kernel = disk(*parameters)
    return np.stack([cv2.filter2D(image, -1, kernel) for image in images])


def disk(radius: float, soften: float) -> Floats:
    """A disk of sum 1 in a square of at least 17 pixels, its border softened by a Gaussian."""
    reach = 8 if radius <= 8 else int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (x**2 + y**2 <= radius**2).astype(np.float64)
    size = 3 if radius <= 8 else 5
    return np.asarray(cv2.GaussianBlur(inside / inside.sum(), (size, size), sigmaX=soften), dtype=np.float64)


def motion_blur(images: Floats, parameters: tuple[float, float], rngs: Generators) -> Floats:
    """(radius, σ): half a Gaussian of 2·radius + 1 pixels, within 45 degrees of the horizontal."""
    return np.stack(
        [along(image, *parameters, rng.uniform(-45, 45)) for image, rng in zip(images, rngs, strict=True)]
    )


def along(image: Floats, radius: float, sigma: float, degrees: float) -> Floats:
    """``image`` (H, W) or (H, W, 3) blurred in one direction as by ImageMagick, border pixels repeated."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    angle = np.deg2rad(degrees)
    dx, dy = (np.ceil(steps * part - 0.5).astype(int) for part in (np.cos(angle), np.sin(angle)))
    kernel = np.zeros((2 * len(steps) - 1,) * 2)
    np.add.at(kernel, (dy + len(steps) - 1, dx + len(steps) - 1), weights / weights.sum())
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE), dtype=np.float64)


def zoom_blur(images: Floats, factors: Sequence[float], rngs: Generators) -> Floats:
    """The mean of the image and of its centre enlarged by each factor."""
    return (images + sum(enlarged(images, factor) for factor in factors)) / (len(factors) + 1)


def enlarged(images: Floats, factor: float) -> Floats:
    """The centre of images (N, H, W, ...) enlarged linearly by ``factor`` ≥ 1, one product a dimension."""
    for axis in (1, 2):
        weights = enlarging(images.shape[axis], factor)
        images = np.moveaxis(np.tensordot(images, weights, axes=(axis, 1)), -1, axis)
    return images


def enlarging(length: int, factor: float) -> Floats:
    """(length, length) weights of a row's pixels in the enlarged row; the cut part's ends stay ends."""
    side = int(np.ceil(length / factor))
    large = max(round(side * factor), length)
    start, trim = (length - side) // 2, (large - length) // 2
    place = (np.arange(large) * (side - 1) / max(large - 1, 1))[trim : trim + length]
    before = np.minimum(place.astype(int), max(side - 2, 0))
    weights = np.zeros((length, length))
    weights[np.arange(length), start + before] = 1 - (place - before)
    weights[np.arange(length), start + np.minimum(before + 1, side - 1)] += place - before
    return weights
