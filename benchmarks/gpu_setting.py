"""How large the parts of benchmarks/gpu.py are: on a GPU, and in the reduced form that a CPU does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setting:
    """Networks, sizes and rounds.

    Attributes:
        encoder, stem, size, batch: of the timed steps and of the loader's loop; the batch is halved until the
            GPU's memory holds it.
        methods, compiled: those whose steps are timed, and those that are compiled too.
        compared: encoder of the comparison of precisions, at 32 px with the CIFAR stem.
        checkpointed: encoder of the steps with gradient checkpointing.
        small: overrides of the runs that look for waits and overflows, on embedded images of 64 px.
        photos: JPEG files of ``photo_size`` (width, height) that the loaders read.
        scale: of the embedded data sets.
        detector, detector_options: recipe, and pairs over it.
        wsol_size: side of the localized images in pixels.
    """

    encoder: str
    stem: str
    size: int
    batch: int
    rounds: int
    methods: tuple[str, ...]
    compiled: tuple[str, ...]
    compared: str
    checkpointed: str
    small: tuple[str, ...]
    photos: int
    photo_size: tuple[int, int]
    workers: int
    scale: float
    detector: str
    detector_options: tuple[str, ...]
    detector_rounds: int
    wsol_size: int
    device: str = "auto"
    folder: str = ""

    def on(self, device: str, folder: str) -> Setting:
        """The same on ``device``, with its data in ``folder``."""
        return replace(self, device=device, folder=folder)

    @property
    def data(self) -> Path:
        """The embedded data sets and the photos."""
        return Path(self.folder) / "datasets"

    def step(self, **changes: Any) -> argparse.Namespace:
        """Options of `step_time.make_step`."""
        own = {name: getattr(self, name) for name in ("encoder", "stem", "size", "batch")}
        return argparse.Namespace(**{**own, "teacher": "resnet18", **changes})


@dataclass(frozen=True)
class Found:
    """What a part found: lines of Markdown, and a sentence if it is not as it must be.

    ``device`` and ``name`` are said by the part `machine` only.
    """

    lines: list[str]
    problem: str = ""
    device: str = ""
    name: str = ""


METHODS = ("vanilla", "mixup", "cutmix", "puzzlemix", "automix")
GPU = Setting(
    encoder="resnet50",
    stem="imagenet",
    size=224,
    batch=128,
    rounds=9,
    methods=METHODS,
    compiled=METHODS,
    compared="resnet18",
    checkpointed="resnet50",
    small=("encoder.name=resnet18", "train.batch_size=64", "data.workers=4"),
    photos=4096,
    photo_size=(400, 300),
    workers=0,  # those of the machine
    scale=0.5,
    detector="voc_R50_FPN_24k",
    detector_options=(
        *("MODEL.ROI_HEADS.NUM_CLASSES", "6", "INPUT.MIN_SIZE_TRAIN", "(800,)"),
        *("INPUT.MIN_SIZE_TEST", "800", "DATALOADER.NUM_WORKERS", "4"),
    ),
    detector_rounds=30,
    wsol_size=224,
)
REDUCED = Setting(
    encoder="cifar_resnet8",
    stem="cifar",
    size=32,
    batch=8,
    rounds=1,
    methods=METHODS,
    compiled=("vanilla",),
    compared="cifar_resnet8",
    checkpointed="resnet10_32",
    small=("encoder.name=cifar_resnet8", "encoder.stem=cifar", "train.batch_size=8", "data.image_size=32"),
    photos=64,
    photo_size=(80, 60),
    workers=1,
    scale=0.02,
    detector="embedded_R10_FPN",
    detector_options=("INPUT.MIN_SIZE_TRAIN", "(64,)", "SOLVER.IMS_PER_BATCH", "2"),
    detector_rounds=2,
    wsol_size=64,
)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A table's lines, an empty one before them."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["", *(f"| {' | '.join(map(str, cells))} |" for cells in lines)]


def over(until: float) -> bool:
    """Whether a part's time for measuring is over."""
    return time.monotonic() > until
