"""What a report of a problem needs: versions, devices, Detectron2's build, data folders and free disk."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from automix_transfer import __version__
from automix_transfer.errors import run_script
from automix_transfer.io import expand_home, write_json
from automix_transfer.training.record.run_folder import git_commit, version

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "scipy",
    "numba",
    "fvcore",
    "omegaconf",
    "safetensors",
    "pycocotools",
    "hotcoco",
    "tensorboard",
)
#: folders that are looked for below a data root, and the data set that each belongs to
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
    """Everything as plain values; nothing is changed. ``roots``: data folders to look into, besides
    $DETECTRON2_DATASETS and datasets/."""
    commit = git_commit()
    return {
        "automix_transfer": __version__,
        "commit": commit["commit"],
        "changed": commit["changed"],
        "folder": str(Path(__file__).parent),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "devices": devices(),
        "cores": os.cpu_count(),
        "memory_gb": memory_gb(),
        "torch_threads": torch.get_num_threads(),
        "detectron2": detectron2(),
        "data": {str(root): found(root) for root in data_roots(roots)},
        "free_disk_gb": {
            str(place): round(shutil.disk_usage(place).free / 1e9, 1)
            for place in (Path.cwd(), Path(tempfile.gettempdir()))
        },
    }


def devices() -> list[str]:
    """GPUs by name and memory; the build of torch where there is none."""
    if not torch.cuda.is_available():
        return [
            "no GPU (torch is built "
            f"{'for CUDA ' + torch.version.cuda if torch.version.cuda else 'without CUDA'})"
        ]
    found = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}" for gpu in found]


def memory_gb() -> float | None:
    """Memory of the machine; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def detectron2() -> str:
    """Which Detectron2 is installed, and with what."""
    if importlib.util.find_spec("detectron2") is None:
        return "not installed (python detection/install_detectron2.py)"
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
    automix_transfer.data.check."""
    if not root.is_dir():
        return ["no such folder"]
    here = [name for folder, name in KNOWN_FOLDERS.items() if (root / folder).is_dir() or root.name == folder]
    return here or ["no data set that is known by its folder's name"]


def text(report: dict[str, Any]) -> str:
    """The report as lines for people and for issues."""
    changed = ", changed" if report["changed"] else ""
    lines = [
        (
            "automix_transfer",
            f"{report['automix_transfer']} (commit {report['commit'] or 'unknown'}{changed})",
        ),
        ("folder", report["folder"]),
        ("python", f"{report['python']} on {report['system']}"),
        *((name, found or "not installed") for name, found in report["packages"].items()),
        ("detectron2", report["detectron2"]),
        *(("device", name) for name in report["devices"]),
        (
            "cores, memory",
            f"{report['cores']}, {report['memory_gb']} GB; torch uses {report['torch_threads']} threads",
        ),
        *((f"data in {root}", ", ".join(names)) for root, names in report["data"].items()),
        *((f"free in {place}", f"{free} GB") for place, free in report["free_disk_gb"].items()),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m automix_transfer.doctor", description=__doc__)
    parser.add_argument(
        "--data-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of data sets, may be repeated",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the report as JSON, too")
    options = parser.parse_args(arguments)
    report = examine(options.data_root)
    print(text(report))
    if options.output is not None:
        write_json(options.output, report)
        print(f"written: {options.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_script(main)
