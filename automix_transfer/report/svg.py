"""Plots inside the page: matplotlib draws them as SVG, in the page's own colours by day and by night."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from automix_transfer.figures.style import FAINT, INK, STYLE

SLOTS = 8  #: colours of lines in page.css; further lines repeat them, dashed
SIZE = (460 / 72, 270 / 72)  #: inches, so that a unit of the SVG is a pixel of the page
#: colours that are drawn -> what the style sheet calls them
THEME = {INK: "--soft", STYLE["axes.edgecolor"]: "--soft", STYLE["grid.color"]: "--line", FAINT: "--soft"}
THEME |= {f"#0000a{slot}": f"--s{slot}" for slot in range(SLOTS)}
QUIET = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no metadata: a page names no outside address

Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]  #: name -> (x, y)


def line_plot(
    lines: Lines,
    label: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Markup:
    """Lines over common axes, and below them a legend; each line has the colour of its place.

    Args:
        label: what the plot shows, for those who do not see it.
        diagonal: draw the line y = x too.
    """
    own = {"svg.fonttype": "none", "svg.hashsalt": label, "font.size": 13, "axes.labelsize": 13}
    with rc_context(STYLE | own):  # type: ignore[arg-type]  # its keys are literals
        figure = Figure(figsize=SIZE, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.set_xlabel(x_label, parse_math=False)
        axes.set_ylabel(y_label, parse_math=False)
        for place, (x, y) in enumerate(lines.values()):
            [line] = axes.plot(x, y, f"#0000a{place % SLOTS}", ls="-" if place < SLOTS else "--", gid="line")
            line.set_marker("o" if len(x) <= 24 else "")
        for limits, limit in ((x_range, axes.set_xlim), (y_range, axes.set_ylim)):
            if limits:
                limit(limits)
        if diagonal:
            axes.axline((0, 0), slope=1, color=FAINT, linestyle="--", zorder=1)
        for artist in figure.findobj():
            artist.set_clip_on(False)  # a clip path would need an id of its own
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata=QUIET)
    items = Markup("").join(
        Markup('<li class="s{}{}">{}</li>').format(k % SLOTS, " dashed" if k >= SLOTS else "", name)
        for k, name in enumerate(lines)
    )
    return _themed(buffer.getvalue(), label) + Markup('<ul class="legend">{}</ul>').format(items)


def _themed(text: str, label: str) -> Markup:
    """Matplotlib's file as an element of the page: without its head, its ids, its fonts and its colours."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = body.replace('<g id="line">', '<g class="line">').replace("xlink:href", "href")
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", body)
    for drawn, name in THEME.items():
        body = body.replace(drawn, f"var({name})")
    box = re.search(r'viewBox="[^"]*"', body)
    assert box is not None
    head = Markup('<svg class="plot" {} role="img" aria-label="{}">').format(Markup(box[0]), label)
    return head + Markup(body[body.index(">") + 1 :].strip())
