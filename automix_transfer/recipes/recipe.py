"""The recipes of a folder, by the first line of each one's head: which cell of the paper's tables it is, and
the number to expect."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automix_transfer.mixing import METHODS

#: what the tables hold, for a list of recipes
TABLES = {
    1: "CIFAR-10, CIFAR-100 and Tiny-ImageNet",
    2: "ImageNet-1k, PyTorch's procedure",
    3: "ImageNet-1k, RSB A2 and A3",
    4: "ImageNet-1k, DeiT's procedure",
    5: "fine-grained and scenes",
    6: "robustness, CIFAR-100",
    13: "CIFAR-10, lengths of training",
    14: "CIFAR-100, lengths of training",
}
OTHERS = "without a number in the paper"
_CELL = re.compile(r"Table (\d+), (.+), (\w+): (\d+\.\d\d) % top-1")
_ALSO = re.compile(r"Also Table (\d+): (\d+\.\d\d) %")


@dataclass(frozen=True)
class Recipe:
    """A recipe's file and its head.

    Attributes:
        first: the head's first line.
        table, cell, method, value: where the paper has its number, e.g. 2, ("ImageNet-1k", "R-50", "PyTorch",
            "100 epochs"), "automix", 77.91; 0, (), "" and None where it has none.
        also: (table, value) of other tables about the same experiment.
    """

    file: Path
    first: str
    table: int = 0
    cell: tuple[str, ...] = ()
    method: str = ""
    value: float | None = None
    also: tuple[tuple[int, float], ...] = ()

    @property
    def pattern(self) -> str:
        """The file's name with METHOD for its method; recipes of one cell's column have it in common."""
        return (
            re.sub(rf"_{self.method}(?=[_.])", "_METHOD", self.file.name) if self.method else self.file.name
        )


def read_recipe(file: Path) -> Recipe:
    """What the head of ``file`` (its first lines, which begin with #) says."""
    lines = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    first = lines[0] if lines else ""
    found = _CELL.match(first)
    if not found:
        return Recipe(file, first)
    also = tuple(
        (int(table), float(value))
        for line in lines
        for table, value in _ALSO.findall(line.replace("; Table", "; Also Table"))
    )
    return Recipe(file, first, int(found[1]), tuple(found[2].split(", ")), found[3], float(found[4]), also)


def list_recipes(configs: Path, words: Sequence[str] = ()) -> str:
    """All recipes by table, together for each column of it; with ``words`` those that have all of them in
    name or head, one by one."""
    recipes = [read_recipe(file) for file in sorted(configs.glob("*.yaml"))]
    chosen = [r for r in recipes if all(word.lower() in f"{r.file.name} {r.first}".lower() for word in words)]
    lines = [
        f"{len(chosen)} of {len(recipes)} recipes in {configs}"
        if words
        else f"{len(recipes)} recipes in {configs}"
    ]
    for table in [*TABLES, 0]:
        group = [r for r in chosen if (r.table if r.table in TABLES else 0) == table]
        if group:
            lines += ["", f"Table {table}: {TABLES[table]} (top-1, %)" if table else OTHERS]
            lines += _one_by_one(group) if words or not table else _by_column(group)
    if not words:
        lines += [
            "",
            "--list WORD ... shows only the recipes that have all words in their name or head, e.g. --list "
            "imagenet r50 automix",
        ]
    return "\n".join(lines)


def _one_by_one(group: Sequence[Recipe]) -> list[str]:
    width = max(len(r.file.name) for r in group)
    texts = (
        r.first if r.value is None else f"{r.value:.2f}  {', '.join([*r.cell, r.method])}" for r in group
    )
    return [f"  {r.file.name:<{width}}  {text}" for r, text in zip(group, texts, strict=True)]


def _by_column(group: Sequence[Recipe]) -> list[str]:
    lines, order = [], list(METHODS)
    for pattern in dict.fromkeys(r.pattern for r in group):
        same = sorted((r for r in group if r.pattern == pattern), key=lambda r: order.index(r.method))
        # no line ends between a method and its number
        numbers = ", ".join(f"{r.method}\u00a0{r.value:.2f}" for r in same)
        wrapped = textwrap.wrap(
            numbers, 110, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False
        )
        lines += [f"  {pattern}", *(line.replace("\u00a0", " ") for line in wrapped)]
    return lines
