"""What recipes say about themselves: the cell of the paper's tables that each reproduces, and their list.

The list is of hundreds of files, so it reads their heads alone, by the quickest reader there is.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from automix_transfer.errors import UserError, first_line
from automix_transfer.text_files import MOST_BYTES, read_text

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


HEAD = re.compile(r"^reproduces:.*?(?=\n[^\s#]|\Z)", re.MULTILINE | re.DOTALL)  #: the key, up to the next one
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, which wheels of PyYAML have


@dataclass(frozen=True)
class Recipe:
    """A recipe's file and its head.

    Attributes:
        first: the cell and its number as a line, or the head's first comment where there is no number.
        table, cell, method, value: the head's ``reproduces: {table: 2, cell: [ImageNet-1k, R-50], method:
            automix, top1: 77.91}``; 0, (), "" and None where the paper has no number.
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
    """What the head of ``file`` says: its key ``reproduces``, or its first comment.

    Raises:
        UserError: the file cannot be read, or ``reproduces`` does not have its form.
    """
    text = read_text(file, MOST_BYTES)
    head = HEAD.search(text)
    if head is None:
        first = text.partition("\n")[0]
        return Recipe(file, first.lstrip("# ") if first.startswith("#") else "")
    try:
        return _claim(file, **yaml.load(head[0], LOADER)["reproduces"])
    except (yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"recipe {file}: 'reproduces' is not of the form {{table: 2, cell: [ImageNet-1k, R-50], method: "
            f"automix, top1: 77.91}} ({first_line(error)}); correct it"
        ) from error


def _claim(
    file: Path, table: int, cell: list[str], method: str, top1: float, also: Sequence[dict[str, Any]] = ()
) -> Recipe:
    first = f"Table {table}, {', '.join([*cell, method])}: {top1:.2f} % top-1"
    others = tuple((int(other["table"]), float(other["top1"])) for other in also)
    return Recipe(file, first, int(table), tuple(cell), method, float(top1), others)


def list_recipes(folder: Path, words: Sequence[str] = ()) -> str:
    """All recipes of ``folder`` by table, together for each column of it; with ``words`` those that have all
    of them in name or head, one by one."""
    recipes = [read_recipe(file) for file in sorted(folder.glob("*.yaml"))]
    chosen = [r for r in recipes if all(word.lower() in f"{r.file.name} {r.first}".lower() for word in words)]
    count = f"{len(chosen)} of {len(recipes)}" if words else f"{len(recipes)}"
    lines = [f"{count} recipes in {folder}"]
    for table in [*TABLES, 0]:
        group = [r for r in chosen if (r.table if r.table in TABLES else 0) == table]
        if group:
            lines += ["", f"Table {table}: {TABLES[table]} (top-1, %)" if table else OTHERS]
            lines += _one_by_one(group) if words or not table else _by_column(group)
    if not words:
        hint = "--list WORD ... shows only the recipes that have all words in their name or head"
        lines += ["", f"{hint}, e.g. --list imagenet r50 automix"]
    return "\n".join(lines)


def _one_by_one(group: Sequence[Recipe]) -> list[str]:
    width = max(len(r.file.name) for r in group)
    texts = (
        r.first if r.value is None else f"{r.value:.2f}  {', '.join([*r.cell, r.method])}" for r in group
    )
    return [f"  {r.file.name:<{width}}  {text}" for r, text in zip(group, texts, strict=True)]


def _by_column(group: Sequence[Recipe]) -> list[str]:
    """Recipes that differ in the method alone, a paragraph each, the lowest number first."""
    lines = []
    for pattern in dict.fromkeys(r.pattern for r in group):
        same = sorted((r for r in group if r.pattern == pattern), key=lambda r: r.value or 0)
        # no line ends between a method and its number
        numbers = ", ".join(f"{r.method}\u00a0{r.value:.2f}" for r in same)
        wrapped = textwrap.wrap(
            numbers, 110, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False
        )
        lines += [f"  {pattern}", *(line.replace("\u00a0", " ") for line in wrapped)]
    return lines
