"""What lies in a folder of the Hugging Face hub: ``config.json`` and a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.models.hub.transformers_networks import FAMILIES

CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: in the order in which timm takes them
WEIGHTS_NAMES = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")
SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".bin")
MOST_BYTES = 1 << 24  # of `CONFIG`; the names of ImageNet-22k's classes take one and a half million


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder of timm's, or of the networks of transformers that are read here.

    Raises:
        UserError: no such folder, or one of another library.
    """
    config = folder / CONFIG
    if not config.is_file():
        runs = next((name for name in ("last.pt", "best.pt") if (folder / name).is_file()), None)
        remedy = (
            f"give {folder / runs}"
            if runs
            else "give a file, or a folder of timm's from the Hugging Face hub"
        )
        raise UserError(f"{folder} is a folder without {CONFIG}; {remedy}")
    content = read_json(config, MOST_BYTES)
    others = content if isinstance(content, dict) else {}
    if not isinstance(others.get("architecture"), str) and str(others.get("model_type")) not in FAMILIES:
        kind = others.get("architectures") or others.get("model_type") or others.get("_class_name")
        whose = f" and is of another library's network ({str(kind)[:80]})" if kind else ""
        raise UserError(
            f"{config} has no field 'architecture'{whose}; give a folder of timm's, or of transformers' "
            f"{', '.join(FAMILIES)}, or its state dict"
        )
    return others


def weights_in(folder: Path) -> Path:
    """The file of weights in ``folder``."""
    found = (path.name for end in SUFFIXES for path in sorted(folder.glob(f"*{end}")))
    file = next((folder / name for name in (*WEIGHTS_NAMES, *found) if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has no file of weights, e.g. {WEIGHTS}; copy it again whole")
    return file
