"""How foreign text is shown: names of files, classes and keys, values of configurations.

Whoever made a file chose them, and a terminal, a spreadsheet and Matplotlib would obey some.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

#: colours of a terminal, which say nothing
COLOURS = re.compile(r"\x1b\[[\d;:]*m")
#: control characters (a terminal's ESC, CSI and OSC among them), those that reorder or split a line, and what
#: bytes that are no UTF-8 have become, of which no font and no encoding knows
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

LONGEST_WORD, LONGEST_LINE = 500, 1500  # characters; paths that people type are shorter
LONGEST_LABEL = 80  # of a name in a table or a figure
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def clean(text: object, most: int = LONGEST_LINE) -> str:
    """``text`` as one line that steers no terminal and keeps its order; controls look like ``\\x07``.

    Its middle is left out where it is longer than ``most``, and that of words of more than `LONGEST_WORD`.
    """
    line = CONTROL.sub(_visible, COLOURS.sub("", str(text)))
    return shortened(_LONG_WORD.sub(lambda word: shortened(word[0], LONGEST_WORD), line), most)


def shortened(text: str, most: int) -> str:
    """``text``, without its middle where it has more than ``most`` characters."""
    start = most * 2 // 3
    return text if len(text) <= most else f"{text[:start]}...{text[len(text) - (most - start) + 3 :]}"


def clean_lines(text: str) -> str:
    """`clean` for a text of several lines, whose ends and tabulators stay."""
    return CONTROL.sub(_visible_inside, COLOURS.sub("", text.replace("\r\n", "\n")))


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """``rows`` as CSV, in which no text is a formula of a spreadsheet: it gets a ``'`` in front."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def from_csv(cell: str) -> str:
    """The text that `csv_text` has written as ``cell``."""
    return cell.removeprefix("'")


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("=", "+", "-", "@", "'")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value  # a number


def _visible(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _visible_inside(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _visible(found)
