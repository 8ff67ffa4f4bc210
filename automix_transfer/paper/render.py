"""A filled table as text for a terminal, Markdown, LaTeX (booktabs), CSV or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from automix_transfer.compared.escaped import latex_escaped
from automix_transfer.paper.published import LOWER_IS_BETTER
from automix_transfer.paper.tables import Filled, Ours, where
from automix_transfer.shown import csv_text

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def to_text(filled: Filled, width: int = 80) -> str:
    """For a terminal ``width`` columns wide: the paper's columns in as many blocks as that takes."""
    table = filled.table
    rows = _rows(filled, mark=lambda n: str(n).translate(SUPERSCRIPT))
    parts = ["\n".join(_wrapped(f"{table.title}. {table.caption} [{table.source}]", width))]
    for block in _blocks(filled, rows, width):
        lines: list[Any] = [[name, *(text for c in block for text in row[c])] for name, row in rows]
        if table.gain:
            lines.insert(-1, SEPARATING_LINE)
        heads = [
            ["", *(text for c in block for text in _head_cells(filled, c, line))] for line in table.heads
        ]
        words = ["", *(word for c in block for word in _subhead(filled, c))]
        lines = [*heads, *([words] if any(words) else []), SEPARATING_LINE, *lines]
        align = ["left", *["right"] * (len(words) - 1)]
        parts.append(tabulate(lines, (), "simple", colalign=align, disable_numparse=True))
    notes = [f"{str(n).translate(SUPERSCRIPT)} {mark}" for n, mark in enumerate(filled.marks, start=1)]
    below = [line for note in [*notes, *filled.notes] for line in _wrapped(note, width)]
    return "\n\n".join([*parts, *(["\n".join(below)] if below else [])])


def _blocks(filled: Filled, rows: Sequence[Row], width: int) -> Iterator[list[int]]:
    """Columns of the paper that fit side by side into ``width``."""
    first = max(len(name) for name, _ in rows)
    block: list[int] = []
    used = first
    for c in range(len(filled.table.digits)):
        lines = [*(_head_cells(filled, c, line) for line in filled.table.heads), _subhead(filled, c)]
        lines += [row[c] for _, row in rows]
        need = sum(2 + max(map(len, cells)) for cells in zip(*lines, strict=True))
        if block and used + need > width:
            yield block
            block, used = [], first
        block.append(c)
        used += need
    yield block


def _head_cells(filled: Filled, c: int, line: Sequence[str]) -> list[str]:
    """A line of a column's head over its one or two parts."""
    return [line[c], ""] if all(_words(filled, c)) else [line[c]]


def _subhead(filled: Filled, c: int) -> list[str]:
    """``ours`` and ``paper`` over a column that has both."""
    words = _words(filled, c)
    return list(words) if all(words) else [""]


def to_markdown(filled: Filled) -> str:
    """A Markdown table; the best of ours in a column is bold."""
    table = filled.table
    rows = _rows(filled, bold=lambda text: f"**{text}**", mark=lambda n: f"<sup>{n}</sup>")
    head = [""]
    for c in range(len(table.digits)):
        head += [f"{_head(filled, c)}, ours", "paper"] if all(_words(filled, c)) else [_head(filled, c)]
    body = [[name, *(text for column in row for text in column)] for name, row in rows]
    align = ["left", *["right"] * (len(head) - 1)]
    grid = tabulate(body, head, "github", colalign=align, disable_numparse=True)
    notes = [f"{n}. {mark}" for n, mark in enumerate(filled.marks, start=1)]
    parts = [f"**{table.title}.** {table.caption}", grid, "\n".join(notes), *filled.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(filled: Filled) -> str:
    """A table environment with booktabs' rules (``\\usepackage{booktabs}``); the best of ours are bold."""
    table = filled.table
    rows = _rows(
        filled, bold=lambda text: f"\\textbf{{{text}}}", mark=lambda n: f"$^{{{n}}}$", escape=latex_escaped
    )
    spans = [len(column) for column in rows[0][1]]
    lines = []
    for line in table.heads:
        cells = [
            f"\\multicolumn{{{sum(span for _, span in group)}}}{{c}}{{{latex_escaped(name)}}}"
            for name, group in groupby(zip(line, spans, strict=True), key=lambda pair: pair[0])
        ]
        lines.append(" & ".join(["", *cells]) + r" \\")
    if max(spans) > 1:
        words = [
            word if span > 1 else "" for c, span in enumerate(spans) for word in _words(filled, c)[:span]
        ]
        lines.append(" & ".join(["", *words]) + r" \\")
    body = [" & ".join([name, *(text for column in row for text in column)]) + r" \\" for name, row in rows]
    if table.gain:
        body.insert(-1, r"\midrule")
    notes = [f"$^{{{n}}}$ {latex_escaped(mark)}" for n, mark in enumerate(filled.marks, start=1)]
    return (
        "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                f"\\caption{{{latex_escaped(table.caption)}}}",
                f"\\label{{tab:{table.name}}}",
                f"\\begin{{tabular}}{{l{'r' * sum(spans)}}}",
                r"\toprule",
                *lines,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                *(note + r"\\" for note in notes),
                r"\end{table}",
                *(f"% {' '.join(note.split())}" for note in filled.notes),
            ]
        )
        + "\n"
    )


def to_csv(filled: Filled) -> str:
    """A line a row; of every column our mean, deviation, trials and marks, and the paper's figure."""
    table = filled.table
    parts = ("ours", "std", "trials", "paper", "marks")
    columns = range(len(table.digits))
    lines: list[list[object]] = [["", *(f"{_head(filled, c)} {part}" for c in columns for part in parts)]]
    for name, cells, ours in zip(table.row_names, table.cells, filled.ours, strict=True):
        row: list[object] = [name]
        for cell, found, digits in zip(cells, ours, table.digits, strict=True):
            printed = "" if cell.value is None else f"{cell.value:.{digits}f}"
            if found is None:
                row += ["", "", "", printed, ""]
            else:
                std = "" if found.std is None else f"{found.std:.4f}"
                row += [f"{found.mean:.4f}", std, len(found.trials), printed, "; ".join(found.marks)]
        lines.append(row)
    if table.gain:
        row = ["Gain"]
        for gain, theirs in zip(filled.gain, filled.paper_gain, strict=True):
            row += [_signed(gain, 4), "", "", _signed(theirs, 2), ""]
        lines.append(row)
    return csv_text(lines)


def to_json(tables: Sequence[Filled]) -> str:
    """Every figure with the run folder, file, config and commit that it came from."""
    content = [
        {
            "table": one.table.name,
            "title": one.table.title,
            "caption": one.table.caption,
            "notes": list(one.notes),
            "cells": where(one),
        }
        for one in tables
    ]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def where_text(filled: Filled) -> str:
    """Of every figure of ours the run folders, seeds and commits."""
    lines = [f"{filled.table.title}, where the figures are from:"]
    for cell in where(filled):
        marks = f" ({'; '.join(cell['marks'])})" if cell["marks"] else ""
        lines.append(f"  {cell['cell']}: {cell['mean']:.2f}{marks}")
        for trial in cell["trials"]:
            seed = "unknown" if trial["seed"] is None else trial["seed"]
            commit = trial["commit"] or "unknown"
            lines.append(f"    {trial['value']:.2f}  {trial['run']}, seed {seed}, commit {commit}")
    return "\n".join(lines)


#: a row's name, and for each of the paper's columns one text or two: ours and the paper's
Row = tuple[str, list[list[str]]]


def _same(text: str) -> str:
    return text


def _rows(
    filled: Filled,
    mark: Callable[[int], str],
    bold: Callable[[str], str] = _same,
    escape: Callable[[str], str] = _same,
) -> list[Row]:
    """The rows of a table, the gain last; ``mark`` writes a footnote's number."""
    table, rows = filled.table, []
    columns = range(len(table.digits))
    shown = [[bool(word) for word in _words(filled, c)] for c in columns]
    best = [_best(filled, c) for c in columns]
    for r, name in enumerate(table.row_names):
        row = []
        for c, digits in enumerate(table.digits):
            found, value = filled.ours[r][c], table.cells[r][c].value
            text = escape(_ours(found, digits))
            text = bold(text) if found and r == best[c] else text
            number = filled.number(found) if found else None
            both = [text + (mark(number) if number else ""), "-" if value is None else f"{value:.{digits}f}"]
            row.append([part for part, wanted in zip(both, shown[c], strict=True) if wanted])
        rows.append((escape(name), row))
    if table.gain:
        gains = [
            [_signed(filled.gain[c], digits), _signed(filled.paper_gain[c], digits)]
            for c, digits in enumerate(table.digits)
        ]
        rows.append(("Gain", [[p for p, w in zip(gains[c], shown[c], strict=True) if w] for c in columns]))
    return rows


def _words(filled: Filled, c: int) -> tuple[str, str]:
    """What a column has: ``ours``, ``paper`` or both; the other is empty."""
    printed = any(row[c].value is not None for row in filled.table.cells)
    ours = any(row[c] is not None for row in filled.ours)
    return "ours" if ours or not printed else "", "paper" if printed else ""


def _best(filled: Filled, c: int) -> int | None:
    """The row of the best of ours in a column; None if fewer than two are there or they were not trained
    alike."""
    found = [(cell.mean, r, cell.marks) for r, row in enumerate(filled.ours) if (cell := row[c]) is not None]
    if len(found) < 2 or len({marks for _, _, marks in found}) > 1:
        return None
    lower = filled.table.cells[0][c].attributes.get("metric") in LOWER_IS_BETTER
    return (min if lower else max)(found)[1]


def _ours(found: Ours | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.mean:.{digits}f}" + ("" if found.std is None else f"±{found.std:.{digits}f}")


def _signed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:+.{digits}f}"


def _head(filled: Filled, c: int) -> str:
    return " ".join(dict.fromkeys(line[c] for line in filled.table.heads if line[c]))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
