"""A table of the paper filled with our figures: mean and deviation over trials, the gain row, and what is
missing.

A cell shows one experiment: trials of the same settings. Of several the one that is most like the paper's is
shown, and the others are named. Figures with marks (fewer epochs, fewer images, other settings) are never
averaged or compared with figures of other marks.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automix_transfer.paper import published as paper
from automix_transfer.paper.measured import Measured, Measurement
from automix_transfer.paper.published import Cell, PaperTable


@dataclass(frozen=True)
class Ours:
    """The figure of a cell: ``std`` (n - 1) is None for a single trial; ``marks`` say how it is not the
    paper's experiment."""

    mean: float
    std: float | None
    trials: tuple[Measurement, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Filled:
    """A table with our figures beside the paper's: ``ours[row][column]``; ``gain`` and ``paper_gain`` by
    column, None where there is none.

    ``marks`` are footnotes, numbered from 1 as the cells refer to them; ``notes`` are sentences below the
    table.
    """

    table: PaperTable
    ours: tuple[tuple[Ours | None, ...], ...]
    gain: tuple[float | None, ...]
    paper_gain: tuple[float | None, ...]
    marks: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Cells that have a figure of ours."""
        return sum(cell is not None for row in self.ours for cell in row)

    def number(self, ours: Ours) -> int | None:
        """The number of a figure's footnote; None where it is the paper's experiment."""
        return self.marks.index(_told(ours.marks)) + 1 if ours.marks else None


def fill(table: PaperTable, measured: Measured) -> Filled:
    """``table`` with every figure that is about one of its cells."""
    by_key: dict[tuple[tuple[str, Any], ...], list[Measurement]] = {}
    for figure in measured.figures:
        by_key.setdefault(paper.key_of(figure.attributes), []).append(figure)
    notes: list[str] = []
    ours = tuple(
        tuple(_choose(cell, table, by_key.get(cell.key, []), notes) for cell in row) for row in table.cells
    )
    marks = tuple(dict.fromkeys(_told(cell.marks) for row in ours for cell in row if cell and cell.marks))
    columns = range(len(table.digits))
    gain = tuple(_gain(table, column, [row[column] for row in ours], notes) for column in columns)
    return Filled(
        table,
        ours,
        gain,
        table.gain or (None,) * len(columns),
        marks,
        tuple(dict.fromkeys([*notes, *_coverage(table, ours)])),
    )


def name_of(cell: Cell, table: PaperTable) -> str:
    """A cell in words, e.g. ``CIFAR-100, R-18, AutoMix``."""
    head = ", ".join(dict.fromkeys(line[cell.column] for line in table.heads if line[cell.column]))
    return f"{head}, {table.row_names[cell.row]}"


def _choose(cell: Cell, table: PaperTable, figures: Sequence[Measurement], notes: list[str]) -> Ours | None:
    """The experiment most like the paper's, then the one with the most trials; the others are noted."""
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for figure in figures:
        groups.setdefault((figure.marks, figure.trial), []).append(figure)
    if not groups:
        return None
    ranked = sorted(groups.values(), key=lambda group: (len(group[0].marks), -len(group)))
    for others in ranked[1:]:
        told = _told(others[0].marks)
        notes.append(
            f"{name_of(cell, table)}: also there, not shown: {_ours(others, notes, cell, table).mean:.2f} "
            f"({told}; {others[0].run}{_and_more(len(others) - 1)})."
        )
    return _ours(ranked[0], notes, cell, table)


def _ours(group: Sequence[Measurement], notes: list[str], cell: Cell, table: PaperTable) -> Ours:
    """Mean and deviation over seeds; of two runs of one seed the later counts."""
    by_seed: dict[Any, Measurement] = {}
    for figure in sorted(group, key=lambda figure: _written(figure)):
        if figure.seed is not None and figure.seed in by_seed:
            notes.append(
                f"{name_of(cell, table)}: seed {figure.seed} ran twice; {figure.run} is later and counts, "
                f"{by_seed[figure.seed].run} does not."
            )
        by_seed[figure.seed if figure.seed is not None else figure.run] = figure
    trials = sorted(
        by_seed.values(), key=lambda figure: (figure.seed is None, figure.seed or 0, str(figure.run))
    )
    values = [figure.value for figure in trials]
    return Ours(
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        tuple(trials),
        group[0].marks,
    )


def _written(figure: Measurement) -> float:
    try:
        return figure.file.stat().st_mtime
    except OSError:
        return 0.0


def _gain(table: PaperTable, column: int, ours: Sequence[Ours | None], notes: list[str]) -> float | None:
    """AutoMix, the table's last row, over the best of the others, where the paper has such a row and all were
    trained alike."""
    if table.gain is None or ours[-1] is None:
        return None
    others = [cell for cell in ours[:-1] if cell is not None]
    alike = [cell for cell in others if cell.marks == ours[-1].marks]
    if len(alike) < len(others):
        notes.append(
            f"Gain, {name_of(table.cells[-1][column], table)}: over those that were trained alike "
            f"({_told(ours[-1].marks)})."
        )
    return ours[-1].mean - max(cell.mean for cell in alike) if alike else None


def _coverage(table: PaperTable, ours: Sequence[Sequence[Ours | None]]) -> list[str]:
    """What is there and what is not, in few words."""
    wanted = [cell for cell in table if cell.value is not None or table.name.startswith("fig")]
    have = [cell for cell in wanted if ours[cell.row][cell.column] is not None]
    trials = sorted({len(found.trials) for row in ours for found in row if found})
    if not have:
        return [
            f"No run of these {len(wanted)} cells is there; `report plan {table.name}` lists what is needed."
        ]
    spread = f"{trials[0]}" if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
    lines = [
        f"{len(have)} of {len(wanted)} cells have runs, of {spread} trial{'s' if trials[-1] > 1 else ''} "
        "each "
        f"(the paper: mean of 3{'' if trials[-1] > 1 else '; no deviation from one'})."
    ]
    missing: dict[tuple[str, ...], list[str]] = {}
    for column in range(len(table.digits)):
        names = tuple(
            table.row_names[cell.row]
            for cell in wanted
            if cell.column == column and ours[cell.row][column] is None
        )
        head = " ".join(dict.fromkeys(line[column] for line in table.heads if line[column]))
        if names:
            whole = len(names) == sum(cell.column == column for cell in wanted)
            missing.setdefault(("all",) if whole else names, []).append(head)
    if missing:
        lines.append(
            "Missing: "
            + "; ".join(f"{', '.join(heads)}: {', '.join(names)}" for names, heads in missing.items())
            + "."
        )
    return lines


def _told(marks: Sequence[str]) -> str:
    return "; ".join(marks) or "as the paper's"


def _and_more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def where(filled: Filled) -> list[dict[str, Any]]:
    """Of every figure of ours: the cell, and each trial's run, file, config, seed, commit and value."""
    table = filled.table
    return [
        {
            "table": table.name,
            **cell.attributes,
            "cell": name_of(cell, table),
            "paper": cell.value,
            "mean": found.mean,
            "std": found.std,
            "marks": list(found.marks),
            "trials": [
                {
                    "value": trial.value,
                    "run": str(trial.run),
                    "file": str(trial.file),
                    "config": str(trial.run / "config.yaml"),
                    "seed": trial.seed,
                    "commit": trial.commit,
                }
                for trial in found.trials
            ],
        }
        for cell in table
        if (found := filled.ours[cell.row][cell.column]) is not None
    ]


def with_runs(measured: Measured) -> list[Filled]:
    """Every table and ablation that has at least one figure, in the paper's order."""
    every: Mapping[str, PaperTable] = {**paper.tables(), **paper.figures()}
    return [filled for table in every.values() if (filled := fill(table, measured)).count]
