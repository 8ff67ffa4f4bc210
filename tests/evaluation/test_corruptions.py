"""Corruptions: the same for an image in any batch, against other implementations where there is one, and
harder with severity."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import zoom

from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import (
    NAMES,
    SEVERITIES,
    STANDARD,
    blur,
    corrupt,
    digital,
    noise,
    weather,
)
from automix_transfer.evaluation.corruptions.parameters import CORRUPTIONS


def pictures(count: int = 3, side: int = 32) -> np.ndarray:
    """Smooth colours with an edge: (N, side, side, 3) uint8."""
    y, x = np.mgrid[:side, :side] / side
    disk = 0.3 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05)[..., None]
    rows = [np.stack([x, y, (x + y) / 2], -1) * (0.5 + 0.1 * n) + disk for n in range(count)]
    return (255 * np.clip(np.stack(rows), 0, 1)).astype(np.uint8)


def rngs(count: int = 3) -> list[np.random.Generator]:
    return [np.random.default_rng(n) for n in range(count)]


@pytest.mark.parametrize("side", [32, 72])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_corrupted_the_same_in_any_batch(name: str, side: int) -> None:
    images = pictures(3, side)
    for severity in (1, 5):
        together = corrupt(images, name, severity, [7, 3, 9])
        assert together.shape == images.shape and together.dtype == np.uint8
        np.testing.assert_array_equal(together[1:2], corrupt(images[1:2], name, severity, [3]))
        assert not np.array_equal(together, images)
    random = not np.array_equal(corrupt(images, name, 5, [7, 3, 9], seed=1), together)
    assert random == (
        name
        not in (
            "defocus_blur",
            "zoom_blur",
            "brightness",
            "contrast",
            "pixelate",
            "jpeg_compression",
            "gaussian_blur",
            "saturate",
        )
    )


NOT_MONOTONE = ("saturate", "elastic_transform", "spatter", "frost", "glass_blur", "snow", "pixelate")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_MONOTONE])
def test_severity_moves_images_further(name: str) -> None:
    """Where the published parameters are monotone; the others differ in kind."""
    images = pictures(8, 32)
    distances = [
        np.abs(corrupt(images, name, severity, range(8)).astype(int) - images).mean()
        for severity in SEVERITIES
    ]
    assert all(near < far + 0.05 for near, far in zip(distances, distances[1:], strict=False)), distances
    assert distances[4] > 1.2 * distances[0]


def test_there_are_fifteen_and_four() -> None:
    assert len(STANDARD) == 15 and set(NAMES) - set(STANDARD) == {
        "speckle_noise",
        "gaussian_blur",
        "spatter",
        "saturate",
    }
    assert all(len(small) == len(large) == 5 for _, small, large in CORRUPTIONS.values())


def test_noise_has_its_moments() -> None:
    gray = np.full((4, 64, 64, 3), 0.5)
    assert np.std(noise.gaussian_noise(gray, 0.1, rngs(4)) - gray) == pytest.approx(0.1, rel=0.02)
    assert np.std(noise.speckle_noise(gray, 0.1, rngs(4)) - gray) == pytest.approx(0.05, rel=0.02)
    # Poisson: variance x / photons
    assert np.std(noise.shot_noise(gray, 50, rngs(4))) == pytest.approx(np.sqrt(0.5 / 50), rel=0.02)
    impulses = noise.impulse_noise(gray, 0.2, rngs(4))
    assert np.mean(impulses == 0) == pytest.approx(0.1, abs=0.01) and np.mean(impulses == 1) == pytest.approx(
        0.1, abs=0.01
    )


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.1, 1.26, 3.0])
def test_enlarging_is_scipys_zoom(factor: float) -> None:
    image = np.random.default_rng(0).random((1, 32, 48, 3))
    sides = [int(np.ceil(length / factor)) for length in image.shape[1:3]]
    top, left = ((length - side) // 2 for length, side in zip(image.shape[1:3], sides, strict=True))
    theirs = zoom(image[0, top : top + sides[0], left : left + sides[1]], (factor, factor, 1), order=1)
    top, left = ((have - want) // 2 for have, want in zip(theirs.shape, image.shape[1:3], strict=False))
    np.testing.assert_allclose(
        blur.enlarged(image, factor)[0], theirs[top : top + 32, left : left + 48], atol=1e-12
    )


def test_blurs_keep_a_flat_image_and_the_light() -> None:
    flat = np.full((3, 24, 24, 3), 0.4)
    for found in (
        blur.gaussian_blur(flat, 2, rngs()),
        blur.defocus_blur(flat, (3, 0.1), rngs()),
        blur.motion_blur(flat, (10, 3), rngs()),
        blur.zoom_blur(flat, [1.0, 1.1], rngs()),
    ):
        np.testing.assert_allclose(found, 0.4, atol=1e-6)
    assert blur.disk(3, 0.1).sum() == pytest.approx(1) and blur.disk(10, 0.5).shape == (21, 21)
    bright = np.zeros((41, 41))
    bright[20, 20] = 1
    moved = blur.along(bright, 6, 3, 0)  # to one side only
    columns, rows = (np.flatnonzero(moved.sum(axis) > 1e-9) for axis in (0, 1))
    assert (
        moved.sum() == pytest.approx(1)
        and (columns.min(), columns.max()) == (8, 20)
        and rows.tolist() == [20]
    )


def test_glass_shows_pixels_of_the_neighbourhood_when_it_does_not_blur() -> None:
    images = pictures()
    found = (blur.glass_blur(images / 255, (0, 2, 1), rngs()) * 255).round().astype(np.uint8)
    for before, after in zip(images, found, strict=True):
        near = [np.roll(before, (dy, dx), axis=(0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)]
        moved = np.stack([np.all(other == after, axis=-1) for other in near]).any(axis=0)
        # a source to the right or below may have been replaced before, so a few pixels come from further away
        assert moved[2:-2, 2:-2].mean() > 0.7 and not np.array_equal(before, after)
        assert {tuple(pixel) for pixel in after.reshape(-1, 3)} <= {
            tuple(pixel) for pixel in before.reshape(-1, 3)
        }
    edge = np.s_[:, [0, 1, -1], :]
    np.testing.assert_array_equal(found[edge], images[edge])


def test_colours_by_opencv() -> None:
    images = pictures() / 255
    changed = zip(
        images,
        digital.brightness(images, 0.2, rngs()),
        digital.saturate(images, (0.3, 0), rngs()),
        strict=True,
    )
    for image, brighter, duller in changed:
        hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
        for channel, change, found in (
            (2, lambda v: np.minimum(v + 0.2, 1), brighter),
            (1, lambda s: 0.3 * s, duller),
        ):
            expected = hsv.copy()
            expected[..., channel] = change(hsv[..., channel])
            np.testing.assert_allclose(cv2.cvtColor(expected, cv2.COLOR_HSV2RGB), found, atol=2e-3)
    np.testing.assert_allclose(
        digital.contrast(images, 0.5, rngs()).mean((1, 2)), images.mean((1, 2)), atol=1e-6
    )


def test_clouds_and_still_images() -> None:
    clouds = weather.plasma((30, 20), 2, rngs())
    assert (
        clouds.shape == (3, 30, 20)
        and clouds.min() >= 0
        and clouds.max() <= 1
        and np.abs(clouds[0] - clouds[1]).max() > 0.1
    )
    images = pictures() / 255
    np.testing.assert_allclose(digital.elastic_transform(images, (0, 0.05, 0), rngs()), images, atol=2e-3)


def test_unknown_ones_are_refused() -> None:
    with pytest.raises(UserError, match="corruption 'rain' is unknown"):
        corrupt(pictures(), "rain", 1, range(3))
    with pytest.raises(UserError, match="severity 6"):
        corrupt(pictures(), "fog", 6, range(3))
