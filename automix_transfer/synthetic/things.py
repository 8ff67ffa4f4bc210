"""The classes of the embedded data: objects, birds that differ in beak or tail, aircraft.

All of them are made of the same outlines, textures and markings, so that a backbone trained on the objects
knows what the others are made of. Colours are drawn anew for each image and tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automix_transfer.synthetic.parts import OUTLINES, Array, Part, Thing, polar
from automix_transfer.synthetic.scene import Generator, badge, random_colour, random_surface


@dataclass(frozen=True)
class ObjectClass:
    """A class of the ImageNet-, VOC- and COCO-like sets; an empty ``marking`` means any."""

    name: str
    shape: str
    texture: str
    marking: str = ""


# Each shape comes in two textures and two markings, each texture and each marking on two shapes: one
# attribute alone narrows sixteen classes to four, two of them to two, and only all three name the class.
_ATTRIBUTES = {
    "disc": (("dots", "rings"), ("cross", "ring")),
    "square": (("dots", "checker"), ("bars", "wedge")),
    "star": (("stripes", "rings"), ("cross", "bars")),
    "heart": (("stripes", "checker"), ("ring", "wedge")),
}
IMAGENET_CLASSES = [
    ObjectClass(f"{shape}, {texture}, {marking}", shape, texture, marking)
    for shape, (textures, markings) in _ATTRIBUTES.items()
    for texture in textures
    for marking in markings
]
VOC_CLASSES = [
    ObjectClass("ladybird", "disc", "dots"),
    ObjectClass("target", "disc", "rings"),
    ObjectClass("dice", "square", "dots"),
    ObjectClass("chessboard", "square", "checker"),
    ObjectClass("kite", "star", "stripes"),
    ObjectClass("starfish", "star", "rings"),
]
COCO_CLASSES = [
    *VOC_CLASSES,
    ObjectClass("balloon", "heart", "stripes"),
    ObjectClass("locket", "heart", "checker"),
]
MARKING_RADIUS = 0.42  # of the object's radius

SHAPES = list(_ATTRIBUTES)
OBJECT_TEXTURES = ["stripes", "dots", "checker", "rings"]
OBJECT_MARKINGS = ["cross", "ring", "bars", "wedge"]


def make_object(rng: Generator, kind: ObjectClass) -> Thing:
    """One object of a class, in random colours."""
    surface = random_surface(rng, kind.texture, [OUTLINES[kind.shape]])
    marking = kind.marking or str(rng.choice(OBJECT_MARKINGS))
    reach, angle = rng.uniform(0, 0.12), rng.uniform(0, 2 * np.pi)
    return [
        surface,
        *badge(
            rng, marking, reach * np.sin(angle), reach * np.cos(angle), MARKING_RADIUS, rng.uniform(-0.3, 0.3)
        ),
    ]


# --- birds
@dataclass(frozen=True)
class Species:
    """A bird: the genus gives body and plumage; beak and the marking on the tail give the species."""

    name: str
    body: str
    texture: str
    beak: str
    marking: str


_GENERA = {"Roundling": ("disc", "stripes"), "Leafwing": ("leaf", "dots"), "Drumbird": ("drum", "checker")}
_TAILS = {"Cross": "cross", "Ring": "ring"}
SPECIES = [
    Species(f"{beak}_{tail}tail_{genus}", body, texture, beak.lower(), marking)
    for genus, (body, texture) in _GENERA.items()
    for beak in ("Hooked", "Straight")
    for tail, marking in _TAILS.items()
]

# Beaks start at the head's right rim; x to the right.
_BEAKS = {
    "straight": np.array([(0, -0.13), (0.52, 0.0), (0, 0.13)], np.float32),
    "hooked": np.array(
        [(0, -0.15), (0.2, -0.16), (0.36, -0.02), (0.36, 0.3), (0.22, 0.12), (0, 0.13)], np.float32
    ),
}


def _ellipse(x: float, y: float, rx: float, ry: float, points: int = 40, power: float = 1.0) -> Array:
    """An ellipse; a power below 1 makes it boxy."""
    circle = polar(lambda angle: np.ones_like(angle), points)
    return (np.sign(circle) * abs(circle) ** power * (rx, ry) + (x, y)).astype(np.float32)


def _sideways(outline: Array, rx: float, ry: float, x: float = 0.0, y: float = 0.0) -> Array:
    """An outline lying on its side, scaled and moved."""
    return (outline[:, ::-1] * (rx, ry) + (x, y)).astype(np.float32)


def _body(name: str) -> Array:
    if name == "leaf":
        return _sideways(OUTLINES["leaf"], 0.72, 0.68)
    if name == "drum":
        return _ellipse(0, 0, 0.56, 0.38, power=0.55)
    return _ellipse(0, 0, 0.56, 0.48)


def make_bird(rng: Generator, species: Species) -> Thing:
    """One bird that looks to the right, in random colours, with its tail marking on a fan of feathers."""
    plumage = random_surface(rng, species.texture, [_body(species.body)], periods=3.0)
    head, beak = random_colour(rng), random_colour(rng, (0.4, 0.95), (0.5, 1.0))
    tail = random_colour(rng)
    lift = rng.uniform(-0.06, 0.06)
    rim = [(-0.72, -0.3), (-1.18, -0.28), (-1.24, 0.0), (-1.18, 0.28), (-0.72, 0.3)]
    fan = np.array([(-0.35, -0.12), *((x, y + lift) for x, y in rim), (-0.35, 0.12)], np.float32)
    wing = _sideways(OUTLINES["leaf"], 0.34, 0.26, -0.12, rng.uniform(0.0, 0.1))
    leg = random_colour(rng, (0.3, 0.8), (0.2, 0.6))
    foot = [(-0.02, 0.3), (0.02, 0.3), (0.05, 0.72), (0.16, 0.75), (0.16, 0.78), (0.0, 0.78)]
    legs = [
        Part([np.array([(x + step, y) for x, y in foot], np.float32)], leg, rim=False)
        for step in (-0.05, 0.14)
    ]
    x, y = 0.58, -0.32
    eye = x + 0.08, y - 0.06
    return [
        *legs,
        Part([fan], tail),
        *badge(rng, species.marking, -0.93, lift, 0.22, rng.uniform(-0.3, 0.3)),
        plumage,
        Part([wing], random_colour(rng), solid=False),
        Part([_BEAKS[species.beak] + np.array([x + 0.2, y + 0.02], np.float32)], beak),
        Part([_ellipse(x, y, 0.27, 0.26)], head),
        Part([_ellipse(*eye, 0.075, 0.075, 16)], (245, 245, 240), rim=False, solid=False),
        Part([_ellipse(eye[0] + 0.015, eye[1], 0.04, 0.04, 12)], (15, 15, 20), rim=False, solid=False),
    ]


# --- aircraft
@dataclass(frozen=True)
class Variant:
    """An aircraft seen from above: its maker gives the wings, its family the livery, its variant a mark."""

    name: str
    family: str
    manufacturer: str
    wings: str
    texture: str
    marking: str


_FAMILIES = [
    ("Aldair", "Aldair 20", "swept", "stripes"),
    ("Aldair", "Aldair 40", "swept", "dots"),
    ("Borealis", "Borealis B1", "straight", "stripes"),
    ("Borealis", "Borealis B2", "straight", "checker"),
    ("Corvid", "Corvid Delta", "delta", "dots"),
]
VARIANTS = [
    Variant(f"{family}-{number}", family, manufacturer, wings, texture, marking)
    for manufacturer, family, wings, texture in _FAMILIES
    for number, marking in (("100", "cross"), ("200", "ring"))
]

_WINGS = {
    "swept": [(0.28, 0.1), (-0.12, 1.0), (-0.32, 1.0), (-0.18, 0.1)],
    "straight": [(0.22, 0.1), (0.14, 1.0), (-0.14, 1.0), (-0.2, 0.1)],
    "delta": [(0.5, 0.1), (-0.42, 0.82), (-0.56, 0.8), (-0.5, 0.1)],
}


def make_aircraft(rng: Generator, variant: Variant) -> Thing:
    """One aircraft with its nose to the right, in random colours."""
    half = np.array(_WINGS[variant.wings], np.float32)
    both = np.concatenate([half, half[::-1] * np.array([1, -1], np.float32)])
    # stripes run along the flight
    wing = random_surface(rng, variant.texture, [both], periods=3.2, turn=np.pi / 2)
    hull, tail = random_colour(rng, (0.0, 0.5), (0.55, 1.0)), random_colour(rng)
    fuselage = _ellipse(0, 0, 0.98, 0.17, 48, power=0.8)
    tailplane = np.array(
        [(-0.68, 0.0), (-0.88, 0.42), (-1.0, 0.42), (-0.92, 0.0), (-1.0, -0.42), (-0.88, -0.42)], np.float32
    )
    engine = random_colour(rng, (0, 0.3), (0.2, 0.6))
    engines = [
        Part([_ellipse(0.22 if variant.wings != "delta" else -0.1, side * 0.44, 0.14, 0.07, 16)], engine)
        for side in (-1, 1)
    ]
    window = Part([_ellipse(0.83, 0.0, 0.06, 0.09, 16)], (30, 40, 60), rim=False, solid=False)
    mark = badge(rng, variant.marking, 0.5, 0.0, 0.21, rng.uniform(-0.3, 0.3))
    return [Part([tailplane], tail), *engines, wing, Part([fuselage], hull), window, *mark]
