"""AugMix's views (Hendrycks et al., 2020): a few chains of simple operations on an image, mixed with each
other and with the image.

Colour, contrast, brightness and sharpness are left out, as in its paper, because they overlap with the
corruptions that it is tested on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Operation = Callable[[Image.Image, float], Image.Image]


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def _signed(value: float) -> float:
    return value if np.random.random_sample() < 0.5 else -value


#: level L -> image; L is drawn between 0.1 and the severity, which is 10 at most
OPERATIONS: tuple[Operation, ...] = (
    lambda image, level: ImageOps.autocontrast(image),
    lambda image, level: ImageOps.equalize(image),
    lambda image, level: ImageOps.posterize(image, max(4 - int(0.4 * level), 1)),
    lambda image, level: image.rotate(_signed(int(3 * level)), resample=Image.Resampling.BILINEAR),
    lambda image, level: ImageOps.solarize(image, 256 - int(25.6 * level)),
    lambda image, level: _affine(image, (1, _signed(0.03 * level), 0, 0, 1, 0)),
    lambda image, level: _affine(image, (1, 0, 0, _signed(0.03 * level), 1, 0)),
    lambda image, level: _affine(image, (1, 0, _signed(int(level * image.width / 30)), 0, 1, 0)),
    lambda image, level: _affine(image, (1, 0, 0, 0, 1, _signed(int(level * image.height / 30)))),
)


@dataclass(frozen=True)
class AugMixView:
    """A PIL image to (H, W, 3) float32 values from 0 to 255, drawn from NumPy's global generator, which the
    data set seeds for each view.

    Attributes:
        severity: the largest level of an operation (3 on CIFAR, 1 on ImageNet; at most 10).
        width: chains; ``depth``: operations in each, 0 for 1 to 3 by chance.
        alpha: weights of the chains ~ Dirichlet(α), share of the image itself ~ Beta(α, α).
    """

    severity: float = 3.0
    width: int = 3
    depth: int = 0
    alpha: float = 1.0

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        weights = np.random.dirichlet([self.alpha] * self.width)
        share = np.random.beta(self.alpha, self.alpha)
        total = np.zeros((image.height, image.width, 3), dtype=np.float64)
        for weight in weights:
            changed = image
            for _ in range(self.depth or np.random.randint(1, 4)):
                operation = OPERATIONS[np.random.randint(len(OPERATIONS))]
                changed = operation(changed, np.random.uniform(0.1, max(self.severity, 0.1)))
            total += weight * np.asarray(changed, dtype=np.float64)
        return ((1 - share) * np.asarray(image, dtype=np.float64) + share * total).astype(np.float32)
