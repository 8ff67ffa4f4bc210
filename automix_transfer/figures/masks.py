"""Pictures of masks: by λ (Figs. 12 and 13), trivial against learned ones (Fig. 6), and through a training
(Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import MaskStatistics, mask_statistics, shuffled_batches
from automix_transfer.evaluation.mixers import MIXERS, Mixer, automix_mixer
from automix_transfer.evaluation.opened import Run, open_run
from automix_transfer.figures.common import Asked, Shown, automix_runs, counted, open_shown, title_of
from automix_transfer.figures.samples import shares
from automix_transfer.figures.sheet import WIDTH, Cell, Picture, drawn, sheet, write_figure
from automix_transfer.figures.style import DPI, INK, SPARE, colour, shown, subplots
from automix_transfer.mixing import AutoMix
from automix_transfer.progress import Progress
from automix_transfer.rng import reseed_globals
from automix_transfer.training.settings import Experiment
from automix_transfer.training.setup import build_model

LAMS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
LEGEND = "masks: orange keeps image i, purple image j, white mixes half and half"
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
        masks, mixed = (
            found.pairs.masks(method, asked.lam, asked.seed),
            found.pairs.mixed(automix_mixer(method), asked.lam, asked.seed),
        )
        parts.append(
            sheet(
                [*originals(found), ("mask", mask_cells(masks)), ("mixed", [Cell(image) for image in mixed])],
                title=f"{name}'s samples at λ = {asked.lam:g}",
                note=LEGEND,
            )
        )
        some = found.pairs.first(3)
        by_lam = [
            (some.masks(method, lam, asked.seed), some.mixed(automix_mixer(method), lam, asked.seed))
            for lam in lams
        ]
        rows: list[tuple[str, list[Cell | None]]] = []
        for pair in range(len(some)):
            ends = Cell(some.pixels(some.images_j)[pair]), Cell(some.pixels(some.images_i)[pair])
            rows += [
                ("mask", [None, *(mask_cells(masks)[pair] for masks, _ in by_lam), None]),
                ("mixed", [ends[0], *(Cell(mixed[pair]) for _, mixed in by_lam), ends[1]]),
            ]
        parts.append(
            sheet(
                rows,
                ["image j", *(f"λ = {lam:g}" for lam in lams), "image i"],
                f"{name} from image j to image i",
                side=102,
                breaks=range(2, len(rows), 2),
            )
        )
        numbers[run.label] = {
            "at_lam": {"lam": asked.lam, "masks": of_masks(masks)},
            "by_lam": [
                {"lam": lam, "masks": of_masks(masks)} for lam, (masks, _) in zip(lams, by_lam, strict=True)
            ],
        }
    caption = (
        f"AutoMix's mixed samples and masks at λ = {asked.lam:g}, and as λ goes from 0 (image j) to 1 "
        f"(image i): {LEGEND}."
    )
    return write_figure(asked.output, "fig12", caption, {**found.about(), "numbers": numbers}, parts)


def fig6(asked: Asked) -> Path:
    """Fig. 6: masks of each AutoMix run at one λ beside the trivial solution (MixUp), how alive they are, and
    the run's accuracy.

    Raises:
        UserError: as the readers of runs and data; no run with a Mix Block.
    """
    found = open_shown(asked, pairs=8)
    blocks = automix_runs(found.runs)
    flat = np.full((len(found.pairs), *found.pairs.images_i.shape[2:]), asked.lam)
    rows = originals(found)

    def add(name: str, masks: np.ndarray, std: str, mixer: Mixer) -> None:
        mixed = found.pairs.mixed(mixer, asked.lam, asked.seed)
        rows.append((f"{name}:\nmask", mask_cells(masks)))
        rows.append((f"mixed,\nstd {std}", [Cell(image) for image in mixed]))

    add("MixUp", flat, "0", MIXERS["mixup"])
    batches = list(shuffled_batches(found.dataset, 64, asked.seed, min(asked.samples, len(found.dataset))))
    progress, numbers = Progress("masks", "batches"), []
    for number, (run, method) in enumerate(blocks):
        some = counted(batches, progress, number * len(batches), len(blocks) * len(batches), run.label)
        health = mask_statistics(method, some, [asked.lam], asked.seed)[0]
        masks = found.pairs.masks(method, asked.lam, asked.seed)
        add(wrapped(title_of(run)), masks, f"{health.spatial_std:.2f}", automix_mixer(method))
        accuracies = [row["top1"] for row in run.history if isinstance(row.get("top1"), (int, float))]
        numbers.append(
            {
                "label": run.label,
                "pipeline": method.options.pipeline,
                "top1_last": accuracies[-1] if accuracies else None,
                "masks": health.to_dict(),
                "shown": of_masks(masks),
            }
        )
    caption = (
        f"Trivial and learned masks at λ = {asked.lam:g} on the same pairs (Fig. 6): a flat mask is MixUp. "
        "std: mean standard deviation within a mask."
    )
    parts = [
        sheet(
            rows,
            title=f"Trivial (MixUp) and learned masks at λ = {asked.lam:g}",
            note=LEGEND,
            side=104,
            breaks=range(2, len(rows), 2),
        ),
        health_plot(numbers),
    ]
    content = {"lam": asked.lam, "samples": sum(len(b[0]) for b in batches), "by_run": numbers}
    return write_figure(asked.output, "fig6", caption, {**found.about(), "numbers": content}, parts)


def fig7(asked: Asked) -> Path:
    """Fig. 7: the same pairs at one λ through a training: its random start, every checkpoint that the folder
    keeps, and its end.

    Raises:
        UserError: as the readers of runs and data; no Mix Block.
    """
    found = open_shown(asked, pairs=4)
    run, _ = automix_runs(found.runs)[0]
    stages = [
        ("start", initial(run), 0),
        *(
            (f"epoch {one.epoch}", method, one.epoch)
            for one, method in automix_runs(kept_checkpoints(asked.runs))
        ),
    ]
    batches = list(
        shuffled_batches(found.dataset, 64, asked.seed, min(asked.samples, 128, len(found.dataset)))
    )
    rows: list[tuple[str, list[Cell | None]]] = []
    drawn_stages, numbers = [], []
    for name, method, epoch in stages:
        health: MaskStatistics = mask_statistics(method, batches, [asked.lam], asked.seed)[0]
        masks = found.pairs.masks(method, asked.lam, asked.seed)
        drawn_stages.append(
            (mask_cells(masks), found.pairs.mixed(automix_mixer(method), asked.lam, asked.seed))
        )
        numbers.append({"stage": name, "epoch": epoch, "masks": health.to_dict(), "shown": of_masks(masks)})
    for pair in range(len(found.pairs)):
        i, j = (Cell(found.pairs.pixels(side)[pair]) for side in (found.pairs.images_i, found.pairs.images_j))
        rows += [
            ("image i,\nmask", [i, *(masks[pair] for masks, _ in drawn_stages)]),
            ("image j,\nmixed", [j, *(Cell(mixed[pair]) for _, mixed in drawn_stages)]),
        ]
    side = min(124, (WIDTH - 110) // (len(stages) + 1) - 6)
    pictures = sheet(
        rows,
        ["images", *(name for name, _, _ in stages)],
        f"{title_of(run)} at λ = {asked.lam:g} through the training",
        side,
        LEGEND,
        range(2, len(rows), 2),
        (1,),
    )
    caption = (
        f"Mixed samples and masks of the same pairs at λ = {asked.lam:g} through the training (Fig. 7). "
        f"Checkpoints are those that the run's folder keeps; the start is built again from the seed."
    )
    content = {**found.about(), "numbers": {"lam": asked.lam, "stages": numbers}}
    parts = [pictures, training_plot(numbers, asked.lam)]
    return write_figure(asked.output, "fig7", caption, content, parts)


def initial(run: Run) -> AutoMix:
    """The method before its first step: its random numbers derive from the run's seed, so it can be built
    again."""
    experiment = load_config(Experiment, values=run.config)
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
        cells = found.pairs.pixels(images)
        rows.append((name, [Cell(cell, found.names(pair)[side]) for pair, cell in enumerate(cells)]))
    return rows


def mask_cells(masks: np.ndarray) -> list[Cell | None]:
    """Masks (n, H, W) in colours, pixel for pixel."""
    return [Cell(mask, exact=True) for mask in shares(masks)]


def of_masks(masks: np.ndarray) -> list[dict[str, float]]:
    """Mean and standard deviation of each mask (n, H, W)."""
    return [{"mean": float(mask.mean()), "std": float(mask.std())} for mask in masks]


def wrapped(text: str, width: int = 14) -> str:
    """``text`` in lines of about ``width`` letters."""
    lines = [""]
    for word in text.replace("_", " ").split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


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
