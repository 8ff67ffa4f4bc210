"""A filled table as text for a terminal, Markdown, LaTeX (booktabs), CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from automix_transfer.paper.tables import Filled, Ours, where

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "λ": r"$\lambda$",
    "ℓ": r"$\ell$",
    "α": r"$\alpha$",
    "ε": r"$\epsilon$",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "*": r"$\ast$",
    "–": "--",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
}


def to_text(filled: Filled, width: int = 80) -> str:
    """For a terminal ``width`` columns wide: the paper's columns in as many blocks as that takes."""
    table = filled.table
    names = [*table.row_names, *(["Gain"] if table.gain else [])]
    first = max(map(_width, names))
    columns = [_column(filled, c) for c in range(len(table.digits))]
    parts = [_wrapped(f"{table.title}. {table.caption} [{table.source}]", width)]
    for block in _blocks(columns, max(20, width - first)):
        widths = [columns[c][2] for c in block]
        lines = [
            " " * first + _heads([columns[c][0][line] for c in block], widths)
            for line in range(len(table.heads))
        ]
        if any(len(w) > 1 for w in widths):
            words = [("ours", "paper") if len(columns[c][2]) > 1 else (columns[c][3],) for c in block]
            lines.append(" " * first + _cells(words, widths))
        rule = "-" * max(map(_width, lines))
        body = [
            _left(name, first) + _cells([columns[c][1][r] for c in block], widths)
            for r, name in enumerate(names)
        ]
        gain = [rule, body.pop()] if table.gain else []
        parts.append("\n".join(line.rstrip() for line in [*lines, rule, *body, *gain]))
    return "\n\n".join(parts) + _below(filled, width)


def to_markdown(filled: Filled) -> str:
    """A Markdown table; the best of ours in a column is bold."""
    table = filled.table
    rows = _plain_rows(filled, bold=lambda text: f"**{text}**", mark=lambda n: f"<sup>{n}</sup>")
    head = [""]
    for c in range(len(table.digits)):
        name = _head(filled, c)
        head += [f"{name}, ours", "paper"] if _has(filled, c) and _has_paper(filled, c) else [name]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)]
    notes = [f"{n}. {mark}" for n, mark in enumerate(filled.marks, start=1)]
    parts = [f"**{table.title}.** {table.caption}", "\n".join(lines), "\n".join(notes), *filled.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(filled: Filled) -> str:
    """A table environment with booktabs' rules; needs ``\\usepackage{booktabs}``. The best of ours in a
    column is bold."""
    table = filled.table
    rows = _plain_rows(
        filled, bold=lambda text: f"\\textbf{{{text}}}", mark=lambda n: f"$^{{{n}}}$", escape=latex_escaped
    )
    spans = [2 if _has(filled, c) and _has_paper(filled, c) else 1 for c in range(len(table.digits))]
    heads = []
    for line in table.heads:
        cells = [
            f"\\multicolumn{{{sum(span for _, span in group)}}}{{c}}{{{latex_escaped(name)}}}"
            for name, group in groupby(zip(line, spans, strict=True), key=lambda pair: pair[0])
        ]
        heads.append(" & ".join(["", *cells]) + r" \\")
    if max(spans) > 1:
        heads.append(
            " & ".join(
                ["", *(word for span in spans for word in (("ours", "paper") if span == 2 else ("",)))]
            )
            + r" \\"
        )
    body = [" & ".join(row) + r" \\" for row in rows]
    if table.gain:
        body.insert(-1, r"\midrule")
    notes = [f"$^{{{n}}}$ {latex_escaped(mark)}" for n, mark in enumerate(filled.marks, start=1)]
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{latex_escaped(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{l{'r' * sum(spans)}}}",
        r"\toprule",
        *heads,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(note + r"\\" for note in notes),
        r"\end{table}",
    ]
    return "\n".join([*lines, *(f"% {' '.join(note.split())}" for note in filled.notes)]) + "\n"


def to_csv(filled: Filled) -> str:
    """A line a row; of every column our mean, deviation, trials and marks, and the paper's figure. Marks are
    in words."""
    table, text = filled.table, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = range(len(table.digits))
    writer.writerow(
        [
            "",
            *(
                f"{_head(filled, c)}{part}"
                for c in columns
                for part in (" ours", " std", " trials", " paper", " marks")
            ),
        ]
    )
    for name, cells, ours in zip(table.row_names, table.cells, filled.ours, strict=True):
        row: list[object] = [name]
        for cell, found, digits in zip(cells, ours, table.digits, strict=True):
            row += (
                [f"{found.mean:.4f}", "" if found.std is None else f"{found.std:.4f}", len(found.trials)]
                if found
                else ["", "", ""]
            )
            row += [
                "" if cell.value is None else f"{cell.value:.{digits}f}",
                "; ".join(found.marks) if found else "",
            ]
        writer.writerow(row)
    if table.gain:
        writer.writerow(
            [
                "Gain",
                *(
                    part
                    for gain, printed in zip(filled.gain, filled.paper_gain, strict=True)
                    for part in (_signed(gain, 4), "", "", _signed(printed, 2), "")
                ),
            ]
        )
    return text.getvalue()


def to_json(tables: Sequence[Filled]) -> str:
    """Every figure with the run folder, file, config and commit that it came from."""
    return (
        json.dumps(
            [
                {
                    "table": one.table.name,
                    "title": one.table.title,
                    "caption": one.table.caption,
                    "notes": list(one.notes),
                    "cells": where(one),
                }
                for one in tables
            ],
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


def where_text(filled: Filled) -> str:
    """Of every figure of ours the run folders, seeds and commits."""
    lines = [f"{filled.table.title}, where the figures are from:"]
    for cell in where(filled):
        lines.append(
            f"  {cell['cell']}: {cell['mean']:.2f}"
            + (f" ({'; '.join(cell['marks'])})" if cell["marks"] else "")
        )
        lines += [
            f"    {trial['value']:.2f}  {trial['run']}, seed {_or_unknown(trial['seed'])}, commit "
            f"{_or_unknown(trial['commit'])}"
            for trial in cell["trials"]
        ]
    return "\n".join(lines)


def latex_escaped(text: str) -> str:
    """Text that LaTeX prints as it is; letters that the standard fonts lack become ``?``."""
    found = "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return "".join(letter if ord(letter) < 0x250 else "?" for letter in found)


#: heads, a tuple of texts for each row, widths, sub-head of a lone part
Column = tuple[list[str], list[tuple[str, ...]], list[int], str]


def _column(filled: Filled, c: int) -> Column:
    """A column's texts: ours and the paper's side by side where there are both."""
    table, digits = filled.table, filled.table.digits[c]
    ours, printed = _has(filled, c), _has_paper(filled, c)
    rows = []
    for r, cells in enumerate(table.cells):
        found = filled.ours[r][c]
        parts = [_ours(found, digits, filled)] if ours or not printed else []
        rows.append((*parts, _paper(cells[c].value, digits)) if printed else tuple(parts))
    if table.gain:
        gains = (_signed(filled.gain[c], digits), _signed(filled.paper_gain[c], digits))
        rows.append(gains if ours and printed else gains[1:] if printed else gains[:1])
    widths = [max(_width(row[k]) for row in rows) for k in range(len(rows[0]))]
    if len(widths) > 1:
        widths = [max(w, len(word)) for w, word in zip(widths, ("ours", "paper"), strict=True)]
    heads = [line[c] for line in table.heads]
    widths[0] += max(0, max(map(_width, heads)) - sum(widths) - len(widths) + 1)
    return heads, rows, widths, "paper" if printed else "ours"


def _blocks(columns: Sequence[Column], room: int) -> Iterator[list[int]]:
    block: list[int] = []
    used = 0
    for c, (_, _, widths, _) in enumerate(columns):
        need = 2 + sum(widths) + len(widths) - 1
        if block and used + need > room:
            yield block
            block, used = [], 0
        block.append(c)
        used += need
    yield block


def _heads(names: Sequence[str], widths: Sequence[Sequence[int]]) -> str:
    """One line of heads; neighbours of the same name share it."""
    pieces = []
    for name, group in groupby(zip(names, widths, strict=True), key=lambda pair: pair[0]):
        room = sum(2 + sum(w) + len(w) - 1 for _, w in group) - 2
        spare = room - _width(name)
        pieces.append("  " + " " * (spare - spare // 2) + name + " " * (spare // 2))
    return "".join(pieces)


def _cells(texts: Sequence[Sequence[str]], widths: Sequence[Sequence[int]]) -> str:
    """One line of columns, each of one or two parts."""
    return "".join(
        "  " + " ".join(_right(part, w) for part, w in zip(parts, of_column, strict=True))
        for parts, of_column in zip(texts, widths, strict=True)
    )


def _plain_rows(
    filled: Filled,
    bold: Callable[[str], str],
    mark: Callable[[int], str],
    escape: Callable[[str], str] = lambda text: text,
) -> list[list[str]]:
    """Rows of cells for a format with markup, the gain last."""
    table, rows = filled.table, []
    best = [_best(filled, c) for c in range(len(table.digits))]
    for r, name in enumerate(table.row_names):
        row = [escape(name)]
        for c, digits in enumerate(table.digits):
            found = filled.ours[r][c]
            if _has(filled, c) or not _has_paper(filled, c):
                text = escape(_ours(found, digits))
                number = filled.number(found) if found else None
                row.append(
                    (bold(text) if found and r == best[c] else text) + (mark(number) if number else "")
                )
            if _has_paper(filled, c):
                row.append(escape(_paper(table.cells[r][c].value, digits)))
        rows.append(row)
    if table.gain:
        row = ["Gain"]
        for c, digits in enumerate(table.digits):
            row += [_signed(filled.gain[c], digits)] if _has(filled, c) else []
            row += [_signed(filled.paper_gain[c], digits)]
        rows.append(row)
    return rows


def _best(filled: Filled, c: int) -> int | None:
    """The row of the best of ours in a column; None if fewer than two are there or they were not trained
    alike."""
    found = [(cell.mean, r, cell.marks) for r, row in enumerate(filled.ours) if (cell := row[c]) is not None]
    if len(found) < 2 or len({marks for _, _, marks in found}) > 1:
        return None
    lower = filled.table.cells[0][c].attributes.get("metric") in ("fgsm_error", "params", "hours")
    return (min if lower else max)(found)[1]


def _ours(found: Ours | None, digits: int, filled: Filled | None = None) -> str:
    if found is None:
        return ""
    number = filled.number(found) if filled else None
    text = f"{found.mean:.{digits}f}" + ("" if found.std is None else f"±{found.std:.{digits}f}")
    return text + (str(number).translate(SUPERSCRIPT) if number else "")


def _paper(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:+.{digits}f}"


def _has(filled: Filled, c: int) -> bool:
    return any(row[c] is not None for row in filled.ours)


def _has_paper(filled: Filled, c: int) -> bool:
    return any(row[c].value is not None for row in filled.table.cells)


def _head(filled: Filled, c: int) -> str:
    return " ".join(dict.fromkeys(line[c] for line in filled.table.heads if line[c]))


def _below(filled: Filled, width: int) -> str:
    notes = [f"{str(n).translate(SUPERSCRIPT)} {mark}" for n, mark in enumerate(filled.marks, start=1)]
    lines = [_wrapped(note, width) for note in [*notes, *filled.notes]]
    return "\n\n" + "\n".join(lines) if lines else ""


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and _width(lines[-1]) + 1 + _width(word) > width:
            lines.append("  " + word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip() if len(lines) == 1 else f"{lines[-1]} {word}"
    return "\n".join(lines)


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(letter) else 1 for letter in text)


def _left(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _right(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text


def _or_unknown(value: object) -> object:
    return "unknown" if value is None or value == "" else value
