"""Outlines, textures and markings, and the things in the embedded images that are put together from them.

A `Thing` is a list of `Part`s in coordinates of its own (x right, y down, a radius of about 1). `Placement`
moves it into an image. `draw_thing` and `thing_mask` rasterise it on a canvas that is `SUPERSAMPLING` times
larger than the image; averaging the canvas down gives anti-aliased pixels and, in the mask, the share of each
pixel that the thing covers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SUPERSAMPLING = 2
# by how much of the neighbourhood is inside
RIM_LIGHT = np.clip(0.35 + (np.arange(256, dtype=np.float32) / 255 - 0.5) * 2.2, 0.35, 1)
SUBPIXEL_BITS = 4  # OpenCV's polygons take fixed-point corners

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]  # RGB, 0 to 255


def polar(radius: Callable[[Array], Array], points: int = 64) -> Array:
    """A closed outline (points, 2) from a radius as a function of the angle, clockwise from the top."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False, dtype=np.float32)
    return np.stack([radius(angle) * np.sin(angle), -radius(angle) * np.cos(angle)], axis=1).astype(
        np.float32
    )


def _regular(corners: int, inner: float = 1.0) -> Array:
    """A regular polygon; with ``inner`` < 1 a star that has its notches at that radius."""
    count = corners if inner == 1.0 else 2 * corners
    angle = np.arange(count) * 2 * np.pi / count
    radius = np.where(np.arange(count) % 2 == 0, 1.0, inner) if inner != 1.0 else np.ones(count)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1).astype(np.float32)


def _heart() -> Array:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16, -(y + 2.5) / 15], axis=1).astype(np.float32)


def _cross(arm: float) -> Array:
    quarter = np.array([(-arm, -1), (arm, -1), (arm, -arm)], np.float32)
    turns = [[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]
    return np.concatenate([quarter @ np.array(turn, np.float32) for turn in turns])


def _leaf() -> Array:
    t = np.linspace(0, np.pi, 32)
    side = np.stack([0.55 * np.sin(t) ** 1.2, -np.cos(t)], axis=1)
    return np.concatenate([side, side[-2:0:-1] * (-1, 1)]).astype(np.float32)


OUTLINES: dict[str, Array] = {
    "disc": polar(lambda angle: np.full_like(angle, 0.9)),
    "triangle": _regular(3) * np.float32(1.1),
    "star": _regular(5, 0.48) * np.float32(1.1),
    "heart": _heart(),
    "square": np.array([(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)], np.float32),
    "leaf": _leaf(),
    "cross": _cross(0.36),
}


def _soft(value: Array, sharpness: float) -> Array:
    return np.clip(0.5 + sharpness * value, 0, 1)


def _dots(u: Array, v: Array) -> Array:
    du, dv = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return _soft(0.32 - np.hypot(du, dv), 5)


# A texture maps texture coordinates (one unit is one period) to a mixing weight of two colours in [0, 1].
TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "stripes": lambda u, v: _soft(np.sin(2 * np.pi * u), 2),
    "dots": _dots,
    "checker": lambda u, v: _soft(np.sin(np.pi * u) * np.sin(np.pi * v), 4),
    "rings": lambda u, v: _soft(np.sin(2 * np.pi * np.hypot(u, v)), 2),
}
TEXTURE_PERIODS = 1.6  # periods from the middle of a thing to its rim, before its own variation


def _ring_symbol() -> list[Array]:
    outer = polar(lambda angle: np.full_like(angle, 0.72), 32)
    return [outer, polar(lambda angle: np.full_like(angle, 0.34), 32)]


def _bars_symbol() -> list[Array]:
    bar = np.array([(-0.7, -0.16), (0.7, -0.16), (0.7, 0.16), (-0.7, 0.16)], np.float32)
    return [bar + np.array([0, y], np.float32) for y in (-0.36, 0.36)]


# A marking is a badge (a disc) with a symbol; several polygons follow the even-odd rule.
MARKINGS: dict[str, list[Array]] = {
    "cross": [_cross(0.24) * np.float32(0.78)],
    "ring": _ring_symbol(),
    "bars": _bars_symbol(),
    "wedge": [np.array([(0, -0.75), (0.7, 0.55), (-0.7, 0.55)], np.float32)],
}


@dataclass(frozen=True)
class Part:
    """One piece of a thing: polygons (even-odd) in the thing's coordinates, a colour, perhaps a texture."""

    polygons: list[Array]
    colour: Colour
    texture: str = ""
    second: Colour = (0, 0, 0)
    periods: float = TEXTURE_PERIODS
    phase: tuple[float, float] = (0, 0)
    turn: float = 0.0  # of the texture against the thing, radians
    rim: bool = True  # darken the rim
    solid: bool = True  # False: paint on top of what is there, which changes no silhouette


Thing = list[Part]


@dataclass(frozen=True)
class Placement:
    """Where a thing stands: centre and radius in image pixels, angles in radians, mirror 1 or -1."""

    x: float
    y: float
    radius: float
    angle: float = 0.0
    stretch: float = 1.0
    mirror: int = 1
    light: float = -0.8

    def matrix(self, scale: float = SUPERSAMPLING) -> NDArray[np.float64]:
        """2×3, from the thing's coordinates to the canvas, whose pixel (0, 0) has its centre at (0, 0)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        linear = turn @ np.diag([self.mirror * self.stretch, 1 / self.stretch]) * self.radius * scale
        return np.concatenate([linear, [[self.x * scale - 0.5], [self.y * scale - 0.5]]], axis=1)


def _fixed_point(polygon: Array, matrix: NDArray[np.float64], offset: tuple[int, int]) -> NDArray[np.int32]:
    points = polygon @ matrix[:, :2].T + matrix[:, 2] - offset
    return np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _bounds(
    points: Array, matrix: NDArray[np.float64], shape: tuple[int, ...], margin: int
) -> tuple[slice, slice]:
    """Rows and columns of a canvas around a polygon; empty where it lies outside."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    (x0, y0), (x1, y1) = moved.min(axis=0), moved.max(axis=0)
    rows = slice(max(int(y0) - margin, 0), min(int(y1) + margin + 1, shape[0]))
    return rows, slice(max(int(x0) - margin, 0), min(int(x1) + margin + 1, shape[1]))


def _region(part: Part, matrix: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    points = part.polygons[0] if len(part.polygons) == 1 else np.concatenate(part.polygons)
    rows, columns = _bounds(points, matrix, shape, 2)
    return (rows, columns) if rows.stop > rows.start and columns.stop > columns.start else None


def _fill(part: Part, matrix: NDArray[np.float64], rows: slice, columns: slice) -> Image:
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    points = [_fixed_point(polygon, matrix, (columns.start, rows.start)) for polygon in part.polygons]
    cv2.fillPoly(mask, points, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def draw_thing(canvas: Array, thing: Thing, place: Placement, shadow: float = 0.0) -> None:
    """Paint a thing on a canvas (H, W, 3), float32 RGB 0 to 255, in place.

    Shading follows ``place.light``; ``shadow`` in [0, 1].
    """
    matrix = place.matrix()
    if shadow > 0:
        _draw_shadow(canvas, thing, place, shadow)
    inverse = cv2.invertAffineTransform(matrix)
    for part in thing:
        region = _region(part, matrix, canvas.shape)
        if region is None:
            continue
        rows, columns = region
        mask = _fill(part, matrix, rows, columns)
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]).astype(np.float32)
        v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]).astype(np.float32)
        # Light comes from one side of the image, whatever the thing's own rotation.
        side = (
            np.cos(place.light) * (x / SUPERSAMPLING - place.x)
            + np.sin(place.light) * (y / SUPERSAMPLING - place.y)
        ) / place.radius
        gain = 1 + 0.2 * np.clip(side, -1.2, 1.2).astype(np.float32)
        if part.rim:
            width = 2 * round(0.05 * place.radius * SUPERSAMPLING) + 1
            gain *= RIM_LIGHT[cv2.blur(mask, (width, width))]
        paint: Array = np.asarray(part.colour, np.float32)
        if part.texture:
            cos, sin = (np.float32(f(part.turn) * part.periods) for f in (np.cos, np.sin))
            weight = TEXTURES[part.texture](
                cos * u - sin * v + np.float32(part.phase[0]), sin * u + cos * v + np.float32(part.phase[1])
            )
            paint = paint + weight[..., None] * (np.asarray(part.second, np.float32) - paint)
        paint = np.minimum(paint * gain[..., None], 255)
        below = canvas[rows, columns]
        below += (mask.astype(np.float32) / 255)[..., None] * (paint - below)


def _draw_shadow(canvas: Array, thing: Thing, place: Placement, strength: float) -> None:
    reach, blur = 0.12 * place.radius * SUPERSAMPLING, 2 * round(0.1 * place.radius * SUPERSAMPLING) + 1
    points = np.concatenate([polygon for part in thing for polygon in part.polygons])
    rows, columns = _bounds(points, place.matrix(), canvas.shape, round(reach) + 2 * blur)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    matrix = place.matrix() - [[0, 0, reach * np.cos(place.light)], [0, 0, reach * np.sin(place.light)]]
    for part in thing:
        if part.solid:
            start = columns.start, rows.start
            corners = [_fixed_point(polygon, matrix, start) for polygon in part.polygons]
            cv2.fillPoly(mask, corners, round(255 * strength), cv2.LINE_8, SUBPIXEL_BITS)
    soft = cv2.blur(cv2.blur(mask, (blur, blur)), (blur, blur))
    canvas[rows, columns] *= (1 - soft.astype(np.float32) / 255)[..., None]


def _coverage(thing: Thing, place: Placement, shape: tuple[int, ...]) -> Image:
    matrix = place.matrix()
    mask = np.zeros(shape, np.uint8)
    for part in thing:
        region = _region(part, matrix, shape) if part.solid else None
        if region is not None:
            mask[region] = np.maximum(mask[region], _fill(part, matrix, *region))
    return mask


def shrink(canvas: NDArray, size: tuple[int, int]) -> NDArray:
    """Average a canvas down to an image of (height, width)."""
    return cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)


def thing_mask(thing: Thing, place: Placement, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The silhouette in an image of (height, width): the pixels that the thing covers at least by half."""
    canvas = _coverage(thing, place, (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    return shrink(canvas, size) >= 128


def mask_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The tight box (x0, y0, x1, y1) of a mask, upper ends exclusive; None where it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
