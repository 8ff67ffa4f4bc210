"""Figures of numbers: learning curves, accuracy on mixed samples, the health of masks, and what a backbone is
worth downstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from automix_transfer.figures.style import FAINT, INK, colour, marker, save, shown, styled, subplots

Rows = Sequence[Mapping[str, Any]]


@styled
def curves_figure(path: Path, histories: Mapping[str, Rows]) -> Path:
    """Learning curves of several runs: top-1 and loss on the validation split by epoch, and the masks'
    spatial deviation where logged.

    ``histories``: run -> its rows by epoch, as in ``log.csv``; dotted: encoder q, where k is the one for
    inference.
    """
    panels = [("top1", "Validation top-1 (%)"), ("val_loss", "Validation loss")]
    if any("mask_std" in row for rows in histories.values() for row in rows):
        panels.append(("mask_std", "Spatial std of masks, λ = 0.5"))
    figure, axes = subplots(3.6 * len(panels) + 0.8, 3.3, len(panels))
    for axis, (key, title) in zip(axes, panels, strict=True):
        for position, (name, rows) in enumerate(histories.items()):
            ink = colour(name, position)
            epochs, values = _points(rows, key)
            if epochs:
                axis.plot(
                    epochs,
                    values,
                    marker=marker(name, position),
                    markersize=4,
                    markevery=max(1, len(epochs) // 10),
                    linewidth=1.8,
                    color=ink,
                    label=shown(name),
                )
            if key == "top1" and (other := _points(rows, "top1_q"))[0]:
                axis.plot(*other, linestyle=":", linewidth=1.6, color=ink, label=f"{shown(name)}, encoder q")
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "mask_std":
            axis.axhline(0.1, color=INK, linewidth=1, linestyle="--")
            axis.text(
                1,
                0.1,
                "below: nearly flat masks",
                transform=axis.get_yaxis_transform(),
                ha="right",
                va="bottom",
                fontsize=8,
            )
            axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=8, loc="best")
    return save(figure, path)


@styled
def mixed_accuracy_figure(path: Path, accuracies: Mapping[str, Rows]) -> Path:
    """Fig. 4, right: top-1 and top-2 accuracy on mixed samples against λ. ``accuracies``: method -> rows of
    `MixedAccuracy.to_dict`."""
    figure, axes = subplots(8, 3.4, 2)
    titles = (
        ("top1", "Top-1: the first prediction is $y_i$ or $y_j$ (%)"),
        ("top2", "Top-2: the first two are $y_i$ and $y_j$ (%)"),
    )
    for axis, (key, title) in zip(axes, titles, strict=True):
        for position, (name, rows) in enumerate(accuracies.items()):
            axis.plot(
                [row["lam"] for row in rows],
                [row[key] for row in rows],
                color=colour(name, position),
                label=shown(name),
                marker=marker(name, position),
                markersize=5,
                linewidth=1.8,
            )
        axis.set(xlabel="λ (share of image i)", xlim=(0, 1), title=title)
        axis.set_ylim(0, 1.08 * max(row[key] for rows in accuracies.values() for row in rows) or 1)
        axis.set_xticks(np.arange(0, 1.01, 0.1))
    axes[0].legend(fontsize=8, loc="lower center", ncols=len(accuracies))
    return save(figure, path)


@styled
def masks_figure(path: Path, statistics: Rows, margin: float = 0.1) -> Path:
    """Health of a Mix Block by λ: does the masks' mean follow λ within ε, and are they alive? Rows of
    `MaskStatistics.to_dict`."""
    lams = [row["lam"] for row in statistics]
    figure, (follow, alive) = subplots(8, 3.2, 2)
    follow.fill_between(
        [0, 1], [-margin, 1 - margin], [margin, 1 + margin], color="#dfe9f2", label=f"λ ± ε, ε = {margin:g}"
    )
    follow.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    follow.errorbar(
        lams,
        [row["mean"] for row in statistics],
        yerr=[row["error"] for row in statistics],
        color=colour("automix"),
        marker="D",
        markersize=5,
        capsize=3,
        linewidth=1.6,
        label="mean of all masks, and mean |mask's mean - λ|",
    )
    follow.set(
        title="The mask's mean follows λ", xlabel="λ", ylabel="share of image i", xlim=(0, 1), ylim=(0, 1.2)
    )
    follow.set_yticks(np.arange(0, 1.01, 0.2))
    follow.legend(fontsize=7.5, loc="upper left")
    for key, label, sign, ink in (
        ("spatial_std", "within a mask", "o", colour("automix")),
        ("pair_std", "between pairs, at a position", "s", colour("", 0)),
    ):
        alive.plot(
            lams,
            [row[key] for row in statistics],
            marker=sign,
            markersize=5,
            linewidth=1.8,
            color=ink,
            label=label,
        )
    alive.axhline(0.1, color=INK, linewidth=1, linestyle="--")
    alive.set(title="Masks are alive: standard deviation", xlabel="λ", xlim=(0, 1), ylim=(0, 0.5))
    alive.legend(fontsize=8)
    return save(figure, path)


@styled
def gains_figure(path: Path, rows: Sequence[tuple[str, str, float, str, float]]) -> Path:
    """What a backbone is worth: for each (task, baseline's name, its value, name, value) a line from one to
    the other, in percent."""
    figure, (axis,) = subplots(7.2, 0.9 + 0.5 * len(rows))
    for position, (_, _, before, _, after) in enumerate(rows):
        gain = after - before
        ink = colour("automix") if gain >= 0 else "#d55e00"
        axis.plot(
            [before, after],
            [position, position],
            color=ink,
            linewidth=3,
            solid_capstyle="butt",
            alpha=0.45,
            zorder=1,
        )
        axis.scatter([before], [position], s=42, facecolor="white", edgecolor=INK, linewidth=1.5, zorder=2)
        axis.scatter([after], [position], s=46, color=ink, zorder=3)
        axis.annotate(
            f"{gain:+.1f}",
            (max(before, after), position),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=ink,
        )
    axis.set_yticks(
        range(len(rows)), [f"{task}\n{name} against {base}" for task, base, _, name, _ in rows], fontsize=8
    )
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set(xlabel="percent; open: baseline, filled: from AutoMix's backbone", xlim=(0, 100))
    axis.grid(axis="y", visible=False)
    return save(figure, path)


def _points(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of the rows that have ``key``."""
    found = [
        (float(row["epoch"]), float(row[key]))
        for row in rows
        if isinstance(row.get(key), (int, float)) and "epoch" in row
    ]
    return [epoch for epoch, _ in found], [value for _, value in found]
