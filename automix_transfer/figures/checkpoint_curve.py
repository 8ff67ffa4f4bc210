"""How good a detector was after which iteration: a point for each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from automix_transfer.figures.sheet import drawn
from automix_transfer.figures.style import MARKERS, SPARE, Points, subplots


@drawn
def checkpoint_curve(panels: Mapping[str, Mapping[str, Points]]) -> Figure:
    """Title of a panel -> name of a line -> iterations and values."""
    figure, axes = subplots(4.6 * len(panels), 3.4, len(panels))
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for ink, sign, (name, (x, y)) in zip(SPARE, MARKERS, lines.items(), strict=False):
            axis.plot(x, y, color=ink, marker=sign, label=name)
        axis.set(title=title, xlabel="iteration")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return figure


def panels_of(
    rows: Sequence[Mapping[str, float | None]], at: str, titles: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Points]]:
    """Of each title the lines that ``rows`` have values of, by their value of ``at``; no empty panel."""
    found: dict[str, dict[str, Points]] = {}
    for title, keys in titles.items():
        for key in keys:
            pairs = [
                (x, y) for row in rows if (x := row.get(at)) is not None and (y := row.get(key)) is not None
            ]
            if pairs:
                found.setdefault(title, {})[key] = [x for x, _ in pairs], [y for _, y in pairs]
    return found
