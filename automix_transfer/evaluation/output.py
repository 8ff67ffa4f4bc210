"""What the evaluation's command prints and writes: the figures as a table, and what they were made from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import SEVERITIES
from automix_transfer.evaluation.inputs import Inputs
from automix_transfer.evaluation.suite_options import SuiteOptions
from automix_transfer.io import read_json
from automix_transfer.models.weights_file import sha256_of_weights
from automix_transfer.shown import LONGEST_LABEL, clean
from automix_transfer.training.record.run_folder import git_commit

EVALUATION = "evaluation.json"  #: the output in a run's folder
SHOWN = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "mean_class_top1": "top-1, mean over classes",
    "many_shot_top1": "top-1, classes of over 100 training images",
    "medium_shot_top1": "top-1, classes of 20 to 100 training images",
    "few_shot_top1": "top-1, classes of under 20 training images",
    "ece10": "ECE, 10 bins",
    "ece15": "ECE, 15 bins",
    "adaptive_ece15": "adaptive ECE, 15 bins",
    "corruption_top1_15": "top-1, 15 corruptions",
    "corruption_top1_19": "top-1, 19 corruptions",
    "corruption_relative_error": "mCE to the baseline",
    "brier": "Brier score (0 to 2)",
    "nll": "NLL (nats)",
    "fgsm_error": "FGSM error",
    "pgd_error": "PGD error",
}
NOT_PERCENT = ("brier", "nll")


def read_baseline(path: Path, parts: Sequence[str]) -> dict[str, Any]:
    """The accuracies under corruption of another network's output."""
    content = read_json(path)
    found = content.get("corruption") if isinstance(content, dict) else None
    if not isinstance(found, dict) or "corruption" not in parts:
        raise UserError(
            f"--baseline {path} must be an output of --suite corruption, and this --suite must name it too"
        )
    return found


def is_evaluation(path: Path) -> bool:
    """Whether ``path`` is an output of this command."""
    content = read_json(path)
    source = content.get("about") if isinstance(content, dict) else None
    return isinstance(source, dict) and "suite" in source


def about(
    args: argparse.Namespace, inputs: Inputs, options: SuiteOptions, device: torch.device
) -> dict[str, Any]:
    """What the figures are made from."""
    config = inputs.config
    return {
        "encoder": inputs.info.name,
        "weights": str(inputs.weights),
        "weights_sha256": sha256_of_weights(inputs.weights),
        "run": args.run and str(args.run),
        "which": args.which,
        "loaded": inputs.loaded,
        "data": str(args.data or config.root),
        "dataset": config.dataset,
        "split": config.val_split,
        **({"columns": [config.image_column, config.label_column]} if config.dataset == "hf" else {}),
        "images_sha256": inputs.dataset.listing.digest(),
        "limit": args.limit,
        "image_size": config.test_size or config.image_size,
        "test_crop_ratio": config.test_crop_ratio,
        "interpolation": config.interpolation,
        "mean": list(config.mean),
        "std": list(config.std),
        "suite": list(options.parts),
        "epsilon": options.epsilon,
        "pgd_steps": options.pgd_steps,
        "pgd_step_size": options.pgd_step_size,
        "seed": options.seed,
        "device": str(device),
        "baseline": args.baseline and str(args.baseline),
        "torch": torch.__version__,
        **git_commit(),
    }


def table(result: dict[str, Any]) -> str:
    """The figures, a line each; below them, a line a corruption."""
    source = result["about"]
    head = (
        f"{source['encoder']} on {result['images']:,} images of {source['data']}, {source['image_size']} px"
    )
    rows = [
        (name, f"{result[key]:.4f}" if key in NOT_PERCENT else f"{result[key]:.2f} %")
        for key, name in SHOWN.items()
        if key in result
    ]
    parts = [head, *([source["loaded"]] if source.get("loaded") else [])]
    if rows:
        parts.append(tabulate(rows, (), "simple", colalign=("left", "right"), disable_numparse=True))
    if "class_ap" in result:
        classes = [
            (clean(name, LONGEST_LABEL), "no image shows it" if value is None else f"{value:.2f} %")
            for name, value in result["class_ap"].items()
        ]
        parts += ["average precision, over all ranks:"]
        parts += [tabulate(classes, (), "simple", colalign=("left", "right"), disable_numparse=True)]
    if "corruption" in result:
        severities = [(name, *row, sum(row) / len(row)) for name, row in result["corruption"].items()]
        made, count = result["corruption_made"], result["corruption_images"]
        parts += [
            f"top-1 under corruption ({made}, {count:,} images each) by severity:",
            tabulate(severities, ("", *SEVERITIES, "mean"), "simple", floatfmt=".2f"),
        ]
    return "\n".join(parts)


def confusion_table(content: dict[str, Any], count: int = 5) -> str:
    """The most confused pairs and the weakest classes, a line each."""
    pairs = [
        (clean(p["true"], LONGEST_LABEL), clean(p["predicted"], LONGEST_LABEL), p["count"], p["of"])
        for p in content["pairs"][:count]
    ]
    weakest = sorted((row for row in content["per_class"] if row["n"]), key=lambda row: row["top1"])[:count]
    classes = [(clean(row["name"], LONGEST_LABEL), row["top1"], row["n"]) for row in weakest]
    return "\n\n".join(
        [
            tabulate(pairs, ("most confused", "taken for", "images", "of"), "simple", disable_numparse=[0, 1])
            if pairs
            else "no image was confused",
            tabulate(
                classes,
                ("weakest classes", "top-1 %", "images"),
                "simple",
                floatfmt=".2f",
                disable_numparse=[0],
            ),
        ]
    )
