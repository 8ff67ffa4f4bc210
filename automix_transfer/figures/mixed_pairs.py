"""Fig. 4: the same pairs at several λ, and whether networks recognise both images of a mixed sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import mixed_accuracy
from automix_transfer.evaluation.mixers import Mixer
from automix_transfer.figures.common import OWN, Asked, Shown, each_with, mixers_of, open_shown, title_of
from automix_transfer.figures.sheet import Cell, Picture, drawn, sheet
from automix_transfer.figures.style import DPI, draw_lines, shown, subplots

LAMS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STRIP = (0.0, 0.3, 0.7, 1.0)  #: λ of the pictures, as in the paper


def fig4(asked: Asked) -> Path:
    """Write the figure and its numbers: top-1 and top-2 accuracy of each run on mixed samples, the same pairs
    and λ for all.

    Raises:
        UserError: as the readers of runs and data; no run that mixes.
    """
    found = open_shown(asked, pairs=2)
    lams = asked.lams or list(LAMS)
    runs, mixers = mixers_of(found.runs, asked.mixed_by)
    batches = found.batches()
    if not batches:
        raise UserError(
            f"{len(found.dataset)} validation images give no pairs; mixed samples need at least two"
        )
    accuracy = {}
    for run, some in each_with(runs, batches, "accuracy on mixed samples"):
        rows = mixed_accuracy(run.encoder, some, mixers[run.label], lams, asked.seed)
        accuracy[run.label] = [row.to_dict() for row in rows]
    if asked.mixed_by == OWN:
        whose = "Each network on mixed samples of the kind it was trained on"
        kinds = {title_of(run): mixers[run.label] for run in runs}
    else:
        whose = f"All networks on the samples of {asked.mixed_by}"
        kinds = {shown(asked.mixed_by): mixers[runs[0].label]}
    caption = (
        f"Do networks recognise both images of a mixed sample (Fig. 4)? {whose}; the same pairs and λ for "
        "all, pairs of one class are left out."
    )
    samples = sum(len(batch[0]) for batch in batches)
    content = {"samples": samples, "seed": asked.seed, "mixed_by": asked.mixed_by, "by_run": accuracy}
    return found.write("fig4", caption, content, [strip_sheet(found, kinds), accuracy_plot(accuracy)])


def strip_sheet(found: Shown, kinds: Mapping[str, Mixer]) -> Picture:
    """A kind of mixing in a row: every pair from image j (λ = 0) to image i (λ = 1)."""
    rows = []
    for name, mixer in kinds.items():
        mixed = [found.pairs.mixed(mixer, lam, found.asked.seed) for lam in STRIP]
        rows.append(
            (name, [Cell(mixed[at][pair]) for pair in range(len(found.pairs)) for at in range(len(STRIP))])
        )
    columns = [f"λ = {lam:g}" for _ in range(len(found.pairs)) for lam in STRIP]
    return sheet(
        rows,
        columns,
        "Mixed samples at different λ, the share of image i",
        column_breaks=range(len(STRIP), len(columns), len(STRIP)),
    )


@drawn
def accuracy_plot(accuracy: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Top-1 and top-2 against λ."""
    figure, axes = subplots(1100 / DPI, 3.5, 2)
    heads = (
        ("top1", "Top-1: the first guess is yᵢ or yⱼ (%)"),
        ("top2", "Top-2: the first two are yᵢ and yⱼ (%)"),
    )
    for axis, (key, head) in zip(axes, heads, strict=True):
        draw_lines(
            axis,
            {
                label: ([row["lam"] for row in rows], [row[key] for row in rows])
                for label, rows in accuracy.items()
            },
        )
        axis.set(xlabel="λ (share of image i)", xlim=(0, 1), title=head)
        axis.set_ylim(0, 1.08 * max((row[key] for rows in accuracy.values() for row in rows), default=1) or 1)
        axis.set_xticks(np.arange(0, 1.01, 0.2))
    axes[1].legend(fontsize=8, loc="best")
    return figure
