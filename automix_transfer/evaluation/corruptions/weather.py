"""Fog, frost, snow and spatter. Images (N, H, W, 3) in [0, 1], one generator an image."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from automix_transfer.evaluation.corruptions.blur import along, enlarged
from automix_transfer.evaluation.corruptions.noise import Floats, Generators

WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255
GRAY = np.array([0.299, 0.587, 0.114])


def fog(images: Floats, parameters: tuple[float, float], rngs: Generators) -> Floats:
    """(thickness, roughness's decay): adds a plasma fractal, scaled so that the brightest value stays."""
    thickness, decay = parameters
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    clouds = plasma(images.shape[1:3], decay, rngs)[..., None]
    return np.clip((images + thickness * clouds) * brightest / (brightest + thickness), 0, 1)


def plasma(size: tuple[int, int], decay: float, rngs: Generators) -> Floats:
    """(N, H, W) clouds in [0, 1]: diamond-square on a torus, noise of 100², over ``decay``² an octave."""
    side = 1 << (max(size) - 1).bit_length()
    grid = np.zeros((len(rngs), side, side))
    step, wibble = side, 100.0

    def noisy(total: Floats) -> Floats:
        return total / 4 + wibble * np.stack([rng.uniform(-wibble, wibble, total.shape[1:]) for rng in rngs])

    while step >= 2:
        half = step // 2
        corners = grid[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        grid[:, half::step, half::step] = noisy(pairs + np.roll(pairs, -1, axis=2))
        centres = grid[:, half::step, half::step]
        grid[:, ::step, half::step] = noisy(
            centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        )
        grid[:, half::step, ::step] = noisy(
            centres + np.roll(centres, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        )
        step, wibble = half, wibble / decay
    grid -= grid.min(axis=(1, 2), keepdims=True)
    return (grid / grid.max(axis=(1, 2), keepdims=True))[:, : size[0], : size[1]]


def frost(images: Floats, parameters: tuple[float, float], rngs: Generators) -> Floats:
    """(share of the image, share of the frost), the frost rendered instead of cut from photographs.

    Ridges of a plasma fractal, streaked along one direction, bluish white on dark; accuracies are not
    comparable with published ones.
    """
    clouds = plasma(images.shape[1:3], 1.3, rngs)
    ridges = (1 - np.abs(2 * clouds - 1)) ** 3
    reach = max(3, images.shape[1] // 10)
    streaks = np.stack(
        [along(ridge, reach, reach, rng.uniform(0, 180)) for ridge, rng in zip(ridges, rngs, strict=True)]
    )
    texture = np.clip(0.15 + 0.7 * ridges + 0.4 * streaks, 0, 1)[..., None] * np.array([0.86, 0.94, 1.0])
    return parameters[0] * images + parameters[1] * texture


def snow(images: Floats, parameters: tuple[float, ...], rngs: Generators) -> Floats:
    """(mean, std, zoom, threshold, radius, σ, share): flakes over a whitened image that keeps ``share``.

    Flakes are enlarged noise above a threshold, blurred as they fall.
    """
    mean, std, factor, threshold, radius, sigma, share = parameters
    flakes = enlarged(np.stack([rng.normal(mean, std, images.shape[1:3]) for rng in rngs]), factor)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    falling = np.stack(
        [along(layer, radius, sigma, rng.uniform(-135, -45)) for layer, rng in zip(flakes, rngs, strict=True)]
    )[..., None]
    white = np.maximum(images, (images @ GRAY)[..., None] * 1.5 + 0.5)
    return share * images + (1 - share) * white + falling + falling[:, ::-1, ::-1]


def spatter(images: Floats, parameters: tuple[float, ...], rngs: Generators) -> Floats:
    """(mean, std, σ, threshold, strength, mud): drops of water (mud = 0) or of mud (1).

    Drops lie where smoothed noise exceeds a threshold; water shines at its edges, mud covers.
    """
    mean, std, sigma, threshold, strength, mud = parameters
    drops = np.stack([rng.normal(mean, std, images.shape[1:3]) for rng in rngs])
    drops = gaussian_filter(drops, (0, sigma, sigma), mode="nearest")
    drops[drops < threshold] = 0
    if mud:
        cover = (drops > threshold).astype(np.float64)
        cover = gaussian_filter(cover, (0, strength, strength), mode="nearest")
        cover[cover < 0.8] = 0
        return images * (1 - cover[..., None]) + cover[..., None] * MUD
    return images + np.stack([_shine(drop) for drop in drops])[..., None] * strength * WATER


def _shine(drops: Floats) -> Floats:
    """Light on drops (H, W), from 0 to 1: their height times a relief of the distance to their edges."""
    layer = (drops * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    relief = cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, emboss)
    shine = layer * cv2.blur(relief, (3, 3)).astype(np.float64)
    return shine / max(float(shine.max()), 1e-12)
