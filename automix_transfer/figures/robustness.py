"""Table 6 as a figure: top-1 under corruption by severity and by kind, and errors under attack, from outputs
of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import SEVERITIES
from automix_transfer.evaluation.output import EVALUATION
from automix_transfer.figures.common import Asked, labels_of
from automix_transfer.figures.sheet import drawn, write_figure
from automix_transfer.figures.style import DPI, colour, draw_lines, marker, subplots
from automix_transfer.io import read_json
from automix_transfer.runs.folder import is_number

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


@dataclass(frozen=True)
class Robustness:
    """One output: top-1 in percent by corruption at severities 1 to 5, how they were made, and its other
    figures."""

    label: str
    file: Path
    corruption: dict[str, list[float]]
    made: str
    values: dict[str, float]


def robustness(asked: Asked) -> Path:
    """Write the figure and its numbers.

    Raises:
        UserError: a file that is no output of ``--suite corruption``, or files without a corruption in
            common.
    """
    files = [path / EVALUATION if path.is_dir() else path for path in asked.runs]
    rows = [_read(file, label) for file, label in zip(files, labels_of(files, asked.labels), strict=True)]
    names = [name for name in rows[0].corruption if all(name in row.corruption for row in rows)]
    if not names:
        raise UserError(
            f"{', '.join(str(row.file) for row in rows)} were measured under different corruptions; "
            "measure them with one suite"
        )
    made = sorted({row.made for row in rows})
    caption = (
        f"Top-1 under {len(names)} corruptions: their mean by severity (0: clean images), and each one's "
        "mean over severities. "
        f"Corrupted images: {', '.join(made)}."
    )
    numbers = [
        {
            "label": row.label,
            "file": str(row.file),
            **row.values,
            "corruption_made": row.made,
            "corruption": row.corruption,
            "mean_by_severity": by_severity(row, names),
        }
        for row in rows
    ]
    parts = [severity_plot(rows, names), corruption_plot(rows, names)]
    content = {"numbers": numbers, "corruptions": names}
    return write_figure(asked.output, "robustness", caption, content, parts)


def by_severity(row: Robustness, names: Sequence[str]) -> list[float]:
    """Mean top-1 over ``names`` at severities 1 to 5."""
    return np.mean([row.corruption[name] for name in names], axis=0).tolist()


def _read(file: Path, label: str) -> Robustness:
    content = read_json(file)
    found = content.get("corruption") if isinstance(content, Mapping) else None
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(
            isinstance(values, list) and len(values) == len(SEVERITIES) and all(map(is_number, values))
            for values in found.values()
        )
    ):
        raise UserError(
            f"{file} holds no accuracies under corruption; write it with automix-transfer evaluate --suite "
            "clean,corruption"
        )
    values = {key: content[key] for key in KEYS if is_number(content.get(key))}
    return Robustness(
        label,
        file,
        {str(name): values for name, values in found.items()},
        str(content.get("corruption_made", "?")),
        values,
    )


@drawn
def severity_plot(rows: Sequence[Robustness], names: Sequence[str]) -> Figure:
    """Mean top-1 against severity, and errors under attack where they were measured."""
    attacks = [
        (key, name)
        for key, name in (("fgsm_error", "FGSM"), ("pgd_error", "PGD"))
        if any(key in row.values for row in rows)
    ]
    figure, axes = subplots(1130 / DPI, 3.2, 1 + bool(attacks))
    lines = {}
    for row in rows:
        clean = [row.values["top1"]] if "top1" in row.values else []
        lines[row.label] = [*range(1 - len(clean), len(SEVERITIES) + 1)], [*clean, *by_severity(row, names)]
    draw_lines(axes[0], lines)
    axes[0].set(
        title=f"Mean top-1 under {len(names)} corruptions (%)", xlabel="severity (0: clean)", ylim=(0, 100)
    )
    axes[0].set_xticks(range(6))
    axes[0].legend(fontsize=8, loc="lower left")
    width = 0.8 / len(rows)
    for position, row in enumerate(rows if attacks else []):
        places = [place for place, (key, _) in enumerate(attacks) if key in row.values]
        at = [place + (position - (len(rows) - 1) / 2) * width for place in places]
        heights = [row.values[attacks[place][0]] for place in places]
        bars = axes[1].bar(at, heights, width * 0.92, color=colour(row.label, position))
        axes[1].bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    if attacks:
        axes[1].set(title="Error under attack (%)", ylim=(0, 112))
        axes[1].set_xticks(range(len(attacks)), [name for _, name in attacks])
        axes[1].set_yticks(range(0, 101, 20))
        axes[1].grid(axis="x", visible=False)
    return figure


@drawn
def corruption_plot(rows: Sequence[Robustness], names: Sequence[str]) -> Figure:
    """Mean over severities of each corruption."""
    figure, (axis,) = subplots(1130 / DPI, 3.3)
    for position, row in enumerate(rows):
        axis.plot(
            range(len(names)),
            [float(np.mean(row.corruption[name])) for name in names],
            color=colour(row.label, position),
            marker=marker(row.label, position),
            linewidth=0.8,
            linestyle=":",
            markersize=6,
        )
    axis.set(title="Top-1 by corruption, mean of five severities (%)", ylim=(0, 100))
    axis.set_xticks(
        range(len(names)),
        [name.replace("_", " ") for name in names],
        fontsize=8,
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    axis.margins(x=0.02)
    return figure
