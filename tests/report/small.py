"""A hand-made folder of a demo, tiny: what the report's tests look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUMMARY: dict[str, Any] = {
    "pretrain": {"vanilla": {"top1": 61.25}, "mixup": {"top1": 52.5, "mixed_top1": 70.0, "mixed_top2": 30.0},
                 "cutmix": {"top1": 9.75, "mixed_top2": 34.0},
                 "automix": {"top1": 63.0, "mixed_top1": 79.0, "mixed_top2": 39.5, "top1_q": 64.0}},
    "detection": {"random_init": {"AP": 12.0, "AP50": 30.0, "AP75": None}, "automix": {"AP": 20.5, "AP50": 43.0, "AP75": 15.0}},
    "wsol": {"center_box": {"MaxBoxAcc": 44.0, "MaxBoxAccV2": 46.0}, "automix": {"MaxBoxAcc": 61.0, "MaxBoxAccV2": 58.0}},
    "finegrained": {"cub": {"scratch": {"top1": 30.0}, "automix": {"top1": 61.5}},
                    "aircraft": {"scratch": {"top1": 22.5}, "automix": {"top1": 21.0}}},
    "settings": {"smoke": False, "commands": {"data": "python -m automix_transfer.data.synthetic"}},
    "seconds": {"data": 3.5, "total": 655.0},
    "versions": {"torch": "2.15.0"}, "notes": ["The moving average lags <b>behind</b> & says so."],
}


def write_run(folder: Path, top1: float) -> None:
    folder.mkdir(parents=True)
    metrics = {"top1_median": top1, "top1_last": top1, "top1_best": top1 + 1, "epochs": 2, "steps": 20, "seconds": 61.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "log.csv").write_text("epoch,step,loss,top1,val_loss,mask_std\n1,10,2.5,20.0,2.0,\n2,20,1.5,40.0,1.5,0.12\n")
    (folder / "config.yaml").write_text("method:\n  name: vanilla  # <as run>\n")
    start = {"commit": COMMIT, "changed": True, "command": f"python pretrain/train.py output={folder.name}", "device": "cpu: test",
             "threads": 1, "processes": 1, "from_step": 0, "time": "2026-01-01T00:00:00", "packages": {"torch": "2.15.0"}}
    (folder / "run.json").write_text(json.dumps({"seed": 0, "starts": [start]}))


def picture(path: Path, width: int = 60, height: int = 40, seed: int = 0, smooth: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (1, 1, 3) if smooth else (height, width, 3), dtype=np.uint8)
    Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).copy()).save(path)


def write_demo(root: Path) -> Path:
    """A demo's folder with runs, three frames of the slider, a few figures, a damaged one, and things that are missing."""
    root.mkdir(parents=True)
    (root / "summary.json").write_text(json.dumps(SUMMARY))
    for name, values in SUMMARY["pretrain"].items():
        write_run(root / "pretrain" / name, values["top1"])
    write_run(root / "finegrained" / "cub_automix", 61.5)
    (root / "finegrained" / "cub_automix" / "metrics.json").unlink()
    picture(root / "pretrain" / "automix" / "pictures" / "epoch_0001.png")
    for run in ("random_init", "automix"):
        (root / "detection" / run).mkdir(parents=True)
        results = {**SUMMARY["detection"][run], "detector": "Faster R-CNN", "weights": ""}
        (root / "detection" / run / "results.json").write_text(json.dumps(results))
    (root / "wsol").mkdir()
    (root / "wsol" / "automix.json").write_text(json.dumps({"MaxBoxAcc": 61.0}))
    (root / "export").mkdir()
    (root / "export" / "backbone.proof.json").write_text(json.dumps(
        {"kind": "detectron2", "file": "backbone.pkl", "encoder": {"name": "resnet10_32"}, "which": "k", "matched": 60, "total": 60,
         "largest_difference": 0.0, "source": "last.pt", "step": 800}))
    figures = root / "figures"
    for k, percent in enumerate((0, 50, 100)):
        picture(figures / f"by_lambda_{percent:03d}.png", seed=k)
    for name in ("methods", "curves", "extra_one"):
        picture(figures / f"{name}.png")
    (figures / "mixed_accuracy.png").write_bytes(b"\x89PNG\r\n\x1a\n but not really")
    (figures / "captions.json").write_text(json.dumps({"methods": "The same <pairs>."}))
    return root
