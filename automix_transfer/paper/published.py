"""The numbers of the paper's tables of results (`paper.yaml`), each by what was trained and measured.

``cell("table1", "CIFAR-100", "R-18", "automix").value`` is 82.04; ``same(attributes)`` are the cells of all
tables about one experiment.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix_transfer.config import read_yaml
from automix_transfer.errors import UserError, did_you_mean

FILE = Path(__file__).with_name("paper.yaml")
ABLATIONS = Path(__file__).with_name("ablations.yaml")
ATTRIBUTES = ("data", "encoder", "procedure", "epochs", "method", "variant", "metric")
LOWER_IS_BETTER = ("fgsm_error", "params", "hours")
METRICS = {
    "top1": "top-1",
    "corruption": "corruption",
    "fgsm_error": "FGSM error",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "maxboxacc": "MaxBoxAcc",
    "params": "params (M)",
    "hours": "time (h)",
}  #: as tables print them

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One number of the paper. ``value`` is None where the paper has a dash."""

    table: str
    row: int
    column: int
    attributes: Attributes
    value: float | None

    @property
    def key(self) -> tuple[tuple[str, Any], ...]:
        """The experiment and its metric, hashable; equal for cells of different tables about the same
        experiment."""
        return key_of(self.attributes)


@dataclass(frozen=True)
class PaperTable:
    """A table as printed: ``cells[row][column]`` under ``heads[line][column]``; ``gain`` is its last row,
    None where it has none."""

    name: str
    caption: str
    source: str
    digits: tuple[int, ...]
    heads: tuple[tuple[str, ...], ...]
    row_names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    gain: tuple[float, ...] | None
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        return (
            f"Table {self.name.removeprefix('table')}"
            if self.name.startswith("table")
            else f"Figure {self.name.removeprefix('fig')}"
        )

    def __iter__(self) -> Iterator[Cell]:
        return (cell for row in self.cells for cell in row)


def key_of(attributes: Attributes) -> tuple[tuple[str, Any], ...]:
    """The attributes that tell experiments apart, in a fixed order."""
    return tuple((name, attributes[name]) for name in ATTRIBUTES if name in attributes)


@functools.cache
def tables(file: Path = FILE) -> Mapping[str, PaperTable]:
    """All tables by name, ``table1`` to ``table14``."""
    return {name: _table(name, content) for name, content in read_yaml(file).items()}


@functools.cache
def figures(file: Path = ABLATIONS) -> Mapping[str, PaperTable]:
    """The ablations that the paper plots, ``fig9`` and ``fig10``, as tables without the paper's numbers."""
    return {name: _table(name, content) for name, content in read_yaml(file)["figures"].items()}


def table(name: str) -> PaperTable:
    """A table by name or number: ``table1``, ``Table 1`` or ``1``; or a figure, ``fig9`` or ``Figure 9``.

    Raises:
        UserError: there is no such table; the closest name is suggested.
    """
    known = {**tables(), **figures()}
    wanted = re.sub(r"[\s_.]+", "", str(name)).lower().replace("figure", "fig")
    wanted = f"table{wanted}" if wanted.isdecimal() else wanted
    if wanted in known:
        return known[wanted]
    if wanted == "table12":
        raise UserError(
            "Table 12 of the paper holds settings and no results; they are in the recipes "
            "(automix-transfer pretrain --list)"
        )
    hint = did_you_mean(wanted, known, f"there are {', '.join(known)}", cutoff=0.5)
    raise UserError(f"there is no table or ablation '{_shown(name)}' of results in the paper; {hint}")


def cell(table_name: str, *tokens: str | int) -> Cell:
    """The one cell of a table with all ``tokens`` among its attributes, in any order and case: ``"R-18"``,
    ``"100 epochs"``, ``"automix"``.

    Where nothing else tells them apart, top-1 is meant, and the method as it is rather than a variant of it.

    Raises:
        UserError: no cell or more than one has them.
    """
    found = [each for each in table(table_name) if all(has(each, str(token)) for token in tokens)]
    for name, usual in (("variant", None), ("metric", "top1")):
        narrowed = [each for each in found if each.attributes.get(name) == usual]
        found = narrowed if len(found) > 1 and narrowed else found
    if len(found) != 1:
        raise UserError(
            f"{len(found) or 'no'} cells of {table(table_name).name} have {', '.join(map(_shown, tokens))}; "
            "give what was trained, e.g. cell('table1', 'CIFAR-100', 'R-18', 'automix')"
        )
    return found[0]


def same(attributes: Attributes) -> list[Cell]:
    """The cells of all tables that are about one experiment and metric."""
    key = key_of(attributes)
    return [each for each_table in tables().values() for each in each_table if each.key == key]


def has(each: Cell, token: str) -> bool:
    """Whether a cell has an attribute that ``token`` names; ``100 epochs`` and ``100`` are its epochs."""
    wanted = token.strip().lower()
    epochs = re.fullmatch(r"(\d+) ?(epochs?|ep)", wanted)
    if epochs:
        return each.attributes.get("epochs") == int(epochs[1])
    names = {str(value).lower() for name, value in each.attributes.items() if name != "epochs"}
    return wanted in names or (wanted.isdigit() and each.attributes.get("epochs") == int(wanted))


def _table(name: str, content: Mapping[str, Any]) -> PaperTable:
    columns, rows, common = content["columns"], content["rows"], content["all"]
    numbers = [[None if value == "-" else float(value) for value in row["values"]] for row in rows]
    cells = tuple(
        tuple(
            Cell(name, r, c, _attributes(common, column, row), value)
            for c, (column, value) in enumerate(zip(columns, numbers[r], strict=True))
        )
        for r, row in enumerate(rows)
    )
    return PaperTable(
        name,
        content["caption"],
        content["source"],
        digits=tuple(int(column.get("digits", content["digits"])) for column in columns),
        heads=tuple(
            tuple(_head(line, {**common, **column}) for column in columns) for line in content["header"]
        ),
        row_names=tuple(str(row.get("name", row.get("encoder"))) for row in rows),
        cells=cells,
        gain=tuple(map(float, content["gain"])) if "gain" in content else None,
        notes=tuple(content.get("notes", ())),
    )


def _attributes(common: Attributes, column: Attributes, row: Attributes) -> Attributes:
    merged = {**common, **column, **row}
    if merged.get("method") in row.get("plain", ()):
        merged.pop("variant", None)
    return {name: merged[name] for name in ATTRIBUTES if name in merged}


def _head(line: str, column: Attributes) -> str:
    if line == "method":
        return str(column.get("name", column.get("method", "")))
    value = column.get(line, "")
    return (
        METRICS.get(value, str(value))
        if line == "metric"
        else f"{value} epochs"
        if line == "epochs"
        else str(value)
    )


def _shown(value: Any) -> str:
    """On one line, and short."""
    return " ".join(str(value).split())[:60]
