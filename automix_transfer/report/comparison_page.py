"""The page of a detection comparison: Table 7's form, learning curves, every run, and what each row detects
on the same images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automix_transfer import __version__
from automix_transfer.figures.sheet import Picture, drawn, save_parts
from automix_transfer.figures.style import INK, SPARE, colour, marker, subplots
from automix_transfer.io import write_json, write_text
from automix_transfer.localization.overlays import grid
from automix_transfer.report import html
from automix_transfer.report.embed import Embedder
from automix_transfer.runs.folder import Points, commit_of, points, read_metrics
from automix_transfer.training.record.run_folder import git_commit

HEADLINE = ("AP", "AP50", "AP75")
SIDE, THRESHOLD = 260, 0.3


def build(
    folder: Path,
    comparison: Mapping[str, Any],
    data_root: Path | None = None,
    class_names: Path | None = None,
    count: int = 6,
) -> Path:
    """Draw ``folder/figures/`` and write ``folder/report.html``, one file with everything inside; returns its
    path.

    Args:
        comparison: the content of ``comparison.json``; its runs are in ``folder/runs``.
        data_root, class_names: as for training; None takes the config's own data.
        count: test images that detections are shown on; 0 leaves the pictures out.
    """
    problems: list[str] = []
    names = [row["name"] for row in comparison["rows"]]
    histories = {
        name: {seed: read_metrics(run, problems) for seed, run in runs_of(folder, comparison, name).items()}
        for name in names
    }
    figures = {"scores": scores_figure(comparison["rows"]), "curves": curves_figure(histories)}
    if count:
        first = {name: next(iter(runs_of(folder, comparison, name).values())) for name in names}
        figures["detections"] = detections_figure(first, data_root, class_names, count)
    captions = {name: caption(name, comparison) for name in figures}
    write_json(folder / "figures" / "captions.json", captions)
    embedder = Embedder(problems)
    pictures = {
        name: embedder.embed(save_parts(folder / "figures" / f"{name}.png", [figure]))
        for name, figure in figures.items()
    }
    content = {
        "title": folder.resolve().name,
        "folder": str(folder),
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit_of(git_commit()),
        "about": comparison["about"],
        "rows": comparison["rows"],
        "headline": HEADLINE,
        "pictures": {name: found for name, found in pictures.items() if found},
        "captions": captions,
        "problems": problems,
        "colours": colours_of(names),
        "extra": extra_figures(comparison["rows"]),
    }
    output = folder / "report.html"
    write_text(output, html.page("comparison.html.j2", content))
    return output


def runs_of(folder: Path, comparison: Mapping[str, Any], name: str) -> dict[str, Path]:
    """Seed -> run folder of a row."""
    row = next(row for row in comparison["rows"] if row["name"] == name)
    return {seed: folder / "runs" / row["folder"] / f"seed{seed}" for seed in row["runs"]}


def extra_figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs hold beyond the headline, in order."""
    return [
        key
        for key in dict.fromkeys(key for row in rows for run in row["runs"].values() for key in run)
        if key not in HEADLINE
    ]


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each row: a method's own where it has one, never one colour twice."""
    spare = iter([*SPARE, *("#444444", "#8c564b", "#7f7f7f")] * len(names))
    return {name: found if (found := colour(name.lower())) not in SPARE else next(spare) for name in names}


@drawn
def scores_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AP, AP50 and AP75 of every run as a point, and each row's mean as a line."""
    names = [row["name"] for row in rows]
    ink = colours_of(names)
    figure, axes = subplots(9, max(2.0, 0.9 + 0.42 * len(rows)), 3)
    for axis, key in zip(axes, HEADLINE, strict=True):
        for place, row in enumerate(rows):
            values = [run[key] for run in row["runs"].values() if run[key] is not None]
            heights = (
                np.linspace(place - 0.12, place + 0.12, len(values))
                if len(values) > 1
                else [place] * len(values)
            )
            sign = marker(row["name"].lower(), place)
            axis.scatter(values, heights, s=30, color=ink[row["name"]], alpha=0.75, marker=sign, zorder=3)
            if row[key]:
                axis.vlines(row[key]["mean"], place - 0.3, place + 0.3, color=INK, linewidth=2, zorder=2)
        axis.set_yticks(range(len(rows)), names if axis is axes[0] else [""] * len(rows))
        axis.set(title=f"{key} (%)", ylim=(len(rows) - 0.5, -0.5))
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(axis="y", visible=False)
    return figure


@drawn
def curves_figure(histories: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> Figure:
    """Training loss by iteration, and AP50 and the loss on the test split where they were measured on the
    way: a thin line a seed, a thick one their mean.

    ``histories``: row -> seed -> rows of `read_metrics`. The loss is Detectron2's, the median of the 20
    iterations before.
    """
    panels = {}
    for key, title in (
        ("total_loss", "Training loss"),
        ("val_loss", "Loss on the test split"),
        ("bbox/AP50", "AP50 on the test split (%)"),
    ):
        found = {name: [points(rows, key) for rows in seeds.values()] for name, seeds in histories.items()}
        if key == "total_loss" or any(len(x) > 1 for lines in found.values() for x, _ in lines):
            panels[title] = found
    figure, axes = subplots(4.4 * len(panels) + 0.6, 3.4, len(panels))
    ink = colours_of(list(histories))
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for position, (name, lines) in enumerate(curves.items()):
            for x, y in lines:
                axis.plot(x, y, color=ink[name], linewidth=0.9, alpha=0.4 if len(lines) > 1 else 1)
            x, y = mean_curve(lines)
            if x:
                signs: dict[str, Any] = {
                    "marker": marker(name.lower(), position),
                    "markevery": max(1, len(x) // 8),
                }
                axis.plot(x, y, color=ink[name], linewidth=2, label=name, markersize=4, **signs)
        axis.set(title=title, xlabel="iteration")
        axis.set_ylim(bottom=0)
        if axis.lines:
            axis.legend(fontsize=8)
    return figure


def mean_curve(lines: Sequence[Points]) -> Points:
    """Mean over seeds at the iterations that all of them have."""
    by_seed = [dict(zip(x, y, strict=True)) for x, y in lines]
    common = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    return common, [float(np.mean([seed[x] for seed in by_seed])) for x in common]


def detections_figure(
    runs: Mapping[str, Path], data_root: Path | None, class_names: Path | None, count: int
) -> Picture:
    """A row of the true boxes, then one for each run: what it finds on the same test images with a score of
    `THRESHOLD` or more."""
    from automix_transfer.detection.showing.examples import detect_examples
    from automix_transfer.detection.showing.rectangles import TRUE, class_colour, draw_boxes, fit

    strips: dict[str, list[Picture]] = {"true boxes": [], **{name: [] for name in runs}}
    for name, run in runs.items():
        for found in detect_examples(run, data_root, count, THRESHOLD, class_names):
            image = fit(
                found.image, SIDE
            )  # scaled before drawing: lines and letters are as thick on every image
            true, boxes = (place(some, found.image, SIDE) for some in (found.true_boxes, found.boxes))
            if name == next(iter(runs)):
                strips["true boxes"].append(draw_boxes(image, true, [""] * len(true), [TRUE] * len(true)))
            words = [f"{label} {score:.2f}" for label, score in zip(found.names, found.scores, strict=True)]
            strips[name].append(
                draw_boxes(image, boxes, words, [class_colour(label) for label in found.labels])
            )
    rows = [(grid(pictures, columns=len(pictures)), name) for name, pictures in strips.items()]
    return np.concatenate([part for row, name in rows for part in (title(name, row.shape[1]), row)])


def place(boxes: np.ndarray, image: np.ndarray, side: int) -> np.ndarray:
    """Boxes in pixels of ``image`` as boxes on its `fit`."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    shift = [round((side - max(1, round(length * scale))) / 2) for length in (width, height)] * 2
    return boxes * scale + shift


def title(text: str, width: int) -> np.ndarray:
    """A line of text above a row of pictures; (30, width, 3) uint8."""
    line, plain = np.full((30, width, 3), 255, dtype=np.uint8), text.encode("ascii", "replace").decode()
    cv2.putText(line, plain, (6, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (31, 41, 51), 1, cv2.LINE_AA)
    return line


def caption(name: str, comparison: Mapping[str, Any]) -> str:
    """One sentence on a figure."""
    about = comparison["about"]
    seed = about["seeds"][0]
    return {
        "scores": "Every run is a point, the line its row's mean. Gains are taken seed by seed, so rows "
        "whose points overlap may be told apart.",
        "curves": "Thin: a seed; thick: their mean. The loss is Detectron2's, the median over the 20 "
        "iterations before.",
        "detections": f"The same images of {about['data']} for every row (seed {seed}): true boxes first, "
        f"then what is found with a score of at least {THRESHOLD}.",
    }[name]
