"""The page of a comparison of backbones: the answer, every value, learning curves, and what each backbone's
detector and classifier see in the same images."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automix_transfer import __version__
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError
from automix_transfer.figures.sheet import Picture, drawn, save_parts
from automix_transfer.figures.style import INK, marker, subplots
from automix_transfer.io import read_json, write_json, write_text
from automix_transfer.localization.maps.sources import EncoderMaps, read_target
from automix_transfer.localization.overlays import grid, overlay
from automix_transfer.localization.targets import targets_of
from automix_transfer.models.weights import load_encoder
from automix_transfer.report import html
from automix_transfer.report.comparison_page import (
    THRESHOLD,
    colours_of,
    curves_figure,
    detections_figure,
    mean_curve,
    title,
)
from automix_transfer.report.embed import Embedder
from automix_transfer.runs.folder import Points, commit_of, read_history, read_metrics
from automix_transfer.text_files import read_text
from automix_transfer.transfer.answer import Row
from automix_transfer.transfer.transfer_plan import Cell
from automix_transfer.transfer.transfer_settings import TASKS

SIDE = 200  #: pixels of a picture's side
SHOWN = 6  #: images of a strip
SCORES = (
    "Every measurement is a point, the line its backbone's mean. Differences are taken seed by seed, so "
    "backbones whose points overlap may be told apart."
)


def build(folder: Path, rows: Sequence[Row], cells: Sequence[Cell], about: Mapping[str, Any]) -> Path:
    """Draw ``folder/figures/`` and write ``folder/report.html``, one file with everything inside; returns its
    path. A picture that cannot be drawn is named on the page, with the reason."""
    problems: list[str] = []
    figures: dict[str, tuple[str, str, Picture]] = {"scores": ("Every value", SCORES, scores_figure(rows))}
    done = [cell for cell in cells if cell.result.is_file() and cell.job not in about["failures"]]
    for data in about["data"]:
        for task, head, draw, caption in DRAWINGS:
            mine = [cell for cell in done if (cell.task, cell.data) == (task, data)]
            try:
                if mine:
                    picture = draw(mine, about, problems)
                    figures[f"{draw.__name__}_{data}"] = f"{head}, {data}", caption, picture
            # what the results name is theirs, e.g. an encoder of another size
            except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                problems.append(f"{head}, {data}, could not be drawn: {error}")
    embedder = Embedder(problems)
    captions = {name: f"{head}. {caption}" for name, (head, caption, _) in figures.items()}
    write_json(folder / "figures" / "captions.json", captions)
    pictures = {
        name: embedder.embed(save_parts(folder / "figures" / f"{name}.png", [figure]))
        for name, (_, _, figure) in figures.items()
    }
    content = {
        "title": folder.resolve().name,
        "folder": str(folder),
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit_of(about),
        "about": about,
        "rows": [row.to_dict() for row in rows],
        "titles": {name: task.title for name, task in TASKS.items()},
        "pictures": [
            (name, head, caption, pictures[name])
            for name, (head, caption, _) in figures.items()
            if pictures[name]
        ],
        "colours": colours_of(about["backbones"]),
        "missing": [
            (TASKS[row.task].title, row.data, one.backbone, one.missing)
            for row in rows
            for one in row.scores
            if one.missing
        ],
        "problems": problems,
    }
    output = folder / "report.html"
    write_text(output, html.page("transfer.html.j2", content))
    return output


@drawn
def scores_figure(rows: Sequence[Row]) -> Figure:
    """A panel for the first figure of every task and data set."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        first.setdefault((row.task, row.data), row)
    names = [one.backbone for one in rows[0].scores] if rows else []
    ink = colours_of(names)
    across = min(3, max(1, len(first)))
    down = -(-len(first) // across)
    figure, axes = subplots(3.2 * across, max(1.6, 0.8 + 0.36 * len(names)) * down, across, down)
    for number, (axis, row) in enumerate(zip(axes, first.values(), strict=False)):
        for place, one in enumerate(row.scores):
            values = list(one.values.values())
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(len(values))
            sign = marker(one.backbone.lower(), place)
            axis.scatter(values, place + spread, s=26, color=ink[one.backbone], marker=sign, zorder=3)
            if one.mean is not None:
                axis.vlines(one.mean, place - 0.3, place + 0.3, color=INK, linewidth=2, zorder=2)
        axis.set_yticks(range(len(names)), names if number % across == 0 else [""] * len(names))
        axis.set(title=f"{TASKS[row.task].title}, {row.data}: {row.figure}", ylim=(len(names) - 0.5, -0.5))
        axis.title.set_fontsize(8)
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(axis="y", visible=False)
    for axis in list(axes)[len(first) :]:
        axis.set_visible(False)
    return figure


@drawn
def training_curves(cells: Sequence[Cell], about: Mapping[str, Any], problems: list[str]) -> Figure:
    """Validation top-1 of the fine-tunings by epoch."""
    figure, axes = subplots(6, 3.4, 1)
    ink = colours_of(about["backbones"])
    for position, name in enumerate(about["backbones"]):
        runs = [cell.result.parent for cell in cells if cell.backbone == name]
        lines = [top1_curve(run) for run in runs]
        for x, y in lines:
            axes[0].plot(x, y, color=ink[name], linewidth=0.9, alpha=0.4 if len(lines) > 1 else 1)
        x, y = mean_curve(lines)
        if x:
            sign = marker(name.lower(), position)
            axes[0].plot(
                x,
                y,
                color=ink[name],
                linewidth=2,
                label=name,
                marker=sign,
                markersize=4,
                markevery=max(1, len(x) // 8),
            )
    axes[0].set(xlabel="epoch", ylabel="top-1 (%)")
    axes[0].legend(fontsize=8)
    return figure


def top1_curve(run: Path) -> Points:
    """Epochs and validation top-1 of a run."""
    rows = [row for row in read_history(run) if "top1" in row]
    return [row["epoch"] for row in rows], [row["top1"] for row in rows]


def detection_curves(cells: Sequence[Cell], about: Mapping[str, Any], problems: list[str]) -> Picture:
    """Loss, and AP50 on the way where it was measured."""
    histories: dict[str, dict[str, Any]] = {}
    for cell in cells:
        own = histories.setdefault(cell.backbone, {})
        own[str(cell.seed)] = read_metrics(cell.result.parent, problems)
    return curves_figure(histories)


def detections(cells: Sequence[Cell], about: Mapping[str, Any], problems: list[str]) -> Picture:
    """The same test images under every detector."""
    runs = {cell.backbone: cell.result.parent for cell in reversed(cells)}
    runs = {name: runs[name] for name in about["backbones"] if name in runs}
    return detections_figure(runs, Path(about["data"][cells[0].data]["root"]), None, SHOWN)


def localizations(cells: Sequence[Cell], about: Mapping[str, Any], problems: list[str]) -> Picture:
    """The same test images under every classifier's map."""
    strips = []
    for name in about["backbones"]:
        cell = next((cell for cell in cells if cell.backbone == name), None)
        if cell is not None:
            strip = grid(maps_of(cell.result), columns=SHOWN)
            strips += [title(name, strip.shape[1]), strip]
    return np.concatenate(strips)


def maps_of(results: Path) -> list[Picture]:
    """`SHOWN` images spread over the split, with their maps and boxes, as ``results`` was measured."""
    measured = read_json(results)
    encoder, info = load_encoder(measured["checkpoint"], which=measured["which"])
    stride = measured["output_stride"]
    options = {key: measured[key] for key in ("image_size", "map_size", "cam_class")}
    source = EncoderMaps(encoder, info, output_stride=stride, method=measured["map_method"], **options)
    config = DataConfig(dataset=measured["dataset"], root=measured["root"])
    split = measured["split"]
    target_set = targets_of(load_listing(config, split), split)
    rows = list(csv.DictReader(read_text(results.with_suffix(".csv")).splitlines()))
    pictures = []
    for index in [number * len(rows) // SHOWN for number in range(min(SHOWN, len(rows)))]:
        target = target_set.targets[index]
        image = read_target(target, target_set.crop_bottom)
        plain = np.asarray(image.resize((SIDE, SIDE)))
        true = np.array(target.boxes) * (np.array([SIDE / image.width, SIDE / image.height] * 2))
        found = np.array([float(rows[index][key]) for key in ("x0", "y0", "x1", "y1")])
        heat = source.score_map(target_set, index)
        pictures.append(overlay(plain, heat, true, found * SIDE / measured["map_size"]))
    return pictures


CURVES = "Thin: a seed; thick: their mean."
FIRST = "The same test images for every backbone, each with its first seed: true boxes"
FOUND = f"What has a score of at least {THRESHOLD} is drawn; a detector may have found nothing so sure."
#: task, heading, what draws it, caption
DRAWINGS: tuple[tuple[str, str, Callable[..., Picture], str], ...] = (
    ("finetune", "Fine-tuning", training_curves, f"Validation top-1 by epoch. {CURVES}"),
    ("detection", "Detection", detection_curves, f"{CURVES} The loss is the median of the last 20."),
    ("detection", "What the detectors find", detections, f"{FIRST} first. {FOUND}"),
    ("localization", "Where the classifiers look", localizations, f"{FIRST} green, found ones red."),
)
