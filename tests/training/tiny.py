"""A tiny data set in ImageNet's layout: colours and stripes tell the classes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(
    root: Path, train: int = 26, val: int = 13, classes: int = 3, size: int = 32, seed: int = 0
) -> Path:
    """``train`` and ``val`` images in all, dealt to ``classes`` folders of PNGs; returns ``root``."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            label = number % classes
            pixels = rng.normal(128, 40, (size, size, 3))
            pixels[:, :: label + 2, label % 3] += 60
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")
    return root


#: overrides that make a run of seconds: 3 steps an epoch
FAST = [
    "encoder.name=resnet10_32",
    "data.image_size=32",
    "data.workers=0",
    "train.batch_size=8",
    "train.epochs=2",
    "train.device=cpu",
    "train.log_every=1",
    "optimizer.lr=0.05",
]
