"""One look for every figure: a white card (legible on a dark page too), colours that colour-blind people can
tell apart, direct labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from automix_transfer.mixing import METHODS
from automix_transfer.shown import LONGEST_LABEL, clean

Points = tuple[Sequence[float], Sequence[float]]  #: x and y of a line
INK, FAINT = "#1f2933", "#c9d1d9"
#: Okabe and Ito's palette; a method has the same colour and marker in every figure
COLOURS = {"vanilla": "#56606b", "mixup": "#e69f00", "cutmix": "#009e73", "automix": "#0072b2"}
SPARE = ("#d55e00", "#cc79a7", "#56b4e9", "#a6761d", "#6a3d9a", "#1b9e77")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NAMES = {name: entry.title for name, entry in METHODS.items()}
DPI = 144
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a name with two $ is no formula
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8b96a1",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e8ec",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colour(name: str, position: int = 0) -> str:
    """The colour of a method, or the ``position``-th spare one."""
    return COLOURS.get(name, SPARE[position % len(SPARE)])


def marker(name: str, position: int = 0) -> str:
    """The marker of a method; it tells lines apart without colour."""
    order = list(COLOURS)
    return MARKERS[(order.index(name) if name in order else len(order) + position) % len(MARKERS)]


def shown(name: str) -> str:
    """A method's name for people."""
    return NAMES.get(name, name.replace("_", " "))


def label_title(label: str) -> str:
    """A label for people: a method's own spelling. Matplotlib leaves out of a legend what begins with _."""
    return shown(label) if label in NAMES else re.sub("^_", " _", clean(label, LONGEST_LABEL))


def draw_lines(
    axis: Axes, lines: Mapping[str, Points], markersize: float = 5, linewidth: float = 1.8
) -> None:
    """Draw lines (label -> x, y), each with its method's colour and marker, and named for the legend."""
    for position, (label, (x, y)) in enumerate(lines.items()):
        axis.plot(
            x,
            y,
            color=colour(label, position),
            marker=marker(label, position),
            markersize=markersize,
            linewidth=linewidth,
            label=label_title(label),
        )


def subplots(width: float, height: float, columns: int = 1, lines: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` × ``height`` inches, and its axes line by line."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, list(figure.subplots(lines, columns, squeeze=False).flat)
