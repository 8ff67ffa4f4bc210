"""Noise of a camera: Gaussian, shot, impulse, speckle.

Images (N, H, W, 3) in [0, 1], one generator an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Generators = Sequence[np.random.Generator]


def gaussian_noise(images: Floats, std: float, rngs: Generators) -> Floats:
    """x + N(0, std²)."""
    return images + std * _normal(images, rngs)


def speckle_noise(images: Floats, std: float, rngs: Generators) -> Floats:
    """x + x · N(0, std²)."""
    return images + images * std * _normal(images, rngs)


def shot_noise(images: Floats, photons: float, rngs: Generators) -> Floats:
    """Poisson counts of x · photons, over photons."""
    return np.stack([rng.poisson(image * photons) for image, rng in zip(images, rngs, strict=True)]) / photons


def impulse_noise(images: Floats, share: float, rngs: Generators) -> Floats:
    """A share of all values becomes 0 or 1, each with probability one half."""
    draws = np.stack([rng.random((2, *images.shape[1:])) for rng in rngs])
    return np.where(draws[:, 0] < share, (draws[:, 1] < 0.5).astype(images.dtype), images)


def _normal(images: Floats, rngs: Generators) -> Floats:
    return np.stack([rng.standard_normal(images.shape[1:]) for rng in rngs])
