"""``summary.json`` as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from automix_transfer.transfer.chain import method_name, missing, percent, pretrained


def chain_table(summary: Mapping[str, Any]) -> str:
    """The pretrainings as plain text, all numbers in percent; then its notes and what it lacks."""
    methods = [
        (method_name(row.method), row.top1, row.gain, row.mixed_top1, row.mixed_top2)
        for row in pretrained(summary)
    ]
    parts = [
        _table("Pretraining", methods, ["method"], ["top-1", "gain", "mixed top-1", "mixed top-2"]),
        "\n".join([*summary.get("notes", ()), *missing(summary)]),
    ]
    return "\n\n".join(filter(None, parts)) or "summary.json holds no numbers"


def _table(title: str, rows: Sequence[Sequence[Any]], texts: list[str], numbers: list[str]) -> str:
    if not rows:
        return ""
    head = [*texts, *numbers]
    cells = [
        [
            cell if name in texts else percent(cell, name == "gain")
            for name, cell in zip(head, row, strict=True)
        ]
        for row in rows
    ]
    align = ["left"] * len(texts) + ["right"] * len(numbers)
    return f"{title} (%)\n" + tabulate(cells, head, "simple", colalign=align, disable_numparse=True)
