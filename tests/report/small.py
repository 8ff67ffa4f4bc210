"""A hand-made folder of a demo, tiny: what the report's tests look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUMMARY: dict[str, Any] = {
    "pretrain": {
        "vanilla": {"top1": 61.25},
        "mixup": {"top1": 52.5, "mixed_top1": 70.0, "mixed_top2": 30.0},
        "cutmix": {"top1": 9.75, "mixed_top1": None, "mixed_top2": 34.0},
        "automix": {"top1": 63.0, "mixed_top1": 79.0, "mixed_top2": 39.5, "top1_q": 64.0},
    },
    "settings": {"smoke": False, "commands": {"data": "python -m automix_transfer.synthetic.write"}},
    "seconds": {"data": 3.5, "total": 655.0},
    "versions": {"torch": "2.15.0"},
    "notes": ["The moving average lags <b>behind</b> & says so."],
}
DETECTORS = {"random": (12.0, 30.0), "automix": (20.5, 43.0)}


def answer() -> dict[str, Any]:
    """Of two backbones, one of which has no figure of fine-tuning."""

    def score(name: str, mean: float | None, base: float | None, missing: str = "") -> dict[str, Any]:
        difference = None if mean is None or base is None else mean - base
        word = "reference" if base is None else "one pair" if mean is not None else ""
        return {
            "backbone": name,
            "values": {} if mean is None else {"1": mean},
            "mean": mean,
            "std": None,
            "difference": difference,
            "interval": None,
            "word": word,
            "missing": missing,
        }

    def row(task: str, data: str, figure: str, *scores: dict[str, Any]) -> dict[str, Any]:
        return {"task": task, "data": data, "figure": figure, "better": "more", "scores": scores}

    return {
        "about": {"backbones": ["random", "automix"], "seeds": [1], "failures": {}},
        "rows": [
            row("detection", "voc", "AP", score("random", 12.0, None), score("automix", 20.5, 12.0)),
            row("detection", "voc", "AP50", score("random", 30.0, None), score("automix", 43.0, 30.0)),
            row(
                "finetune",
                "cub",
                "top-1",
                score("random", 22.5, None),
                score("automix", None, 22.5, "<lost>"),
            ),
        ],
    }


def write_run(folder: Path, top1: float) -> None:
    folder.mkdir(parents=True)
    metrics = {
        "top1_median": top1,
        "top1_last": top1,
        "top1_best": top1 + 1,
        "epochs": 2,
        "steps": 20,
        "seconds": 61.0,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "log.csv").write_text(
        "epoch,step,loss,top1,val_loss,mask_std\n1,10,2.5,20.0,2.0,\n2,20,1.5,40.0,1.5,0.12\n"
    )
    (folder / "config.yaml").write_text("method:\n  name: vanilla  # <as run>\n")
    start = {
        "commit": COMMIT,
        "changed": True,
        "command": f"python pretrain/train.py output={folder.name}",
        "device": "cpu: test",
        "threads": 1,
        "processes": 1,
        "from_step": 0,
        "time": "2026-01-01T00:00:00",
        "packages": {"torch": "2.15.0"},
    }
    (folder / "run.json").write_text(json.dumps({"seed": 0, "starts": [start]}))


def picture(path: Path, width: int = 60, height: int = 40, seed: int = 0, smooth: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(
        0, 256, (1, 1, 3) if smooth else (height, width, 3), dtype=np.uint8
    )
    Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).copy()).save(path)


def write_demo(root: Path) -> Path:
    """A demo's folder with runs, three frames of the slider, a few figures, a damaged one, and things that
    are missing."""
    root.mkdir(parents=True)
    (root / "summary.json").write_text(json.dumps(SUMMARY))
    for name, values in SUMMARY["pretrain"].items():
        write_run(root / "pretrain" / name, values["top1"])
    write_run(root / "finegrained" / "cub_automix", 61.5)
    (root / "finegrained" / "cub_automix" / "metrics.json").unlink()
    picture(root / "pretrain" / "automix" / "pictures" / "epoch_0001.png")
    (root / "downstream").mkdir()
    (root / "downstream" / "answer.json").write_text(json.dumps(answer()))
    for run, (ap, ap50) in DETECTORS.items():
        (root / "detection" / run).mkdir(parents=True)
        results = {"AP": ap, "AP50": ap50, "AP75": None, "detector": "Faster R-CNN", "weights": ""}
        (root / "detection" / run / "results.json").write_text(json.dumps(results))
    (root / "wsol").mkdir()
    (root / "wsol" / "automix.json").write_text(json.dumps({"MaxBoxAcc": 61.0}))
    (root / "export").mkdir()
    (root / "export" / "backbone.proof.json").write_text(
        json.dumps(
            {
                "kind": "detectron2",
                "file": "backbone.pkl",
                "encoder": {"name": "resnet10_32"},
                "which": "k",
                "matched": 60,
                "total": 60,
                "largest_difference": 0.0,
                "source": "last.pt",
                "step": 800,
            }
        )
    )
    figures = root / "figures"
    write_slider(figures / "slider")
    for name in ("methods", "curves", "extra_one"):
        picture(figures / f"{name}.png")
    (figures / "mixed_accuracy.png").write_bytes(b"\x89PNG\r\n\x1a\n but not really")
    (figures / "captions.json").write_text(json.dumps({"methods": "The same <pairs>."}))
    write_evaluations(root)
    (root / "steps.json").write_text(
        json.dumps(
            {
                "setting": {"encoder": "resnet18", "size": "32", "batch": "100"},
                "hardware": "CPU",
                "steps": {
                    "mixup": {"seconds": 0.1, "ratio": 1.0, "passes": 2.7, "floor": 3.0},
                    "automix": {"seconds": 0.3, "ratio": 3.0, "passes": 8.8, "floor": 8.8},
                },
            }
        )
    )
    return root


def write_slider(folder: Path, lams: tuple[float, ...] = (0.0, 0.5, 1.0)) -> None:
    """Two pairs, two rows; frames of 8 pixels with a border of 2."""
    colours = np.linspace(0, 255, len(lams)).astype(np.uint8)
    rows = {}
    for name in ("mixup", "automix"):
        rows[name] = [f"{name}_{k}.png" for k in range(2)]
        for file in rows[name]:
            strip = np.repeat(colours, 12)[:, None, None] * np.ones((1, 8, 3), np.uint8)
            picture(folder / file)
            Image.fromarray(strip.astype(np.uint8)).save(folder / file)
    images = {side: [f"{side}_{k}.png" for k in range(2)] for side in "ij"}
    for file in (*images["i"], *images["j"]):
        picture(folder / file, 8, 12)
    seen = {"automix": [[[round(1 - lam, 2), lam] for lam in lams]] * 2}
    (folder / "slider.json").write_text(
        json.dumps(
            {
                "lams": list(lams),
                "height": 8,
                "width": 8,
                "pad": 2,
                "rows": rows,
                "images": images,
                "classes": [["disc", "star"], ["star", "kite"]],
                "seen": seen,
                "source": "pretrain/automix",
            }
        )
    )


def write_evaluations(root: Path) -> None:
    """Outputs of the evaluation in two run folders, and the confused pairs of one."""
    for shift, name in enumerate(("vanilla", "automix")):
        bins = [
            {
                "low": k / 3,
                "high": (k + 1) / 3,
                "count": k,
                "confidence": (k + 0.5) / 3,
                "accuracy": (k + shift / 2) / 3,
            }
            for k in range(3)
        ]
        content = {
            "images": 480,
            "top1": 61.25 + shift,
            "ece15": 7.5,
            "fgsm_error": 88.0,
            "nll": 1.25,
            "reliability": bins,
            "corruption": {"fog": [50.0, 40.0, 30.0], "contrast": [45.0, 35.0 + shift, 25.0]},
            "corruption_made": "generated",
            "about": {
                "weights": f"runs/x/pretrain/{name}/last.pt",
                "data": "datasets/imagenet",
                "commit": COMMIT,
                "changed": False,
            },
        }
        (root / "pretrain" / name / "evaluation.json").write_text(json.dumps(content))
    folder = root / "finegrained" / "cub_automix"
    picture(folder / "confusion" / "1.png")
    (folder / "confusion.json").write_text(
        json.dumps(
            {
                "images": 240,
                "top1": 61.5,
                "mean_class_top1": 60.0,
                "pairs": [
                    {
                        "true": "Wren <small>",
                        "predicted": "Finch",
                        "count": 7,
                        "of": 20,
                        "share": 0.35,
                        "examples": ["confusion/1.png"],
                        "predicted_examples": ["confusion/gone.png"],
                    }
                ],
                "per_class": [
                    {"name": "Finch", "n": 20, "top1": 70.0},
                    {"name": "Kiwi", "n": 0, "top1": None},
                ],
            }
        )
    )
