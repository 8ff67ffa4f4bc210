"""``summary.json`` as a table for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from automix_transfer.transfer.chain import comparisons, method_name, missing, percent, pretrained

Table = tuple[str, list[str], list[list[str]]]  #: title, head, rows


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """Pretraining and downstream, as text; all numbers in percent."""
    found: list[Table] = []
    methods = pretrained(summary)
    if methods:
        head = ["method", "top-1", "gain", "mixed top-1", "mixed top-2"]
        found.append(
            (
                "Pretraining",
                head,
                [
                    [
                        method_name(row.method),
                        percent(row.top1),
                        _or_blank(row.gain, signed=True),
                        _or_blank(row.mixed_top1),
                        _or_blank(row.mixed_top2),
                    ]
                    for row in methods
                ],
            )
        )
    rows = comparisons(summary)
    if rows:
        head = ["task", "metric", "baseline", "", "AutoMix", "gain"]
        found.append(
            (
                "Downstream",
                head,
                [
                    [
                        row.task,
                        row.metric,
                        row.baseline_name,
                        percent(row.baseline),
                        percent(row.value),
                        percent(row.gain, signed=True),
                    ]
                    for row in rows
                ],
            )
        )
    return found


def chain_table(summary: Mapping[str, Any]) -> str:
    """The chain's numbers as plain text."""
    parts = []
    for title, head, rows in tables(summary):
        widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
        left = _text_columns(head)
        lines = [
            "  ".join(
                row[k].ljust(width) if k in left else row[k].rjust(width) for k, width in enumerate(widths)
            )
            for row in [head, *rows]
        ]
        lines.insert(1, "-" * len(lines[0]))
        parts.append("\n".join([f"{title} (%)", *(line.rstrip() for line in lines)]))
    sentences = notes(summary)
    return (
        "\n\n".join([*parts, *(["\n".join(sentences)] if sentences else [])])
        or "summary.json holds no numbers"
    )


def print_table(summary: Mapping[str, Any]) -> None:
    """`chain_table`, with colour where the terminal has it."""
    if not sys.stdout.isatty():
        print(chain_table(summary))
        return
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    for title, head, rows in tables(summary):
        table = RichTable(title=f"{title} (%)", title_justify="left")
        left = _text_columns(head)
        for k, name in enumerate(head):
            table.add_column(name, justify="left" if k in left else "right")
        gain = head.index("gain")
        for row in rows:
            styles = {"+": "green", "−": "yellow"}
            cells = [
                f"[{styles[cell[0]]}]{cell}[/]" if k == gain and cell[:1] in styles else cell
                for k, cell in enumerate(row)
            ]
            table.add_row(*cells)
        console.print(table)
    for sentence in notes(summary):
        console.print(sentence, markup=False, highlight=False)


def notes(summary: Mapping[str, Any]) -> list[str]:
    """The summary's own notes, and what it lacks."""
    given = summary.get("notes")
    return (
        [*(str(note) for note in given if note), *missing(summary)]
        if isinstance(given, list)
        else missing(summary)
    )


def _or_blank(value: float | None, signed: bool = False) -> str:
    return "" if value is None else percent(value, signed)


def _text_columns(head: Sequence[str]) -> set[int]:
    return {k for k, name in enumerate(head) if name in ("method", "task", "metric", "baseline")}
