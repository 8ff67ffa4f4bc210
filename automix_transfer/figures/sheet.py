"""What the figures of pictures share: sheets of labelled cells, several parts in one file, and the numbers
beside them as JSON."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from automix_transfer.figures.style import DPI, INK, STYLE
from automix_transfer.io import atomic_write, write_json
from automix_transfer.shown import LONGEST_LABEL, clean

P = ParamSpec("P")
Picture = NDArray[np.uint8]  #: (H, W, 3)
RIGHT, WRONG = "#0072b2", "#b5460f"  #: told apart by colour-blind eyes, and always beside a mark
GAP, MARGIN, LINE = 6, 12, 19  #: pixels: between cells, around a part, of a line of text
WIDTH = 1150  #: of a part, pixels: about what a page shows without shrinking the text


@dataclass(frozen=True)
class Cell:
    """A picture with one line below it; ``exact`` keeps its pixels as squares, for masks."""

    image: Picture
    text: str = ""
    ink: str = INK
    exact: bool = False


def drawn(draw: Callable[P, Figure]) -> Callable[P, Picture]:
    """A decorator: what ``draw`` makes under the house style, as pixels."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with rc_context(STYLE):  # type: ignore[arg-type]  # its keys are literals
            canvas = FigureCanvasAgg(draw(*args, **kwargs))
            canvas.draw()
            return np.array(np.asarray(canvas.buffer_rgba())[..., :3])

    return inside


@drawn
def sheet(
    rows: Sequence[tuple[str, Sequence[Cell | None]]],
    columns: Sequence[str] = (),
    title: str = "",
    side: int = 112,
    note: str = "",
    breaks: Sequence[int] = (),
    column_breaks: Sequence[int] = (),
) -> Figure:
    """Rows of cells with their names at the left and ``columns`` above; None leaves a place empty.

    Args:
        title: above all; ``note``: a smaller line below it.
        side: of a cell's height in pixels; its width keeps the picture's shape.
        breaks, column_breaks: rows and columns that begin a new group, set apart from what is before.
    """
    first = next(cell for _, cells in rows for cell in cells if cell is not None).image
    wide, count = max(1, round(side * first.shape[1] / first.shape[0])), max(len(cells) for _, cells in rows)
    texts = [any(cell is not None and cell.text for cell in cells) for _, cells in rows]
    left = MARGIN + max((9 * max(map(len, name.split("\n"))) + 14 for name, _ in rows if name), default=0)
    top = MARGIN + (LINE + 10 if title else 0) + (LINE + 2 if note else 0) + (LINE + 2 if any(columns) else 0)
    tops, lefts, x, y = [], [], left, top
    for number, with_text in enumerate(texts):
        y += 2 * GAP if number in breaks else 0
        tops.append(y)
        y += side + GAP + (LINE - 2 if with_text else 0)
    for number in range(count):
        x += 3 * GAP if number in column_breaks else 0
        lefts.append(x)
        x += wide + GAP
    width, height = x - GAP + MARGIN, y - GAP + MARGIN
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    for (_, cells), at in zip(rows, tops, strict=True):
        for column, cell in enumerate(cells):
            if cell is not None:
                how = Image.Resampling.NEAREST if cell.exact else Image.Resampling.BICUBIC
                page[at : at + side, lefts[column] : lefts[column] + wide] = np.asarray(
                    Image.fromarray(cell.image).resize((wide, side), how)
                )
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(page, interpolation="nearest", aspect="auto")
    axes.axis("off")
    write = partial(axes.text, va="center", fontsize=8)
    write(MARGIN, MARGIN + 6, title, fontsize=9.5, fontweight="bold")
    write(MARGIN, MARGIN + LINE + 13, note)
    for place, name in zip(lefts, columns, strict=True) if columns else ():
        write(place + wide / 2, top - 9, name, ha="center")
    for (name, cells), at in zip(rows, tops, strict=True):
        write(left - 8, at + side / 2, name, ha="right", linespacing=1.25)
        for place, cell in zip(lefts, cells, strict=False):
            if cell is not None and cell.text:
                text = fitted(cell.text, wide)
                write(place + wide / 2, at + side + 9, text, ha="center", fontsize=7, color=cell.ink)
    return figure


def fitted(text: str, pixels: int) -> str:
    """``text`` cut to about ``pixels`` at the size of a cell's line."""
    most = max(4, int(pixels / 7.5))
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def class_name(name: str) -> str:
    """A class folder's name for people: ``013.Bobolink_bird`` is Bobolink bird."""
    return re.sub(r"^\d+[._-]", "", clean(name, LONGEST_LABEL)).replace("_", " ")


def save_parts(path: Path, parts: Sequence[Picture]) -> Path:
    """Write pictures below each other on white as one PNG, atomically."""
    width = max(part.shape[1] for part in parts)
    padded = [
        np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in parts
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(padded)).save(buffer, format="PNG", optimize=True)
    atomic_write(path, lambda file: file.write(buffer.getvalue()))
    return path


def write_figure(
    path: Path, figure: str, caption: str, numbers: dict[str, Any], parts: Sequence[Picture]
) -> Path:
    """Write the picture, and beside it as JSON everything that it was plotted from."""
    write_json(path.with_suffix(".json"), {"figure": figure, "caption": caption, **numbers})
    return save_parts(path, parts)
