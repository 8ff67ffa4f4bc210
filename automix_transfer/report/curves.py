"""The learning curves of all runs as data for the page's own plot, within a budget: a page of thousands of
runs must still open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from markupsafe import Markup

from automix_transfer.report.svg import line_plot
from automix_transfer.runs.folder import RunFolder, is_number, points, read_metrics

#: quantity -> (what it is, in which group it is offered); the order in which they are offered, and dropped
#: from the end
QUANTITIES = {
    "top1": "Validation top-1 (%)",
    "top1_k": "Top-1 of encoder k (%)",
    "top1_q": "Top-1 of encoder q (%)",
    "top5": "Validation top-5 (%)",
    "map": "Validation mAP (%)",
    "val_loss": "Validation loss",
    "loss": "Training loss",
    "mask_std": "Liveliness of masks (spatial std at λ = 0.5)",
    "mask_error": "Masks' mean against λ (mean error)",
    "loss_mce": "Loss, mixed cross-entropy of q",
    "loss_ce": "Loss, cross-entropy of q",
    "loss_gen": "Loss, generation (k)",
    "images_per_s": "Images per second",
    "lr": "Learning rate",
    "total_loss": "Detector: training loss",
    "detector_val_loss": "Detector: validation loss",
    "bbox/AP50": "Detector: AP50 (%)",
    "bbox/AP": "Detector: AP (%)",
    "bbox/AP75": "Detector: AP75 (%)",
}
DETECTORS = ("total_loss", "bbox/AP50", "bbox/AP", "bbox/AP75", "detector_val_loss")
ESSENTIAL = ("top1", "map", "val_loss", "loss", "total_loss", "bbox/AP50")
FEW, MANY = 160, 40  #: points of a curve, and where there are very many runs
BUDGET = 2_500_000  #: characters of all curves
FIRST = 6  #: runs that are chosen when the page opens


@dataclass
class Line:
    """The curves of one run: quantity -> (x, y); x is the epoch, for a detector the iteration."""

    name: str
    method: str
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


def gather_curves(
    runs: Sequence[tuple[str, RunFolder]], detectors: Sequence[tuple[str, Path]], problems: list[str]
) -> list[Line]:
    """Every quantity that a run has logged; runs without any are left out."""
    lines = []
    for name, run in runs:
        method = run.settings.get("method.name", "")
        line = Line(name, method)
        for key in dict.fromkeys(key for row in run.history for key in row if key not in ("epoch", "step")):
            pairs = [(row["epoch"], row[key]) for row in run.history if key in row]
            line.curves[key] = [x for x, _ in pairs], [y for _, y in pairs]
        lines.append(line)
    for name, path in detectors:
        rows = read_metrics(path, problems) if (path / "metrics.json").is_file() else []
        lines.append(
            Line(
                name,
                "",
                {
                    key: found
                    for key in DETECTORS
                    if (found := points(rows, key.removeprefix("detector_")))[0]
                },
            )
        )
    return [line for line in lines if line.curves]


def curve_data(lines: Sequence[Line], problems: list[str], budget: int = BUDGET) -> dict[str, Any]:
    """What page.js draws: quantities, runs, and which of them are chosen at first. Fewer points, quantities
    and runs, in this order, where all would be too much; ``problems`` then has a sentence."""
    plans = [(None, FEW), (None, MANY), (ESSENTIAL, MANY), (ESSENTIAL[:1] + DETECTORS[1:2], 20)]
    packed: list[dict[str, Any]] = []
    for wanted, count in plans:
        packed = [
            {
                "name": line.name,
                "method": line.method,
                "curves": {
                    key: thinned(*xy, count)
                    for key, xy in line.curves.items()
                    if wanted is None or key in wanted
                },
            }
            for line in lines
        ]
        if sum(map(size, packed)) <= budget:
            break
    else:
        kept, total = 0, 0
        while kept < len(packed) and (total := total + size(packed[kept])) <= budget:
            kept += 1
        packed = packed[:kept]
    packed = [run for run in packed if run["curves"]]
    if len(packed) < len(lines):
        problems.append(
            f"curves of {len(lines) - len(packed):,} runs are left out, because the page would grow too large"
        )
    elif packed and wanted is not None:
        problems.append(
            "only the main curves are drawn, because there are many runs; give fewer folders to see all"
        )
    present = dict.fromkeys(key for run in packed for key in run["curves"])
    order = [key for key in (*QUANTITIES, *present) if key in present]
    names = {key: QUANTITIES.get(key, key.replace("_", " ")) for key in dict.fromkeys(order)}
    first = next(iter(names), "")
    having = [k for k, run in enumerate(packed) if first in run["curves"]]
    beside = [
        k for k in having if PurePath(packed[k]["name"]).parent == PurePath(packed[having[0]]["name"]).parent
    ]
    chosen = (beside if len(beside) > 1 else having)[:FIRST]  # runs of one folder are meant to be compared
    return {
        "quantities": [
            {"key": key, "name": name, "x": "iteration" if key in DETECTORS else "epoch"}
            for key, name in names.items()
        ],
        "runs": packed,
        "chosen": chosen,
    }


def first_plot(data: dict[str, Any]) -> Markup | None:
    """The lines that are chosen at first, for a page without JavaScript."""
    if not data["chosen"]:
        return None
    quantity = data["quantities"][0]
    runs = [data["runs"][k] for k in data["chosen"]]
    lines = {run["name"]: run["curves"][quantity["key"]] for run in runs}
    label = f"{quantity['name']} of {', '.join(lines)}"
    return line_plot(lines, label, quantity["x"], quantity["name"])


def thinned(x: Sequence[float], y: Sequence[float], count: int) -> tuple[list[float], list[float]]:
    """At most ``count`` points, evenly spread, the first and the last among them; five digits."""
    kept = range(len(x))
    places = (
        kept if len(x) <= count else sorted({round(k * (len(x) - 1) / (count - 1)) for k in range(count)})
    )
    both = [(short(x[k]), short(y[k])) for k in places if is_number(x[k]) and is_number(y[k])]
    return [a for a, _ in both], [b for _, b in both]


def short(value: float) -> float:
    """Five significant digits; whole numbers stay whole."""
    rounded = float(f"{value:.5g}")
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else rounded


def size(run: dict[str, Any]) -> int:
    """Characters of a run in the page."""
    return len(json.dumps(run, separators=(",", ":")))
