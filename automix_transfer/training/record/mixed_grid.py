"""Pictures of mixed samples: image i, image j, the mask, the mixed image, and λ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from automix_transfer.io import atomic_write
from automix_transfer.mixing.base import StepOutput

CELL = 96  # least side of a picture's cells, pixels
LABEL = 16  # height of a row of text, pixels
GAP = 2


@torch.no_grad()
def mixed_grid(
    images: Tensor, output: StepOutput, mean: Sequence[float], std: Sequence[float], count: int = 8
) -> np.ndarray:
    """An (H, W, 3) uint8 picture: columns for the first ``count`` samples, rows x_i, x_j, mask and mixed.

    ``images`` (N, 3, H, W) are the step's inputs, normalised with ``mean`` and ``std``. The mask is white
    where the pixel is of i. Rows that the method does not have are left out.
    """
    count = min(count, len(images))
    # the first of the views, where there are several
    rows = [("image i", _pixels(images[:count, :3], mean, std))]
    if output.permutation is not None:
        partners = output.permutation[:count].to(images.device)
        rows.append(("image j", _pixels(images[partners], mean, std)))
    if output.mask is not None:
        mask = output.mask[:count].detach().float().cpu()
        rows.append(("share of i", mask.expand(-1, 3, -1, -1).clamp(0, 1)))
    if output.mixed is not None:
        name = "mixed" if output.lam is None else f"mixed, lam = {output.lam:.2f}"
        rows.append((name, _pixels(output.mixed[:count], mean, std)))

    scale = max(1, -(-CELL // images.shape[-1]))
    height, width = images.shape[-2] * scale, images.shape[-1] * scale
    canvas = Image.new("RGB", (count * (width + GAP) - GAP, len(rows) * (height + LABEL)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (name, cells) in enumerate(rows):
        top = row * (height + LABEL)
        draw.text((2, top + 2), name, fill="black")
        cells = F.interpolate(cells, size=(height, width), mode="nearest")
        for column, cell in enumerate((cells * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()):
            canvas.paste(Image.fromarray(cell), (column * (width + GAP), top + LABEL))
    return np.asarray(canvas)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 picture, atomically."""
    atomic_write(path, lambda file: Image.fromarray(picture).save(file, format="PNG"))


def _pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images as values in [0, 1], on the CPU."""
    images = images.detach().float().cpu()
    return (images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)).clamp(0, 1)
