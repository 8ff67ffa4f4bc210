"""Fig. 8: reliability diagrams, all runs in one plot and each with its gaps, from outputs of evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from automix_transfer.errors import UserError
from automix_transfer.evaluation.evaluate_run import evaluation_of
from automix_transfer.figures.common import Asked, labels_of
from automix_transfer.figures.sheet import drawn, write_figure
from automix_transfer.figures.style import DPI, INK, colour, draw_lines, label_title
from automix_transfer.io import read_json
from automix_transfer.runs.folder import is_number

FIELDS = ("low", "high", "count", "confidence", "accuracy")
KEYS = ("images", "top1", "ece10", "ece15", "adaptive_ece15", "brier", "nll")
IDEAL = "#111820"  #: the line of a perfectly calibrated network, and the gaps to it


@dataclass(frozen=True)
class Reliability:
    """One output: its bins that hold images, and its figures in percent."""

    label: str
    file: Path
    bins: list[dict[str, float]]
    values: dict[str, float]


def fig8(asked: Asked) -> Path:
    """Write the figure and its numbers; a run's folder without an evaluation is evaluated first, on its
    validation images.

    Raises:
        UserError: a file that is no output of the evaluation, or without bins.
    """
    files = [evaluation_of(path, asked.data) for path in asked.runs]
    rows = read_reliability(files, asked.labels)
    caption = (
        "Is a network right as often as it says (Fig. 8)? Accuracy against confidence in 15 bins; below the "
        "dashed line it is "
        "overconfident, above it underconfident. ECE: mean distance from the line."
    )
    numbers = [{"label": row.label, "file": str(row.file), **row.values, "bins": row.bins} for row in rows]
    return write_figure(asked.output, "fig8", caption, {"numbers": numbers}, [reliability_plot(rows)])


def read_reliability(files: Sequence[Path], labels: Sequence[str] = ()) -> list[Reliability]:
    """The outputs, with labels that tell them apart."""
    return [_read(file, name) for file, name in zip(files, labels_of(files, labels), strict=True)]


def _read(file: Path, label: str) -> Reliability:
    content = read_json(file)
    bins = content.get("reliability") if isinstance(content, Mapping) else None
    if (
        not isinstance(bins, list)
        or not bins
        or not all(
            isinstance(row, Mapping) and all(is_number(row.get(key)) for key in FIELDS) for row in bins
        )
    ):
        raise UserError(
            f"{file} holds no reliability bins; write it with automix-transfer evaluate --suite "
            "clean,calibration"
        )
    values = {key: content[key] for key in KEYS if is_number(content.get(key))}
    return Reliability(
        label, file, [{key: float(row[key]) for key in FIELDS} for row in bins if row["count"] > 0], values
    )


@drawn
def reliability_plot(rows: Sequence[Reliability]) -> Figure:
    """All runs as lines in one plot, then a panel for each with its bars and gaps; three panels a line, four
    in a square."""
    together = len(rows) > 1
    panels = len(rows) + int(together)
    columns = 2 if panels == 4 else min(panels, 3)
    lines = -(-panels // columns)
    figure = Figure(
        figsize=(1130 / DPI if columns > 1 else 560 / DPI, (390 if columns == 3 else 520) * lines / DPI),
        dpi=DPI,
        layout="constrained",
        facecolor="white",
    )
    axes: list[Axes] = list(np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).flat)
    for axis in axes[panels:]:
        axis.axis("off")
    for axis in axes[:panels]:
        axis.plot([0, 100], [0, 100], color=IDEAL, linewidth=1.2, linestyle="--", zorder=3)
        axis.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence (%)", ylabel="accuracy (%)", aspect="equal")
        axis.set_xticks(range(0, 101, 20))
        axis.set_yticks(range(0, 101, 20))
    if together:
        curves = {
            row.label: ([100 * b["confidence"] for b in row.bins], [100 * b["accuracy"] for b in row.bins])
            for row in rows
        }
        draw_lines(axes[0], curves, markersize=4, linewidth=1.6)
        axes[0].set_title("All together")
        axes[0].legend(fontsize=7.5, loc="upper left")
    for position, (axis, row) in enumerate(zip(axes[int(together) :], rows, strict=False)):
        _bars(axis, row, colour(row.label, position))
    return figure


def _bars(axis: Axes, row: Reliability, ink: str) -> None:
    """A run's accuracy by bin, and the gap to its confidence hatched."""
    lefts, widths = [100 * b["low"] for b in row.bins], [100 * (b["high"] - b["low"]) for b in row.bins]
    accuracy, confidence = (np.array([100 * b[key] for b in row.bins]) for key in ("accuracy", "confidence"))
    axis.bar(lefts, accuracy, widths, align="edge", color=ink, alpha=0.7, edgecolor="white", linewidth=0.6)
    axis.bar(
        lefts,
        confidence - accuracy,
        widths,
        bottom=accuracy,
        align="edge",
        facecolor="none",
        edgecolor=IDEAL,
        hatch="////",
        linewidth=0.5,
    )
    ece = f"ECE {row.values['ece15']:.2f} %" if "ece15" in row.values else ""
    top = f"top-1 {row.values['top1']:.2f} %" if "top1" in row.values else ""
    axis.set_title(label_title(row.label))
    axis.text(
        4,
        95,
        "\n".join(filter(None, (ece, top))),
        va="top",
        fontsize=8.5,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
