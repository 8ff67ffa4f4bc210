"""Backgrounds, clutter, light and noise of the embedded images: everything that must not tell the class.

The difficulty of the embedded classification task is set by the constants at the top.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from automix_transfer.synthetic.parts import (
    MARKINGS,
    OUTLINES,
    SUPERSAMPLING,
    TEXTURE_PERIODS,
    Array,
    Colour,
    Image,
    Part,
    Placement,
    Thing,
    draw_thing,
    polar,
    shrink,
)

# --- difficulty
OBJECT_RADIUS = (0.23, 0.29)  # of the image's shorter side; an object spans about twice that
OBJECT_OFF_CENTRE = 0.24  # largest distance of the object's centre from the image's, of each side
OBJECT_TURN = 0.3  # radians, either way
STRETCH = 1.1  # largest stretch of one axis
# smallest distance of luminance between a texture's colours, 0 to 255; the second is the darker one
COLOUR_CONTRAST = 95
# fewest and most
CLUTTER = {"patches": (0, 1), "silhouettes": (0, 1), "badges": (0, 1), "blobs": (1, 3), "lines": (0, 2)}
CLUTTER_RADIUS = (0.06, 0.15)  # of the image's shorter side
BACKGROUND_SATURATION = (0.05, 0.45)
LIGHT = (0.8, 1.15)  # gain
GAMMA = (0.85, 1.2)
NOISE = (0.0, 5.0)  # standard deviation in grey levels
BLUR = (0.0, 0.4)  # standard deviation in pixels

Generator = np.random.Generator
BADGE = polar(lambda angle: np.full_like(angle, 1.0), 32)


def random_colour(
    rng: Generator, saturation: tuple[float, float] = (0.25, 0.95), value: tuple[float, float] = (0.3, 1.0)
) -> Colour:
    """Any hue; uninformative by construction."""
    hue, s, v = rng.uniform(0, 6), rng.uniform(*saturation), rng.uniform(*value)
    red, green, blue = (
        255 * v * (1 - s * max(0.0, min((n + hue) % 6, 4 - (n + hue) % 6, 1.0))) for n in (5, 3, 1)
    )
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def light_and_dark(rng: Generator, contrast: float = COLOUR_CONTRAST) -> tuple[Colour, Colour]:
    """Two random colours, the first lighter by at least ``contrast`` of luminance."""
    while True:
        one, two = random_colour(rng, (0.15, 0.95), (0.1, 1.0)), random_colour(rng, (0.15, 0.95), (0.1, 1.0))
        if luminance(one) - luminance(two) >= contrast:
            return one, two
        if luminance(two) - luminance(one) >= contrast:
            return two, one


def random_surface(
    rng: Generator, texture: str, polygons: list[Array], periods: float = TEXTURE_PERIODS, turn: float = 0.0
) -> Part:
    """A textured part in two random contrasting colours."""
    light, dark = light_and_dark(rng)
    return Part(
        polygons,
        light,
        texture,
        dark,
        periods=periods * rng.uniform(0.9, 1.1),
        phase=(0, 0) if texture == "rings" else (rng.uniform(), rng.uniform()),
        turn=turn + rng.uniform(-0.2, 0.2),
    )


def badge(rng: Generator, marking: str, x: float, y: float, radius: float, turn: float = 0.0) -> Thing:
    """A marking: its symbol on a disc, at (x, y) of the thing that carries it."""
    ground, symbol = light_and_dark(rng, 130)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]], np.float32) * np.float32(radius)
    shift = np.array([x, y], np.float32)
    return [
        Part([BADGE @ matrix + shift], ground, solid=False),
        Part([polygon @ matrix + shift for polygon in MARKINGS[marking]], symbol, rim=False, solid=False),
    ]


def random_background(rng: Generator, height: int, width: int) -> Array:
    """A canvas of soft colour fields with an octave of finer structure, (S·H, S·W, 3) float32."""
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    base = np.array([random_colour(rng, BACKGROUND_SATURATION, (0.25, 0.9)) for _ in range(3)], np.float32)
    weights = rng.dirichlet((0.7, 0.7, 0.7), (3, 4)).astype(np.float32)
    canvas = cv2.resize(weights @ base, size, interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, rng.uniform(4, 16), (rng.integers(6, 16), rng.integers(6, 16), 1)).astype(
        np.float32
    )
    canvas = canvas + cv2.resize(grain, size, interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(canvas, 0, 255)


def _anywhere(rng: Generator, height: int, width: int, radius: tuple[float, float]) -> Placement:
    return Placement(
        rng.uniform(0, width),
        rng.uniform(0, height),
        rng.uniform(*radius) * min(height, width),
        rng.uniform(-np.pi, np.pi),
        stretch=rng.uniform(0.8, 1.25),
    )


def _blob(rng: Generator) -> Array:
    knots = rng.uniform(0.55, 1.1, 7)
    return polar(
        lambda angle: np.interp(angle, np.linspace(0, 2 * np.pi, 8), [*knots, knots[0]]).astype(np.float32),
        40,
    )


def add_clutter(
    rng: Generator,
    canvas: Array,
    height: int,
    width: int,
    shapes: Sequence[str],
    textures: Sequence[str],
    markings: Sequence[str],
    radius: tuple[float, float] = CLUTTER_RADIUS,
    amount: float = 1.0,
) -> None:
    """Distractors, painted in place: each has one attribute of some class, never a combination."""

    def count(kind: str) -> int:
        low, high = CLUTTER[kind]
        return round(amount * int(rng.integers(low, high + 1)))

    todo: list[Thing] = []
    for _ in range(count("blobs")):
        todo.append([Part([_blob(rng)], random_colour(rng, (0.05, 0.6), (0.2, 0.9)), rim=False)])
    for _ in range(count("patches")):
        todo.append([random_surface(rng, str(rng.choice(textures)), [_blob(rng)])])
    for _ in range(count("silhouettes")):
        todo.append([Part([OUTLINES[str(rng.choice(shapes))]], random_colour(rng))])
    for index in rng.permutation(len(todo)):
        draw_thing(
            canvas, todo[index], _anywhere(rng, height, width, radius), shadow=float(rng.uniform(0, 0.35))
        )
    for _ in range(count("lines")):
        _line(rng, canvas, height, width)
    for _ in range(count("badges")):
        place = _anywhere(rng, height, width, (0.45 * radius[0], 0.55 * radius[1]))
        draw_thing(canvas, badge(rng, str(rng.choice(markings)), 0, 0, 1.0), place)


def _line(rng: Generator, canvas: Array, height: int, width: int) -> None:
    ends = rng.uniform(-0.1, 1.1, (3, 2)) * np.array([width, height]) * SUPERSAMPLING
    t = np.linspace(0, 1, 20)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    thickness = max(1, round(rng.uniform(0.008, 0.03) * min(height, width) * SUPERSAMPLING))
    cv2.polylines(
        canvas, [np.round(curve * 16).astype(np.int32)], False, random_colour(rng), thickness, cv2.LINE_AA, 4
    )


def finish(rng: Generator, canvas: Array, height: int, width: int) -> Image:
    """Light, contrast, blur and noise of a camera; canvas to image (H, W, 3) uint8 RGB."""
    image = shrink(canvas, (height, width)).astype(np.float32) / 255
    slope = rng.uniform(-0.18, 0.18, 2)
    light = rng.uniform(*LIGHT) * (
        1 + slope[0] * np.linspace(-1, 1, width)[None, :] + slope[1] * np.linspace(-1, 1, height)[:, None]
    )
    image = np.clip(image * light[..., None].astype(np.float32), 0, 1) ** np.float32(rng.uniform(*GAMMA))
    blur = rng.uniform(*BLUR)
    if blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(*NOISE))
    return np.clip(np.round(image * 255 + noise), 0, 255).astype(np.uint8)
