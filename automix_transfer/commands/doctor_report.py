"""What `automix-transfer doctor` finds, by topic."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from automix_transfer.device import accelerator, device_memory, device_name, main_memory
from automix_transfer.io import expand_home
from automix_transfer.training.record.run_folder import git_commit, version

PACKAGES = (
    "torch torchvision timm numpy pillow opencv-python-headless scipy numba fvcore omegaconf safetensors "
    "pycocotools hotcoco tensorboard wandb"
).split()
#: Folders that are looked for below a data root, and the data set that each belongs to.
KNOWN_FOLDERS = {
    "coco": "COCO",
    "VOC2007": "VOC 2007",
    "VOC2012": "VOC 2012",
    "imagenet": "ImageNet",
    "CUB_200_2011": "CUB-200",
    "fgvc-aircraft-2013b": "FGVC-Aircraft",
    "tiny-imagenet-200": "Tiny-ImageNet",
    "cifar-10-batches-py": "CIFAR-10",
    "cifar-100-python": "CIFAR-100",
    "stanford_cars": "Stanford Cars",
    "train_val2018": "iNaturalist 2018",
    "train_val_images": "iNaturalist 2017",
    "trainvalsplit_places205": "Places205",
}


def examine(roots: Sequence[Path] = ()) -> dict[str, Any]:
    """Everything as text by topic; nothing is changed. ``roots``: data folders to look into, besides
    $DETECTRON2_DATASETS and datasets/."""
    source = git_commit()
    changed = ", changed" if source["changed"] else ""
    commit = (
        f"commit {source['commit']}{changed}" if source["commit"] else "installed, not a checkout of ours"
    )
    return {
        "automix_transfer": f"{source['version']} ({commit})",
        "folder": str(Path(__file__).parents[1]),
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: version(name) or "not installed" for name in PACKAGES},
        "detectron2": detectron2(),
        "devices": devices(),
        "cores": f"{os.cpu_count()}; torch uses {torch.get_num_threads()} threads",
        "memory": memory(),
        "data": {str(root): found(root) for root in data_roots(roots)},
        "free disk": {
            str(place): f"{shutil.disk_usage(place).free / 1e9:.1f} GB"
            for place in (Path.cwd(), Path(tempfile.gettempdir()))
        },
    }


def devices() -> list[str]:
    """Accelerators by name and memory; the build of torch where there is none."""
    here, cuda = accelerator(), f"CUDA {torch.version.cuda}"
    if here is None:
        return [f"no GPU (torch is built {'for ' + cuda if torch.version.cuda else 'without CUDA'})"]
    found = []
    for index in range(torch.accelerator.device_count()):
        device = torch.device(here.type, index)
        size, kind = device_memory(device), cuda if here.type == "cuda" else here.type
        found.append(", ".join([device_name(device), *([f"{size / 1e9:.0f} GB"] if size else []), kind]))
    return found


def memory() -> str:
    """Memory of the machine."""
    return "unknown" if (found := main_memory()) is None else f"{found / 1e9:.1f} GB"


def detectron2() -> str:
    """Which Detectron2 is installed, and with what."""
    if importlib.util.find_spec("detectron2") is None:
        return "not installed (automix-transfer install-detectron2)"
    from automix_transfer.detection import compatibility

    build = version("detectron2") or version("pb1-detectron2") or "of unknown version"
    operators = "with" if compatibility.has_extension() else "without"
    return f"{build}, {operators} compiled operators (those of torchvision serve Faster R-CNN)"


def data_roots(roots: Sequence[Path]) -> list[Path]:
    """The folders to look into, each once."""
    usual = [expand_home(os.environ["DETECTRON2_DATASETS"])] if os.environ.get("DETECTRON2_DATASETS") else []
    return list(dict.fromkeys([*roots, *usual, Path("datasets")]))


def found(root: Path) -> list[str]:
    """The data sets below ``root`` by the names of their folders; whether they are sound says
    ``automix-transfer data check``."""
    if not root.is_dir():
        return ["no such folder"]
    here = [name for folder, name in KNOWN_FOLDERS.items() if (root / folder).is_dir() or root.name == folder]
    return here or ["no data set that is known by its folder's name"]


def text(report: dict[str, Any]) -> str:
    """The report as lines for people and for issues."""
    lines: list[tuple[str, Any]] = []
    for topic, value in report.items():
        if isinstance(value, dict):
            prefix = "" if topic == "packages" else f"{topic} in "
            lines += [(f"{prefix}{name}", item) for name, item in value.items()]
        else:
            lines.append((topic, value))
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        f"{name:<{width}}  {', '.join(value) if isinstance(value, list) else value}" for name, value in lines
    )
