"""Run folders as training leaves them, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from automix_transfer import __version__
from automix_transfer.paper.references import SETS, Reference, plain_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """``{"train.epochs": 1}`` -> ``{"train": {"epochs": 1}}``."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        inner = result
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return result


def write_evaluation(run: Path, figures: dict[str, Any], **about: Any) -> Path:
    """``evaluation.json`` of the figures of a run's test set, as the run was validated; ``about`` wins."""
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    images = SETS[{"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[data["dataset"]]].test
    said = {
        "weights": str(run / "last.pt"),
        "which": None,
        "dataset": data["dataset"],
        "split": "test",
        "limit": 0,
        "image_size": data["test_size"] or data["image_size"],
        "epsilon": 8 / 255,
        **{key: data[key] for key in ("test_crop_ratio", "interpolation", "mean", "std")},
    }
    (run / "evaluation.json").write_text(
        json.dumps({"images": images, **figures, "about": {**said, **about}})
    )
    return run / "evaluation.json"


def write_trained(
    folder: Path,
    reference: Reference,
    top1: float,
    seed: int = 0,
    overrides: Sequence[str] = (),
    images: int | None = None,
    version: str = __version__,
    **metrics: Any,
) -> Path:
    """A finished run of ``reference`` with ``overrides`` whose last epochs have ``top1``; ``images`` an
    epoch, by default all."""
    config = plain_config(
        reference.recipe, [*reference.overrides, f"seed={seed}", f"output={folder}", *overrides]
    )
    epochs, batch = int(config["train.epochs"]), int(config["train.batch_size"])
    assert reference.data is not None
    steps = epochs * ((images or reference.data.train) // batch)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(nested(config)))
    content = {
        "top1_median": top1,
        "median_epochs": min(10, max(1, epochs // 2)),
        "epochs": epochs,
        "steps": steps,
        "seconds": 3600.0,
    }
    (folder / "metrics.json").write_text(json.dumps({**content, **metrics}))
    start = {"commit": COMMIT, "changed": False, "packages": {"automix_transfer": version}}
    (folder / "run.json").write_text(
        json.dumps({"seed": seed, "recipe": {"name": reference.recipe.stem}, "starts": [start]})
    )
    rows = "".join(f"{epoch},{epoch * 10},{top1}\n" for epoch in range(max(1, epochs - 14), epochs + 1))
    (folder / "log.csv").write_text(f"epoch,step,top1\n{rows}")
    return folder
