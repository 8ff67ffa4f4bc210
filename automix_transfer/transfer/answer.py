"""Who is ahead: every figure of every cell, means over seeds, and paired differences to the reference."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automix_transfer.compared.paired import difference
from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.runs.folder import is_number
from automix_transfer.transfer.transfer_plan import Cell
from automix_transfer.transfer.transfer_settings import TASKS


@dataclass(frozen=True)
class Score:
    """One backbone on one figure.

    Attributes:
        values: seed -> percent; the seed None is a measurement in which nothing is drawn.
        mean, std: over the seeds; std (n - 1) is None for one value.
        difference: the mean of value - reference, seed by seed; None for the reference, or without a pair.
        interval: its 95 % interval, ± t(0.975, n-1)·s/√n; None with fewer than two pairs.
        word: ahead, behind, not to be told apart, or what keeps from saying so.
        missing: why the cell has no value, where it has none or fewer than there are seeds.
    """

    backbone: str
    values: dict[int | None, float]
    mean: float | None
    std: float | None
    difference: float | None
    interval: tuple[float, float] | None
    word: str
    missing: str = ""

    def text(self) -> str:
        """``71.24 ± 0.31``."""
        if self.mean is None:
            return "–"
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")

    def change(self) -> str:
        """``+1.20 [+0.85, +1.55]``; empty without a difference."""
        low_high = f" [{self.interval[0]:+.2f}, {self.interval[1]:+.2f}]" if self.interval else ""
        return "" if self.difference is None else f"{self.difference:+.2f}{low_high}"

    def gain(self) -> str:
        """``+1.20 [+0.85, +1.55] ahead``; without a difference the word alone."""
        return f"{self.change()} {self.word}".strip()


@dataclass(frozen=True)
class Row:
    """One figure of one task on one data set, for all backbones; the first is the reference."""

    task: str
    data: str
    figure: str
    better: str
    scores: tuple[Score, ...]

    def to_dict(self) -> dict[str, Any]:
        """Primitive types, for JSON."""
        content = asdict(self)
        for score in content["scores"]:
            score["values"] = {
                "fixed" if seed is None else str(seed): v for seed, v in score["values"].items()
            }
        return content


def answer(cells: Sequence[Cell], backbones: Sequence[str], failures: Mapping[str, str]) -> list[Row]:
    """Every figure, in the order of tasks and data; what is not there has its reason.

    Args:
        backbones: the reference first.
        failures: job -> why it has no result.

    Raises:
        UserError: a result that cannot be read.
    """
    rows: list[Row] = []
    contents = {cell.result: read_json(cell.result) for cell in cells if cell.result.is_file()}
    order = list(dict.fromkeys((cell.task, cell.data) for cell in cells))
    for task, data in sorted(order, key=lambda pair: list(TASKS).index(pair[0])):
        mine = [cell for cell in cells if (cell.task, cell.data) == (task, data)]
        for figure, path, more in TASKS[task].figures:
            values: dict[str, dict[int | None, float]] = {name: {} for name in backbones}
            for cell in mine:
                value = value_at(contents.get(cell.result), path, cell.result)
                # of a job that cannot be done, a result is one of other settings
                if cell.job not in failures and value is not None:
                    values[cell.backbone][cell.seed] = value
            reasons = {name: missing(mine, name, failures, values[name], figure) for name in backbones}
            scores = tuple(
                score(name, values[name], values[backbones[0]] if number else None, more, reasons[name])
                for number, name in enumerate(backbones)
            )
            if any(one.values or one.missing for one in scores):
                rows.append(Row(task, data, figure, "more" if more else "less", scores))
    return rows


def value_at(content: Any, path: Sequence[str], file: Path) -> float | None:
    """The number at ``path``; a table of numbers counts as its mean (corruptions, over their severities)."""
    if content is None:
        return None
    for key in path:
        if not isinstance(content, Mapping):
            raise UserError(f"{file} is no result of this command; remove it to measure again")
        content = content.get(key)
    if isinstance(content, Mapping):
        if not all(isinstance(row, list) and all(map(is_number, row)) for row in content.values()):
            raise UserError(f"{file}: '{'.'.join(path)}' is no table of numbers; remove it to measure again")
        rows = [statistics.fmean(row) for row in content.values() if row]
        return statistics.fmean(rows) if rows else None
    if is_number(content) and not 0 <= content <= 100.001:  # of rounding
        raise UserError(f"{file}: '{'.'.join(path)}' is no percentage; remove it to measure again")
    return float(content) if is_number(content) else None


def missing(
    cells: Sequence[Cell],
    backbone: str,
    failures: Mapping[str, str],
    values: Mapping[int | None, float],
    figure: str,
) -> str:
    """Why cells of a backbone have no value; each reason once."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.backbone == backbone and cell.seed not in values:
            reason = failures.get(cell.job)
            if reason is None and cell.result.is_file():
                reason = f"{cell.result.name} has no {figure}"
            seeds = reasons.setdefault(reason or "not measured yet", [])
            seeds += [] if cell.seed is None else [str(cell.seed)]
    return "; ".join(
        f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {reason}" if seeds else reason
        for reason, seeds in reasons.items()
    )


def score(
    name: str,
    values: dict[int | None, float],
    reference: dict[int | None, float] | None,
    more: bool = True,
    reason: str = "",
) -> Score:
    """``values`` beside the reference's (None: it is the reference)."""
    known = list(values.values())
    mean = statistics.fmean(known) if known else None
    std = statistics.stdev(known) if len(known) > 1 else None
    if reference is None or not known or not reference:
        return Score(name, values, mean, std, None, None, "reference" if reference is None else "", reason)
    differences = paired(values, reference)
    if not differences:
        return Score(name, values, mean, std, None, None, "no seed in common", reason)
    found = difference(differences, more)
    return Score(name, values, mean, std, found.mean, found.interval, found.word, reason)


def paired(values: Mapping[int | None, float], reference: Mapping[int | None, float]) -> list[float]:
    """value - reference of each seed that both have; a fixed measurement stands beside every seed."""
    if None in values and None in reference:
        return [values[None] - reference[None]]
    if None in values:
        return [values[None] - value for value in reference.values()]
    if None in reference:
        return [value - reference[None] for value in values.values()]
    return [values[seed] - reference[seed] for seed in values if seed in reference]
