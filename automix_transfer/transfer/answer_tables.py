"""The answer as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from automix_transfer.compared.escaped import latex_escaped, markdown_escaped
from automix_transfer.io import write_json, write_text
from automix_transfer.shown import clean, csv_text
from automix_transfer.transfer.answer import Row
from automix_transfer.transfer.transfer_settings import TASKS

LOOK = {"ahead": r"\textbf{%s}", "behind": r"\textit{%s}"}  #: of a cell of the table in LaTeX


def write_answer(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Write ``answer.txt``, ``.md``, ``.tex``, ``.csv`` (a line a backbone and figure), ``.json``, and
    ``runs.csv`` (a line a value) into ``folder``; returns the text."""
    text = terminal(rows, about)
    write_text(folder / "answer.txt", text + "\n")
    write_text(folder / "answer.md", markdown(rows, about))
    write_text(folder / "answer.tex", latex(rows, about))
    head = [
        "task",
        "data",
        "figure",
        "better",
        "backbone",
        "seeds",
        "mean",
        "std",
        "difference",
        "low",
        "high",
    ]
    lines: list[list[Any]] = [[*head, "word", "missing"]]
    runs: list[list[Any]] = [["task", "data", "figure", "backbone", "seed", "value"]]
    for row in rows:
        for one in row.scores:
            low, high = one.interval or (None, None)
            numbers = [one.mean, one.std, one.difference, low, high]
            lines.append(
                [row.task, row.data, row.figure, row.better, one.backbone, len(one.values)]
                + ["" if value is None else f"{value:.6g}" for value in numbers]
                + [one.word, one.missing]
            )
            runs += [
                [row.task, row.data, row.figure, one.backbone, "" if seed is None else seed, f"{value:.6g}"]
                for seed, value in one.values.items()
            ]
    write_text(folder / "answer.csv", csv_text(lines))
    write_text(folder / "runs.csv", csv_text(runs))
    write_json(folder / "answer.json", {"about": dict(about), "rows": [row.to_dict() for row in rows]})
    return text


def cells_of(rows: Sequence[Row]) -> list[list[str]]:
    """Head, then a line a figure: each backbone's mean, and its difference to the first."""
    names = [one.backbone for one in rows[0].scores] if rows else []
    head = ["task", "figure", *(names[:1])]
    for name in names[1:]:
        head += [name, f"{name} − {names[0]}"]
    lines = []
    for row in rows:
        line = [f"{TASKS[row.task].title}, {row.data}", row.figure + (" ↓" if row.better == "less" else "")]
        for number, one in enumerate(row.scores):
            line += [one.text(), *([one.gain() or "–"] if number else [])]
        lines.append(line)
    return [head, *lines]


def terminal(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """A block a figure: as many lines as there are backbones, so that it fits a terminal."""
    lines = []
    for row in rows:
        name = f"{TASKS[row.task].title}, {row.data}: {row.figure}"
        for number, one in enumerate(row.scores):
            lines.append((name if number == 0 else "", one.backbone, one.text(), one.gain()))
    table = tabulate(lines, ("", "backbone", "percent", "difference"), "simple", disable_numparse=True)
    return "\n\n".join(filter(None, [table, *notes(rows, about)]))


def markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The table for a README."""
    head, *lines = [list(map(markdown_escaped, line)) for line in cells_of(rows)]
    table = tabulate(lines, head, "github", disable_numparse=True)
    return "\n\n".join(filter(None, [table, *map(markdown_escaped, notes(rows, about))])) + "\n"


def latex(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The table for a paper (booktabs): means, and below them the differences to the first with their 95 %
    intervals; what is ahead is in bold, what is behind in italics."""
    names = [one.backbone for one in rows[0].scores] if rows else []
    lines = [
        *("% " + clean(line) for note in notes(rows, about) for line in note.splitlines()),
        r"\begin{tabular}{ll" + "c" * len(names) + "}",
        r"\toprule",
        " & ".join(["task", "figure", *map(latex_escaped, names)]) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        arrow = r" $\downarrow$" if row.better == "less" else ""
        cells = [latex_escaped(f"{TASKS[row.task].title}, {row.data}"), latex_escaped(row.figure) + arrow]
        shown = [(LOOK.get(one.word, "%s"), one.text(), one.change().replace("-", "−")) for one in row.scores]
        cells += [look % latex_escaped(text) for look, text, _ in shown]
        below = [gain and look % rf"\footnotesize {latex_escaped(gain)}" for look, _, gain in shown]
        lines.append(" & ".join(cells) + r" \\")
        if any(below):
            lines.append(" & ".join(["", "", *below]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def notes(rows: Sequence[Row], about: Mapping[str, Any]) -> list[str]:
    """What the numbers are, what is missing and why, and how the backbones differ."""
    lost = dict.fromkeys(
        f"- {TASKS[row.task].title}, {row.data}, {one.backbone}: {one.missing}"
        for row in rows
        for one in row.scores
        if one.missing
    )
    differences = [f"- {line}" for line in about.get("differences", ())]
    return [
        sentence(about),
        "Missing:\n" + "\n".join(lost) if lost else "",
        "What differs between the backbones besides their weights:\n" + "\n".join(differences)
        if differences
        else "",
    ]


def sentence(about: Mapping[str, Any]) -> str:
    """How to read the table."""
    seeds, reference = about["seeds"], about["backbones"][0]
    return (
        f"Percent; mean ± standard deviation (n - 1) over seeds {', '.join(map(str, seeds))}; differences "
        f"are to '{reference}', seed by seed, with a 95 % interval (t), each on its own."
        if len(seeds) > 1
        else f"Percent; one seed ({seeds[0]}), so a difference to '{reference}' may be the seed's."
    )
