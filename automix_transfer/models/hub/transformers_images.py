"""How transformers feeds images to a network, by the ``preprocessor_config.json`` of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.models.hub.timm_config import MOST_PIXELS, MOST_VALUE

PREPROCESSOR = "preprocessor_config.json"
MOST_BYTES = 1 << 20
SQUASHED = 384  #: pixels from which ConvNeXt's images are resized to a square, and not cut


def fed(folder: Path, image_size: Any) -> dict[str, Any]:
    """The fields of an `EncoderInfo` on images.

    Args:
        image_size: of ``config.json``; None where it has none.

    Raises:
        UserError: the file is not there, or a field makes no sense.
    """
    file = folder / PREPROCESSOR
    if not file.is_file():
        raise UserError(
            f"{folder} has no {PREPROCESSOR}, which says how images are normalised; copy it into the folder"
        )
    content = read_json(file, MOST_BYTES)
    if not isinstance(content, dict):
        raise UserError(f"{file} is no object of fields; copy it again from its source")
    scale = content.get("rescale_factor", 1 / 255)
    if not isinstance(scale, int | float) or abs(scale * 255 - 1) > 1e-3:
        raise _odd(file, "rescale_factor", scale)
    plain = content.get("do_normalize") is False
    cut = _side(content.get("crop_size")) if content.get("do_center_crop") else 0
    resized = _side(content.get("size"))
    size = image_size if image_size is not None else cut or resized
    if type(size) is not int or not 0 < size <= MOST_PIXELS:
        raise _odd(file, "size", content.get("size"))
    resample = content.get("resample")  # PIL's number
    return {
        "image_size": size,
        "mean": (0.0, 0.0, 0.0) if plain else _channels(file, content, "image_mean", -MOST_VALUE),
        "std": (1.0, 1.0, 1.0) if plain else _channels(file, content, "image_std", 0),
        "interpolation": "bilinear" if resample == 2 else "bicubic" if resample == 3 else None,
        **_crop(content.get("crop_pct"), cut, resized),
    }


def _crop(share: Any, cut: int, resized: int) -> dict[str, Any]:
    """Which part of an image is tested: of its resized shorter side the ``share``, or ``cut`` pixels; else
    all of it, as a square."""
    if isinstance(share, int | float) and 0.1 <= share <= 1 and resized < SQUASHED:
        return {"test_crop_ratio": float(share), "test_crop": "center"}
    if share is None and cut and cut <= resized:
        return {"test_crop_ratio": max(cut / resized, 0.1), "test_crop": "center"}
    return {"test_crop_ratio": 1.0, "test_crop": "squash"}


def _channels(file: Path, content: Mapping[str, Any], name: str, least: float) -> tuple[float, ...]:
    value = content.get(name)
    good = isinstance(value, list) and len(value) == 3
    if not good or not all(isinstance(x, int | float) and least < x < MOST_VALUE for x in value or ()):
        raise _odd(file, name, value)
    return tuple(map(float, value or ()))


def _side(size: Any) -> int:
    """A side in pixels: a number, or a mapping of the shorter side, or of both; 0 where it is unknown."""
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if type(size) is int and size > 0 else 0


def _odd(file: Path, name: str, value: Any) -> UserError:
    return UserError(f"{file}: field '{name}' is {str(value)[:80]}, which is not read here; correct it")
