from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from automix_transfer.mixing.base import StepOutput
from automix_transfer.training.record.mixed_grid import LABEL, mixed_grid, save_png

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


def constant(values: list[float], size: tuple[int, int] = (10, 14)) -> torch.Tensor:
    """Normalised images of one gray value each."""
    pixels = torch.tensor(values)[:, None, None, None].expand(-1, 3, *size)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_rows_show_what_they_say(tmp_path: Path) -> None:
    images = constant([0.0, 0.5, 1.0])
    output = StepOutput(
        torch.tensor(0.0),
        mixed=constant([0.2, 0.4, 0.6]),
        mask=torch.full((3, 1, 10, 14), 0.3),
        permutation=torch.tensor([2, 0, 1]),
        lam=0.3,
    )
    picture = mixed_grid(images, output, MEAN, STD, count=2)
    scale = -(-96 // 14)
    height, width = 10 * scale, 14 * scale
    assert picture.shape == (4 * (height + LABEL), 2 * width + 2, 3) and picture.dtype == np.uint8
    middles = [
        [
            int(picture[row * (height + LABEL) + LABEL + height // 2, column * (width + 2) + width // 2, 0])
            for column in range(2)
        ]
        for row in range(4)
    ]
    assert middles == [[0, 128], [255, 0], [76, 76], [51, 102]]
    save_png(tmp_path / "new" / "picture.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "picture.png")), picture)


def test_method_without_mixing_shows_its_images() -> None:
    picture = mixed_grid(constant([0.5] * 3), StepOutput(torch.tensor(0.0)), MEAN, STD)
    assert picture.shape[0] == 10 * 7 + LABEL
