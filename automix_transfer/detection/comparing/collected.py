"""Table 7's form from finished runs: AP, AP50 and AP75 of each backbone, mean ± std over seeds, and the gain
over the first row."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automix_transfer.compared.escaped import markdown_escaped
from automix_transfer.compared.paired import Difference, difference
from automix_transfer.data.detection.annotation_checks import as_number, shown
from automix_transfer.detection.comparing.compare import Plan
from automix_transfer.detection.scores.results import HEADLINE, RULES, aligned, csv_cell
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json, write_text
from automix_transfer.shown import csv_text

#: of ``results.json``, what the table says of all its rows
ABOUT: dict[str, type] = {
    "detector": str,
    "data": str,
    "rule": str,
    "iterations": int,
    "batch": int,
    "images": dict,
}

PARTS = ("", "_std", "_gain", "_gain_std", "_gain_low", "_gain_high")  #: columns of a figure in the CSV


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; None for a single value) over ``n`` seeds, in percent or points."""

    mean: float
    std: float | None
    n: int

    def text(self) -> str:
        """``20.40 ± 1.42``."""
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")


@dataclass(frozen=True)
class Result:
    """A row of the table: its runs (seed -> figure -> percent or None), and what they come to.

    ``gains`` are over the first row and paired: the difference of the two runs of each seed, which see the
    same images in the same order.
    """

    name: str
    folder: str
    weights: str
    runs: dict[int, dict[str, float | None]]
    means: dict[str, Spread | None]
    gains: dict[str, Difference | None]


@dataclass(frozen=True)
class Comparison:
    """The table, what it is a table of (``about``), and each run's own ``results.json``."""

    rows: list[Result]
    about: dict[str, Any]

    def cells(self) -> list[list[str]]:
        """Head and rows as text."""
        head = ["method", *(part for key in HEADLINE for part in (key, "gain"))]
        rows = [
            [row.name, *(part for key in HEADLINE for part in (_text(row.means[key]), _gain(row.gains[key])))]
            for row in self.rows
        ]
        return [head, *rows]

    def text(self) -> str:
        """For the terminal."""
        head, *rows = self.cells()
        return f"{aligned(head, rows)}\n{self.sentence()}"

    def markdown(self) -> str:
        """The same for a README."""
        head, *rows = [list(map(markdown_escaped, row)) for row in self.cells()]
        return f"{aligned(head, rows, 'github')}\n\n{self.sentence()}\n"

    def sentence(self) -> str:
        """What the figures are."""
        about, seeds, first = self.about, self.about["seeds"], self.rows[0].name
        how = (
            f"mean ± standard deviation (n - 1) over seeds {', '.join(map(str, seeds))}; gain over "
            f"'{first}', seed by seed, with its 95 % interval (t)"
            if len(seeds) > 1
            else f"one run each (seed {seeds[0]}), so a difference may be the seed's; gain over '{first}'"
        )
        stopped = about.get("stopped_early")
        until = f" (SOLVER.PATIENCE ended {len(stopped)} of the runs earlier)" if stopped else ""
        return (
            f"{about['detector']}, {about['iterations']} iterations{until} of batch {about['batch']}, on "
            f"{about['data']} ({about['rule']}); percent; {how}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "about": self.about,
            "rows": [
                {
                    "name": row.name,
                    "folder": row.folder,
                    "weights": row.weights or None,
                    **{key: _spread(row.means[key]) for key in HEADLINE},
                    "gain": {key: gain and asdict(gain) for key, gain in row.gains.items()},
                    "runs": {str(seed): figures for seed, figures in row.runs.items()},
                }
                for row in self.rows
            ],
        }

    def write(self, folder: Path) -> None:
        """Write ``comparison.txt``, ``.md``, ``.json``, ``.csv`` (rows), and every figure to ``runs.csv``."""
        write_text(folder / "comparison.txt", self.text() + "\n")
        write_text(folder / "comparison.md", self.markdown())
        columns = [f"{key}{part}" for key in HEADLINE for part in PARTS]
        rows: list[list[Any]] = [["method", "weights", "seeds", *columns]]
        for row in self.rows:
            values: list[float | None] = []
            for key in HEADLINE:
                mean, gain = row.means[key], row.gains[key]
                values += (mean.mean, mean.std) if mean else (None, None)
                values += (gain.mean, gain.std, *(gain.interval or (None, None))) if gain else (None,) * 4
            rows.append([row.name, row.weights or "random", len(row.runs), *map(csv_cell, values)])
        write_text(folder / "comparison.csv", csv_text(rows))
        keys = dict.fromkeys(key for row in self.rows for figures in row.runs.values() for key in figures)
        runs = [
            [row.name, seed, *(csv_cell(figures.get(key)) for key in keys)]
            for row in self.rows
            for seed, figures in row.runs.items()
        ]
        write_text(folder / "runs.csv", csv_text([["method", "seed", *keys], *runs]))
        write_json(folder / "comparison.json", self.to_dict())


def collect(plan: Plan, differences: Sequence[str] = ()) -> Comparison:
    """Read every run's ``results.json`` of a finished comparison."""
    found = {
        row: {seed: read_json(plan.folder(row, seed) / "results.json") for seed in plan.seeds}
        for row in plan.rows
    }
    runs = {
        row: {seed: _figures(results, plan.folder(row, seed)) for seed, results in of_row.items()}
        for row, of_row in found.items()
    }
    first = runs[plan.rows[0]]
    rows = []
    for number, row in enumerate(plan.rows):
        means = {key: spread_of([figures[key] for figures in runs[row].values()]) for key in HEADLINE}
        gains = {
            key: None
            if number == 0
            else _difference([(runs[row][seed][key], first[seed][key]) for seed in plan.seeds])
            for key in HEADLINE
        }
        rows.append(Result(row.name, row.folder, row.weights, runs[row], means, gains))
    one = found[plan.rows[0]][plan.seeds[0]]
    ended = {
        f"{row.name} seed {seed}": results["stopped_early"]
        for row, of_row in found.items()
        for seed, results in of_row.items()
        if results.get("stopped_early")
    }
    limits = [one["iterations"], *(stop["max_iter"] for stop in ended.values())]
    about = {
        **{key: one[key] for key in ABOUT if key != "images"},
        "seeds": list(plan.seeds),
        "iterations": max(limits),
        "stopped_early": {name: stop["iteration"] for name, stop in ended.items()},
        "images": one["images"].get(one["data"]),
        "config_file": str(plan.config_file),
        "overrides": list(plan.overrides),
        "data_root": str(plan.data_root) if plan.data_root else None,
        "num_gpus": plan.num_gpus,
        "loaded": {row.name: found[row][plan.seeds[0]].get("loaded") for row in plan.rows},
        "config_differences": list(differences),
    }
    return Comparison(rows, about)


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """None where a value is missing: a mean over fewer seeds than it says would mislead."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def _figures(results: Any, folder: Path) -> dict[str, float | None]:
    """The headline, then every other figure of the first test set (by rule, where it has several).

    Raises:
        UserError: ``results.json`` in ``folder`` was written by nothing of ours, or edited.
    """
    try:
        figures = {key: _percent(results[key]) for key in HEADLINE}
        for task, values in results["metrics"].get(results["data"], {}).items():
            figures |= {
                key if task == "bbox" else f"{key}, {RULES.get(task, task)}": _percent(value)
                for key, value in values.items()
            }
        for key, kind in ABOUT.items():
            if not isinstance(results[key], kind):
                raise TypeError(f"{key} is of another type")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / 'results.json'} is no result of automix-transfer detect ({type(error).__name__}: "
            f"{error}); remove that folder to run it again"
        ) from error
    return figures


def _percent(value: Any) -> float | None:
    number = as_number(value)
    if value is not None and (number is None or not -1 <= number <= 100):
        raise ValueError(f"{shown(value)} is no percentage")
    return number


def _difference(pairs: Sequence[tuple[float | None, float | None]]) -> Difference | None:
    """Of values and those that they are paired with; None where one is missing."""
    known = [value - base for value, base in pairs if value is not None and base is not None]
    return difference(known) if known and len(known) == len(pairs) else None


def _text(spread: Spread | None) -> str:
    return "–" if spread is None else spread.text()


def _gain(gain: Difference | None) -> str:
    if gain is None:
        return "–"
    interval = f" [{gain.interval[0]:+.2f}, {gain.interval[1]:+.2f}]" if gain.interval else ""
    return f"{gain.mean:+.2f}{interval}"


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    return None if spread is None else asdict(spread)
