"""Table 6 as a figure: top-1 under corruption by severity and by kind, and errors under attack, from outputs
of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import NAMES, SEVERITIES
from automix_transfer.evaluation.output import EVALUATION
from automix_transfer.figures.common import Asked, labels_of, read_output
from automix_transfer.figures.sheet import drawn, write_figure
from automix_transfer.figures.style import DPI, colour, draw_lines, marker, subplots
from automix_transfer.runs.folder import finite, is_number
from automix_transfer.shown import clean

KEYS = (
    "images",
    "top1",
    "corruption_images",
    "corruption_top1_15",
    "corruption_top1_19",
    "corruption_relative_error",
    "fgsm_error",
    "pgd_error",
)


def robustness(asked: Asked) -> Path:
    """Write the figure and its numbers.

    Raises:
        UserError: a file that is no output of ``--suite corruption``, or files without a corruption in
            common.
    """
    files = [path / EVALUATION if path.is_dir() else path for path in asked.runs]
    rows = [
        {"label": label, "file": str(file)}
        | read_output(file, figures_of, "accuracies under corruption", "corruption")
        for file, label in zip(files, labels_of(files, asked.labels), strict=True)
    ]
    names = [name for name in rows[0]["corruption"] if all(name in row["corruption"] for row in rows)]
    if not names:
        raise UserError(
            f"{', '.join(map(str, files))} were measured under different corruptions; measure them with one "
            "suite"
        )
    for row in rows:
        row["mean_by_severity"] = np.mean([row["corruption"][name] for name in names], axis=0).tolist()
    made = ", ".join(sorted({row["corruption_made"] for row in rows}))
    caption = (
        f"Top-1 under {len(names)} corruptions: their mean by severity (0: clean images), and each one's "
        f"mean over severities. Corrupted images: {made}."
    )
    parts = [severity_plot(rows, len(names)), corruption_plot(rows, names)]
    return write_figure(asked.output, "robustness", caption, {"numbers": rows, "corruptions": names}, parts)


def figures_of(content: Any) -> dict[str, Any]:
    """Of an output of the evaluation, figures in percent, and top-1 by corruption at severities 1 to 5."""
    values = {key: value for key in KEYS if is_number(value := content.get(key)) and 0 <= value <= 1e9}
    corruption = {name: [finite(v, 0, 100) for v in row] for name, row in content["corruption"].items()}
    if {len(row) for row in corruption.values()} != {len(SEVERITIES)} or not corruption.keys() <= {*NAMES}:
        raise ValueError("other corruptions or severities")
    made = clean(content.get("corruption_made", "?"))
    return {**values, "corruption_made": made, "corruption": corruption}


@drawn
def severity_plot(rows: Sequence[Mapping[str, Any]], corruptions: int) -> Figure:
    """Mean top-1 against severity, and errors under attack where they were measured."""
    attacks = {"fgsm_error": "FGSM", "pgd_error": "PGD"}
    attacks = {key: name for key, name in attacks.items() if any(key in row for row in rows)}
    figure, axes = subplots(1130 / DPI, 3.2, 1 + bool(attacks))
    lines = {}
    for row in rows:
        top1 = [*([row["top1"]] if "top1" in row else []), *row["mean_by_severity"]]
        lines[row["label"]] = range(len(SEVERITIES) + 1)[-len(top1) :], top1
    draw_lines(axes[0], lines)
    title = f"Mean top-1 under {corruptions} corruptions (%)"
    axes[0].set(title=title, xlabel="severity (0: clean)", ylim=(0, 100), xticks=range(6))
    axes[0].legend(fontsize=8, loc="lower left")
    if attacks:
        width = 0.8 / len(rows)
        for position, row in enumerate(rows):
            heights = [row.get(key, np.nan) for key in attacks]
            at = np.arange(len(attacks)) + (position - (len(rows) - 1) / 2) * width
            bars = axes[1].bar(at, heights, width * 0.92, color=colour(row["label"], position))
            axes[1].bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axes[1].set(title="Error under attack (%)", ylim=(0, 112), yticks=range(0, 101, 20))
        axes[1].set_xticks(range(len(attacks)), list(attacks.values()))
        axes[1].grid(axis="x", visible=False)
    return figure


@drawn
def corruption_plot(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Mean over severities of each corruption."""
    figure, (axis,) = subplots(1130 / DPI, 3.3)
    for position, row in enumerate(rows):
        means = [float(np.mean(row["corruption"][name])) for name in names]
        look: dict[str, Any] = {
            "color": colour(row["label"], position),
            "marker": marker(row["label"], position),
        }
        axis.plot(range(len(names)), means, linewidth=0.8, linestyle=":", markersize=6, **look)
    axis.set(title="Top-1 by corruption, mean of five severities (%)", ylim=(0, 100))
    words = [name.replace("_", " ") for name in names]
    axis.set_xticks(range(len(names)), words, fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    axis.margins(x=0.02)
    return figure
