"""The most confused pairs of classes with example images, and the accuracy of each class, from
``confusion.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from automix_transfer.data.images import MOST_SHOWN, lies_in, open_image
from automix_transfer.errors import UserError
from automix_transfer.evaluation.confusion import FILE
from automix_transfer.evaluation.evaluate_run import evaluation_of
from automix_transfer.figures.common import Asked, read_output
from automix_transfer.figures.sheet import Cell, Picture, class_name, drawn, save_parts, sheet, write_figure
from automix_transfer.figures.style import DPI, INK, colour, subplots
from automix_transfer.runs.folder import finite, is_number

SIDE = 104
MOST, MOST_PAIRS = 1_000_000, 100  #: classes, and images of one; pairs that are listed


def confusion(asked: Asked) -> Path:
    """Write the figure; a run's folder without ``confusion.json`` is evaluated first, on its validation
    images.

    Raises:
        UserError: several runs, or a file that is no confusion.json.
    """
    if len(asked.runs) != 1:
        raise UserError(f"figure confusion shows one run, but --runs names {len(asked.runs)}; give one")
    file = evaluation_of(asked.runs[0], asked.data, "clean,calibration,confusion", FILE)
    pairs, classes, content = read_output(file, read_confusion, "confused pairs of classes", "confusion")
    name = asked.labels[0] if asked.labels else file.resolve().parent.name
    pairs = [pair for pair in pairs if pair["examples"] or pair["predicted_examples"]]
    parts = [pairs_sheet(file.parent, pairs[: asked.pairs or 8], name)] if pairs else []
    parts.append(classes_plot(classes, content.get("top1"), content.get("mean_class_top1")))
    if asked.output.with_suffix(".json").name == FILE:  # the run's own file has the numbers
        return save_parts(asked.output, parts)
    caption = (
        "The most confused pairs of classes: images of the one that were taken for the other, the most "
        "confident mistakes first, beside images of the other; and the accuracy of each class."
    )
    numbers = {"runs": [{"folder": str(file.parent), "label": name}], "numbers": content}
    return write_figure(asked.output, "confusion", caption, numbers, parts)


def read_confusion(content: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Pairs with their labels, classes with images, and everything of a ``confusion.json``."""
    classes = [
        {"name": str(row["name"]), "n": int(finite(row["n"], 0, MOST)), "top1": row["top1"]}
        for row in content["per_class"]
    ]
    classes = [{**row, "top1": finite(row["top1"], 0, 100)} for row in classes if row["n"] > 0]
    if not 0 < len(classes) <= MOST:
        raise ValueError("no classes")
    return [read_pair(pair) for pair in content["pairs"][:MOST_PAIRS]], classes, content


def read_pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    """A pair's label, and the names of its pictures."""
    sides = {key: pair.get(key, []) for key in ("examples", "predicted_examples")}
    if not all(isinstance(name, str) for names in sides.values() for name in names):
        raise TypeError("examples are names of files")
    return {"label": label_of(pair)} | {key: list(names) for key, names in sides.items()}


def label_of(pair: Mapping[str, Any]) -> str:
    """The two classes of a pair, and how often the one was taken for the other."""
    true, predicted = (broken(class_name(pair[key])) for key in ("true", "predicted"))
    count, of = (finite(pair[key], 0, MOST) for key in ("count", "of"))
    share = f"{count:.0f} of {of:.0f} ({100 * count / of:.0f} %)"
    return f"{true}\ntaken for\n{predicted}\n{share}"


def pairs_sheet(folder: Path, pairs: Sequence[Mapping[str, Any]], name: str, most: int = 4) -> Picture:
    """A pair in a row: examples that were confused, and of the class that they were taken for."""
    left = min(most, max(len(pair["examples"]) for pair in pairs)) or 1
    rows: list[tuple[str, list[Cell | None]]] = []
    for pair in pairs:
        wrong = [example(folder, file) for file in pair["examples"][:left]]
        right = [example(folder, file) for file in pair["predicted_examples"][:most]]
        rows.append((pair["label"], [*wrong, *[None] * (left - len(wrong)), *right]))
    return sheet(
        rows,
        title=f"Most confused pairs of classes, {name}",
        note="left: images that were confused; right: images of the class "
        "that they were taken for, which were recognised",
        side=SIDE,
        column_breaks=(left,),
    )


def broken(text: str, width: int = 24) -> str:
    """A class's name on one line."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def example(folder: Path, file: str) -> Cell:
    """A small picture as a square; grey where it is not there any more, or lies elsewhere."""
    try:
        if not lies_in(folder, folder / file):
            raise ValueError("a picture of somebody else")
        with open_image(folder / file, MOST_SHOWN) as image:
            return Cell(
                np.asarray(ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC))
            )
    # PIL raises SyntaxError for broken PNGs
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Cell(np.full((SIDE, SIDE, 3), 225, dtype=np.uint8))


@drawn
def classes_plot(classes: Sequence[Mapping[str, Any]], top1: Any, mean: Any, named: int = 15) -> Figure:
    """Accuracy of every class in order, and the weakest by name."""
    ranked = sorted(classes, key=lambda row: (row["top1"], row["name"]))
    weakest = ranked[:named]
    figure, (every, weak) = subplots(1130 / DPI, 1.1 + 0.2 * len(weakest), 2)
    every.plot(
        range(1, len(ranked) + 1),
        [row["top1"] for row in ranked],
        color=colour("automix"),
        linewidth=2,
        drawstyle="steps-mid",
    )
    for value, text, sign in ((top1, "top-1", "-"), (mean, "mean over classes", "--")):
        if is_number(value):
            every.axhline(value, color=INK, linewidth=1, linestyle=sign, label=f"{text}: {value:.2f} %")
    every.set(
        title=f"Top-1 of {len(ranked)} classes, weakest first (%)",
        xlabel="class",
        ylim=(0, 102),
        xlim=(0.5, len(ranked) + 0.5),
    )
    every.legend(fontsize=8, loc="lower right")
    bars = weak.barh(
        range(len(weakest)), [row["top1"] for row in weakest], color=colour("automix"), height=0.6
    )
    weak.set_yticks(
        range(len(weakest)), [broken(class_name(row["name"]), 30) for row in weakest], fontsize=7.5
    )
    weak.set(title="The weakest classes (%)", xlim=(0, 109), ylim=(len(weakest) - 0.4, -0.6))
    weak.set_xticks(range(0, 101, 20))
    weak.grid(axis="y", visible=False)
    texts = [f"{row['top1']:.0f}, {row['n']} images" for row in weakest]
    weak.bar_label(bars, texts, padding=4, fontsize=7)
    return figure
