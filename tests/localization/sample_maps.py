"""Score maps of every kind that has ever broken an evaluator."""

import cv2
import numpy as np

SIZES = (
    (1, 1),
    (1, 2),
    (1, 9),
    (7, 1),
    (2, 2),
    (3, 3),
    (4, 5),
    (5, 5),
    (7, 7),
    (8, 13),
    (14, 14),
    (16, 16),
    (31, 17),
    (32, 32),
)


def normalized(values):
    """Minus the minimum, divided by the maximum; a constant map becomes zero."""
    values = np.asarray(values, dtype=np.float64)
    values = values - values.min()
    return values / values.max() if values.max() > 0 else np.zeros_like(values)


def smooth(rng, height, width):
    coarse = rng.normal(size=(max(2, min(7, height)), max(2, min(7, width))))
    return normalized(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def rectified(rng, height, width):
    return normalized(np.maximum(smooth(rng, height, width) - 0.5, 0))


def noisy(rng, height, width):
    return normalized(rng.random((height, width)))


def few_levels(rng, height, width):
    return rng.integers(0, int(rng.integers(1, 5)) + 1, (height, width)) / 4


def sparse(rng, height, width):
    return (rng.random((height, width)) < rng.uniform(0.02, 0.5)) * rng.random((height, width))


def one_pixel(rng, height, width):
    values = np.zeros((height, width))
    values[rng.integers(height), rng.integers(width)] = 1
    return values


def constant(rng, height, width):
    return np.full((height, width), rng.choice([0.0, 0.002, 0.5, 1.0]))


def lines(rng, height, width):
    values = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 6))):
        ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        cv2.line(values, *ends, float(rng.choice([0.25, 0.5, 0.75, 1.0])))
    return values


def rings(rng, height, width):
    values = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 6))):
        centre, radius = (
            (int(rng.integers(width)), int(rng.integers(height))),
            int(rng.integers(1, max(2, min(height, width) // 2))),
        )
        cv2.circle(
            values,
            centre,
            radius,
            float(rng.choice([0.25, 0.5, 0.75, 1.0])),
            thickness=int(rng.choice([-1, 1, 1, 2])),
        )
    return values


def diamonds(rng, height, width):
    values = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 9))):
        y, x = rng.integers(height), rng.integers(width)
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                values[y + dy, x + dx] = rng.choice([0.5, 1.0])
    return values


def checkerboard(rng, height, width):
    y, x = np.indices((height, width))
    cell = int(rng.integers(1, 4))
    return np.maximum(
        ((y // cell + x // cell) % 2) * float(rng.choice([0.3, 1.0])), float(rng.choice([0.0, 0.0, 0.2]))
    )


def plateaus(rng, height, width):
    return np.floor(smooth(rng, height, width) * 6) / 6


def low(rng, height, width):
    return smooth(rng, height, width) * rng.uniform(0.003, 0.2)


def blobs(rng, height, width):
    return normalized(cv2.GaussianBlur(rng.random((height, width)), (0, 0), 1.0 + 2 * rng.random()))


def spiral(rng, height, width):
    y, x = np.indices((height, width))
    y, x = y - height / 2, x - width / 2
    return normalized(np.sin(np.hypot(y, x) * rng.uniform(0.5, 2.5) + np.arctan2(y, x)))


KINDS = (
    smooth,
    rectified,
    noisy,
    few_levels,
    sparse,
    one_pixel,
    constant,
    lines,
    rings,
    diamonds,
    checkerboard,
    plateaus,
    low,
    blobs,
    spiral,
)


def random_boxes(rng, height, width):
    """1 to 3 integer boxes inside the map."""
    boxes = []
    for _ in range(int(rng.integers(1, 4))):
        x, y = np.sort(rng.integers(width, size=2)), np.sort(rng.integers(height, size=2))
        boxes.append([x[0], y[0], x[1], y[1]])
    return np.array(boxes)
