"""Run folders without training: checkpoints of random networks on a few tiny images, as pretrain/train.py
writes them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from automix_transfer.io import save_torch
from automix_transfer.mixing import build_method
from automix_transfer.mixing.average import Averaged
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.rng import reseed_globals
from automix_transfer.training.record.checkpoint import FORMAT, encoder_prefixes, split_state
from automix_transfer.training.settings import Experiment

CLASSES = ("ant", "bee", "cat")
SIDE = 32


def write_images(root: Path, each: int = 6) -> Path:
    """``root/val/CLASS/N.png``: noise around one colour a class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for k in range(each):
                pixels = rng.integers(0, 120, (SIDE, SIDE, 3))
                pixels[..., number] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{k}.png")
    return root


def write_run(
    folder: Path,
    data: Path,
    method: str,
    seed: int = 0,
    epoch: int = 1,
    name: str = "last.pt",
    ema: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Write ``folder/name`` and return its content; the network's weights are those at the start of a run
    with ``seed``. With ``ema`` a moving average lies beside them, for inference."""
    experiment = Experiment(seed=seed, method={"name": method, **options})
    experiment.encoder.name, experiment.data.root = "resnet10_32", str(data)
    experiment.data.image_size, experiment.data.test_crop_ratio = SIDE, 1.0
    info = EncoderInfo("resnet10_32", len(CLASSES), image_size=SIDE, class_names=CLASSES)
    reseed_globals(seed, "initial weights")
    built = build_method(method, info.build(), options, info)
    experiment.method = (
        {"name": method, **asdict(built.options)} if hasattr(built, "options") else {"name": method}
    )
    if epoch > 1:
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.mul_(1 + 0.01 * epoch)
    if ema:
        built = Averaged(built, 0.5)
        with torch.no_grad():
            for parameter in built.average.parameters():
                parameter.mul_(1.5)
    content = {
        "format": FORMAT,
        "encoder": info.to_dict(),
        "encoders": encoder_prefixes(built),
        **split_state(built),
        "config": asdict(experiment),
        "step": 10 * epoch,
        "epoch": epoch,
        "history": [{"epoch": epoch, "top1": 30.0 + epoch}],
    }
    save_torch(folder / name, content)
    return content
