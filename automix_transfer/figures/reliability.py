"""Fig. 8: reliability diagrams, all runs in one plot and each with its gaps, from outputs of evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from automix_transfer.evaluation.evaluate_run import evaluation_of
from automix_transfer.figures.common import Asked, labels_of, read_output
from automix_transfer.figures.sheet import drawn, write_figure
from automix_transfer.figures.style import DPI, INK, colour, draw_lines, label_title, subplots
from automix_transfer.runs.folder import finite, is_number

FIELDS = ("low", "high", "count", "confidence", "accuracy")
KEYS = ("images", "top1", "ece10", "ece15", "adaptive_ece15", "brier", "nll")
MOST, MOST_BINS = 1e9, 100  #: of any figure; a panel is a few hundred pixels wide
IDEAL = "#111820"  #: the line of a perfectly calibrated network, and the gaps to it


def fig8(asked: Asked) -> Path:
    """Write the figure and its numbers; a run's folder without an evaluation is evaluated first, on its
    validation images.

    Raises:
        UserError: a file that is no output of the evaluation, or without bins.
    """
    files = [evaluation_of(path, asked.data) for path in asked.runs]
    rows = [
        {"label": label, "file": str(file)} | read_output(file, figures_of, "reliability bins", "calibration")
        for file, label in zip(files, labels_of(files, asked.labels), strict=True)
    ]
    caption = (
        "Is a network right as often as it says (Fig. 8)? Accuracy against confidence in 15 bins; below the "
        "dashed line it is overconfident, above it underconfident. ECE: mean distance from the line."
    )
    return write_figure(asked.output, "fig8", caption, {"numbers": rows}, [reliability_plot(rows)])


def figures_of(content: Any) -> dict[str, Any]:
    """Of an output of the evaluation, figures in percent and the bins that hold images."""
    values = {key: value for key in KEYS if is_number(value := content.get(key)) and 0 <= value <= MOST}
    ranges = dict.fromkeys(FIELDS, 1.0) | {"count": MOST}
    rows = [row for row in content["reliability"] if finite(row["count"], 0, MOST) > 0]
    bins = [{key: finite(row[key], 0, most) for key, most in ranges.items()} for row in rows]
    if not 0 < len(bins) <= MOST_BINS:
        raise ValueError("no bins, or too many to be seen")
    return {**values, "bins": bins}


@drawn
def reliability_plot(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """All runs as lines in one plot, then a panel for each with its bars and gaps; three panels a line, four
    in a square."""
    together = len(rows) > 1
    panels = len(rows) + int(together)
    columns = 2 if panels == 4 else min(panels, 3)
    lines = -(-panels // columns)
    width, height = 1130 if columns > 1 else 560, 390 if columns == 3 else 520
    figure, axes = subplots(width / DPI, height * lines / DPI, columns, lines)
    for axis in axes[panels:]:
        axis.axis("off")
    for axis in axes[:panels]:
        axis.plot([0, 100], [0, 100], color=IDEAL, linewidth=1.2, linestyle="--", zorder=3)
        axis.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence (%)", ylabel="accuracy (%)", aspect="equal")
        axis.set_xticks(range(0, 101, 20))
        axis.set_yticks(range(0, 101, 20))
    if together:
        curves = {
            row["label"]: (_percent(row, "confidence").tolist(), _percent(row, "accuracy").tolist())
            for row in rows
        }
        draw_lines(axes[0], curves, markersize=4, linewidth=1.6)
        axes[0].set_title("All together")
        axes[0].legend(fontsize=7.5, loc="upper left")
    for position, (axis, row) in enumerate(zip(axes[int(together) :], rows, strict=False)):
        _bars(axis, row, colour(row["label"], position))
    return figure


def _percent(row: Mapping[str, Any], key: str) -> np.ndarray:
    return 100 * np.array([one[key] for one in row["bins"]])


def _bars(axis: Axes, row: Mapping[str, Any], ink: str) -> None:
    """A run's accuracy by bin, and the gap to its confidence hatched."""
    lows, highs, confidence, accuracy = (
        _percent(row, key) for key in ("low", "high", "confidence", "accuracy")
    )
    axis.bar(
        lows, accuracy, highs - lows, align="edge", color=ink, alpha=0.7, edgecolor="white", linewidth=0.6
    )
    gap: dict[str, Any] = {"facecolor": "none", "edgecolor": IDEAL, "hatch": "////", "linewidth": 0.5}
    axis.bar(lows, confidence - accuracy, highs - lows, bottom=accuracy, align="edge", **gap)
    axis.set_title(label_title(row["label"]))
    words = [f"{word} {row[key]:.2f} %" for key, word in (("ece15", "ECE"), ("top1", "top-1")) if key in row]
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axis.text(4, 95, "\n".join(words), va="top", fontsize=8.5, color=INK, bbox=box)
