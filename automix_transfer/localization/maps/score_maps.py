"""From a raw activation map to a score map in [0, 1] at evaluation size, and score maps as files.

The reference's steps: float64, bicubic resizing by OpenCV, minus the minimum, divided by the maximum; NaN and
constant maps become zero. A folder of maps is ``<root>/<image id>.npy``, as the reference writes and reads
it.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from automix_transfer.errors import UserError
from automix_transfer.io import atomic_write, load_npy

MAP_SIZE, MOST_BYTES = 224, 1 << 28
# np.load parses its header with ast, which is not safe in several threads on Python 3.11
_ONE_AT_A_TIME = threading.Lock()


def score_map(raw: ArrayLike, size: int = MAP_SIZE) -> NDArray[np.float64]:
    """(size, size) float64 in [0, 1] from a raw map (h, w) of any range."""
    values = np.asarray(raw, dtype=np.float64)
    resized: NDArray[Any] = np.asarray(cv2.resize(values, (size, size), interpolation=cv2.INTER_CUBIC))
    if not np.isfinite(resized).all() or resized.min() == resized.max():
        return np.zeros_like(resized)
    resized -= resized.min()
    resized /= resized.max()
    return resized


def gaussian_map(size: int = MAP_SIZE) -> NDArray[np.float64]:
    """The centre-box baseline: a centred isotropic Gaussian, sigma a quarter of the side, scaled to [0, 1].

    Thresholds sweep its level sets from the centre to the whole image, so its size is chosen as every
    method's is. Sigma only decides which threshold belongs to which size. Up to a side of 2 all pixels are
    equally far from the centre, and the map is zero, as `score_map` has constant ones.
    """
    offset = (np.arange(size) - (size - 1) / 2) / (size / 4)
    values = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None] ** 2))
    values -= values.min()
    return values if size <= 2 else values / values.max()


def map_path(root: Path, image_id: str) -> Path:
    """``<root>/<image id>.npy``."""
    return root / f"{image_id}.npy"


def write_map(root: Path, image_id: str, values: NDArray[np.float64]) -> None:
    """Save one score map, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    atomic_write(map_path(root, image_id), lambda file: file.write(buffer.getbuffer()))


def check_header(root: Path, image_id: str, size: int = MAP_SIZE, raw: bool = False) -> None:
    """Shape and type of a map, from the first bytes of its file; raises as `read_map` does."""
    _check(_load(map_path(root, image_id), True, raw), map_path(root, image_id), size, raw)


def read_map(root: Path, image_id: str, size: int = MAP_SIZE, raw: bool = False) -> NDArray:
    """One score map (size, size) as it lies in the file, or, with ``raw``, any map of
    numbers (h, w), (1, h, w) or (h, w, 1), made one by `score_map`.

    Raises:
        UserError: missing, a pickle, damaged, or of another shape, type or range.
    """
    path = map_path(root, image_id)
    values = _load(path, False, raw)
    _check(values, path, size, raw)
    if raw:
        return score_map(values, size)
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
        raise UserError(
            f"{path} has values that are NaN or outside [0, 1]; normalise it, or set --raw-maps to have that "
            "done"
        )
    return values


def _load(path: Path, lazy: bool, raw: bool) -> NDArray:
    if not path.exists():
        raise UserError(f"{path} does not exist; every image of the metadata needs its score map there")
    with _ONE_AT_A_TIME:
        source = "save the map again with np.save as one float array (H, W)"
        values = load_npy(path, source, lazy, MOST_BYTES)
    while raw and values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    return values


def _check(values: NDArray, path: Path, size: int, raw: bool) -> None:
    if values.dtype.kind not in ("biuf" if raw else "f") or values.ndim != 2 or not values.size:
        raise UserError(
            f"{path} holds an array of shape {values.shape} and type {values.dtype}; a score map is a float "
            "array (H, W)"
        )
    if not raw and values.shape != (size, size):
        raise UserError(
            f"{path} is a map of {values.shape[0]}x{values.shape[1]}, expected {size}x{size}; set "
            "--map-size, or --raw-maps to have maps resized and normalised as the reference does"
        )
