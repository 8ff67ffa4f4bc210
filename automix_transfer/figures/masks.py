"""Pictures of masks: by λ (Figs. 12 and 13), trivial against learned ones (Fig. 6), and through a training
(Fig. 7)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import mask_statistics
from automix_transfer.evaluation.mixers import MIXERS, automix_mixer
from automix_transfer.evaluation.opened import Run, open_run
from automix_transfer.figures.common import Asked, Shown, automix_runs, each_with, open_shown, title_of
from automix_transfer.figures.samples import LAMS, LEGEND, cells_of, lam_sheet, mask_cells
from automix_transfer.figures.sheet import WIDTH, Cell, Picture, drawn, sheet
from automix_transfer.figures.style import DPI, INK, SPARE, colour, shown, subplots
from automix_transfer.mixing import AutoMix
from automix_transfer.rng import reseed_globals
from automix_transfer.runs.folder import is_number
from automix_transfer.training.settings import Experiment
from automix_transfer.training.setup.build_model import build_model

FLAT = 0.05  #: spatial standard deviation at λ = 0.5 below which a mask is called flat: as good as MixUp


def fig12(asked: Asked) -> Path:
    """Figs. 12 and 13: AutoMix's samples and masks at one λ for several pairs, and below from λ = 0 to 1 for
    the first of them.

    Raises:
        UserError: as the readers of runs and data; no run with a Mix Block.
    """
    found, lams = open_shown(asked, pairs=8), asked.lams or list(LAMS)
    parts: list[Picture] = []
    numbers: dict[str, Any] = {}
    for run, method in automix_runs(found.runs):
        name = title_of(run)
        masks, mask, mixed = masks_of(found, method)
        rows = [*originals(found), ("mask", mask), ("mixed", mixed)]
        parts.append(sheet(rows, title=f"{name}'s samples at λ = {asked.lam:g}", note=LEGEND))
        title = f"{name} from image j to image i"
        part, by_lam = lam_sheet(found.pairs.first(3), method, lams, asked.seed, title)
        parts.append(part)
        numbers[run.label] = {
            "at_lam": {"lam": asked.lam, "masks": of_masks(masks)},
            "by_lam": [{"lam": lam, "masks": of_masks(one)} for lam, one in zip(lams, by_lam, strict=True)],
        }
    caption = (
        f"AutoMix's mixed samples and masks at λ = {asked.lam:g}, and as λ goes from 0 (image j) to 1 "
        f"(image i): {LEGEND}."
    )
    return found.write("fig12", caption, numbers, parts)


def fig6(asked: Asked) -> Path:
    """Fig. 6: masks of each AutoMix run at one λ beside the trivial solution (MixUp), how alive they are, and
    the run's accuracy.

    Raises:
        UserError: as the readers of runs and data; no run with a Mix Block.
    """
    found = open_shown(asked, pairs=8)
    methods = {run.label: method for run, method in automix_runs(found.runs)}
    flat = np.full((len(found.pairs), *found.pairs.images_i.shape[2:]), asked.lam)
    mixup = cells_of(found.pairs.mixed(MIXERS["mixup"], asked.lam, asked.seed))
    rows = [*originals(found), ("MixUp:\nmask", mask_cells(flat)), ("mixed,\nstd 0", mixup)]
    batches, numbers = found.batches(), []
    for run, some in each_with([run for run in found.runs if run.label in methods], batches, "masks"):
        method = methods[run.label]
        health = mask_statistics(method, some, [asked.lam], asked.seed)[0]
        masks, mask, mixed = masks_of(found, method)
        tops = [row.get("top1") for row in run.history]
        name = textwrap.fill(title_of(run).replace("_", " "), 14)
        rows += [(f"{name}:\nmask", mask), (f"mixed,\nstd {health.spatial_std:.2f}", mixed)]
        numbers.append(
            {
                "label": run.label,
                "pipeline": method.options.pipeline,
                "top1_last": next((top1 for top1 in tops[::-1] if is_number(top1)), None),
                "masks": health.to_dict(),
                "shown": of_masks(masks),
            }
        )
    caption = (
        f"Trivial and learned masks at λ = {asked.lam:g} on the same pairs (Fig. 6): a flat mask is MixUp. "
        "std: mean standard deviation within a mask."
    )
    title = f"Trivial (MixUp) and learned masks at λ = {asked.lam:g}"
    part = sheet(rows, title=title, note=LEGEND, side=104, breaks=range(2, len(rows), 2))
    content = {"lam": asked.lam, "samples": sum(len(b[0]) for b in batches), "by_run": numbers}
    return found.write("fig6", caption, content, [part, health_plot(numbers)])


def fig7(asked: Asked) -> Path:
    """Fig. 7: the same pairs at one λ through a training: its random start, every checkpoint that the folder
    keeps, and its end.

    Raises:
        UserError: as the readers of runs and data; no Mix Block.
    """
    found = open_shown(asked, pairs=4)
    run, _ = automix_runs(found.runs)[0]
    kept = automix_runs(kept_checkpoints(asked.runs))
    stages = [
        ("start", initial(run), 0),
        *((f"epoch {one.epoch}", method, one.epoch) for one, method in kept),
    ]
    batches = found.batches(most=128)
    columns, numbers = [], []
    for name, method, epoch in stages:
        health = mask_statistics(method, batches, [asked.lam], asked.seed)[0]
        masks, *cells = masks_of(found, method)
        columns.append(cells)
        numbers.append({"stage": name, "epoch": epoch, "masks": health.to_dict(), "shown": of_masks(masks)})
    rows: list[tuple[str, list[Cell | None]]] = []
    images_i, images_j = (
        cells_of(found.pairs.pixels(side)) for side in (found.pairs.images_i, found.pairs.images_j)
    )
    for pair, (i, j) in enumerate(zip(images_i, images_j, strict=True)):
        rows.append(("image i,\nmask", [i, *(mask[pair] for mask, _ in columns)]))
        rows.append(("image j,\nmixed", [j, *(mixed[pair] for _, mixed in columns)]))
    part = sheet(
        rows,
        ["images", *(name for name, _, _ in stages)],
        f"{title_of(run)} at λ = {asked.lam:g} through the training",
        side=min(124, (WIDTH - 110) // (len(stages) + 1) - 6),
        note=LEGEND,
        breaks=range(2, len(rows), 2),
        column_breaks=(1,),
    )
    caption = (
        f"Mixed samples and masks of the same pairs at λ = {asked.lam:g} through the training (Fig. 7). "
        f"Checkpoints are those that the run's folder keeps; the start is built again from the seed."
    )
    content = {"lam": asked.lam, "stages": numbers}
    return found.write("fig7", caption, content, [part, training_plot(numbers, asked.lam)])


def initial(run: Run) -> AutoMix:
    """The method before its first step: its random numbers derive from the run's seed, so it can be built
    again."""
    try:
        experiment = load_config(Experiment, values=run.config)
    except UserError as error:
        raise UserError(f"{run.file}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        reseed_globals(experiment.seed, "initial weights")
        method = build_model(
            experiment, list(run.info.class_names) or [str(k) for k in range(run.info.num_classes)]
        )[0]
    assert isinstance(method, AutoMix)
    method.eval()
    return method


def kept_checkpoints(paths: Sequence[Path]) -> list[Run]:
    """Every checkpoint of the first run's folder, or the files that were given, in the order of their steps;
    each step once."""
    files = sorted(paths[0].glob("*.pt")) if paths[0].is_dir() else list(paths)
    runs = {run.step: run for run in map(open_run, files)}
    if len({run.folder.resolve() for run in runs.values()}) > 1 or any(path.is_dir() for path in paths[1:]):
        raise UserError("a training's course is one run's: give its folder, or several of its checkpoints")
    return [runs[step] for step in sorted(runs)]


def originals(found: Shown) -> list[tuple[str, list[Cell | None]]]:
    """The two rows of images i and j, with their classes."""
    rows: list[tuple[str, list[Cell | None]]] = []
    for name, images, side in (("image i", found.pairs.images_i, 0), ("image j", found.pairs.images_j, 1)):
        pictures = enumerate(found.pairs.pixels(images))
        rows.append((name, [Cell(picture, found.names(pair)[side]) for pair, picture in pictures]))
    return rows


def masks_of(found: Shown, method: AutoMix) -> tuple[np.ndarray, list[Cell | None], list[Cell | None]]:
    """Masks (n, H, W) of the pairs at the figure's λ, and the cells of masks and of mixed images."""
    lam, seed = found.asked.lam, found.asked.seed
    masks = found.pairs.masks(method, lam, seed)
    return masks, mask_cells(masks), cells_of(found.pairs.mixed(automix_mixer(method), lam, seed))


def of_masks(masks: np.ndarray) -> list[dict[str, float]]:
    """Mean and standard deviation of each mask (n, H, W)."""
    return [{"mean": float(mask.mean()), "std": float(mask.std())} for mask in masks]


@drawn
def health_plot(numbers: Sequence[dict[str, Any]]) -> Figure:
    """For each run: standard deviation within its masks, and its last validation top-1."""
    figure, (alive, right) = subplots(1000 / DPI, 1.0 + 0.32 * (len(numbers) + 1), 2)
    names = ["MixUp (trivial)", *(shown(str(row["label"])) for row in numbers)]
    inks = [SPARE[0], *(colour(str(row["label"]), k + 1) for k, row in enumerate(numbers))]
    spreads = [0.0, *(row["masks"]["spatial_std"] for row in numbers)]
    both = [alive.barh(range(len(names)), spreads, color=inks, height=0.6)]
    alive.axvline(FLAT, color=INK, linewidth=1, linestyle="--")
    alive.set(title="Std within a mask (dashed: nearly flat)", xlim=(0, 0.5))
    tops = [None, *(row["top1_last"] for row in numbers)]
    both.append(right.barh(range(len(names)), [top or 0 for top in tops], color=inks, height=0.6))
    right.set(title="Validation top-1 at the end (%)", xlim=(0, 100))
    texts = (
        [f"{spread:.3f}" for spread in spreads],
        ["not trained" if t is None else f"{t:.1f}" for t in tops],
    )
    for axis, bars, words in zip((alive, right), both, texts, strict=True):
        axis.set_yticks(range(len(names)), names if axis is alive else [""] * len(names), fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axis.bar_label(bars, words, padding=5, fontsize=8, bbox=box)
    return figure


@drawn
def training_plot(numbers: Sequence[dict[str, Any]], lam: float) -> Figure:
    """Mean and standard deviation of masks, stage by stage."""
    figure, (axis,) = subplots(900 / DPI, 2.3)
    places = [row["epoch"] for row in numbers]
    for key, label, sign, ink in (
        ("spatial_std", "standard deviation within a mask", "D", colour("automix")),
        ("error", "distance of a mask's mean from λ", "o", SPARE[0]),
    ):
        axis.plot(places, [row["masks"][key] for row in numbers], marker=sign, color=ink, label=label)
    axis.axhline(FLAT, color=INK, linewidth=1, linestyle="--", label="nearly flat")
    axis.set(title=f"Masks at λ = {lam:g}", xlabel="epoch", ylim=(0, None), xlim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    return figure
