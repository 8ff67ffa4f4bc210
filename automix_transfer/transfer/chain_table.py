"""``summary.json`` as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from automix_transfer.transfer.chain import comparisons, method_name, missing, percent, pretrained


def chain_table(summary: Mapping[str, Any]) -> str:
    """Pretraining and downstream as plain text, all numbers in percent; then its notes and what it lacks."""
    parts = []
    methods = [
        [
            method_name(row.method),
            percent(row.top1),
            "" if row.gain is None else percent(row.gain, signed=True),
            *("" if value is None else percent(value) for value in (row.mixed_top1, row.mixed_top2)),
        ]
        for row in pretrained(summary)
    ]
    if methods:
        parts.append(
            _table("Pretraining", methods, ["method"], ["top-1", "gain", "mixed top-1", "mixed top-2"])
        )
    tasks = [
        [
            row.task,
            row.metric,
            row.baseline_name,
            percent(row.baseline),
            percent(row.value),
            percent(row.gain, signed=True),
        ]
        for row in comparisons(summary)
    ]
    if tasks:
        parts.append(_table("Downstream", tasks, ["task", "metric", "baseline"], ["", "AutoMix", "gain"]))
    given = summary.get("notes")
    notes = [str(note) for note in given if note] if isinstance(given, list) else []
    sentences = "\n".join([*notes, *missing(summary)])
    return "\n\n".join(filter(None, [*parts, sentences])) or "summary.json holds no numbers"


def _table(title: str, rows: list[list[str]], texts: list[str], numbers: list[str]) -> str:
    align = [*["left"] * len(texts), *["right"] * len(numbers)]
    return f"{title} (%)\n" + tabulate(
        rows, [*texts, *numbers], "simple", colalign=align, disable_numparse=True
    )
