"""The recipes read against the paper's tables: which cell each names, and what it sets.

A recipe's key ``reproduces`` names its cell; see `automix_transfer.recipes.recipe`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automix_transfer.config import HEAD_KEYS, flatten, read_overrides, read_yaml
from automix_transfer.errors import UserError
from automix_transfer.mixing import load_options
from automix_transfer.paper import published as paper
from automix_transfer.recipes.find import RECIPES
from automix_transfer.recipes.recipe import read_recipe
from automix_transfer.training.settings import SECTIONS, Experiment

FOLDERS = (RECIPES / "pretrain", RECIPES / "finegrained")


@dataclass(frozen=True)
class DataSet:
    """A data set of the paper (appendix A.1): our name of its layout, numbers of images and classes."""

    layout: str
    train: int
    test: int
    classes: int


SETS = {
    "CIFAR-10": DataSet("cifar10", 50_000, 10_000, 10),
    "CIFAR-100": DataSet("cifar100", 50_000, 10_000, 100),
    "Tiny-ImageNet": DataSet("tiny_imagenet", 100_000, 10_000, 200),
    "ImageNet-1k": DataSet("imagefolder", 1_281_167, 50_000, 1000),
    "CUB-200": DataSet("cub", 5_994, 5_794, 200),
    "FGVC-Aircraft": DataSet("aircraft", 6_667, 3_333, 100),
    "iNat2017": DataSet("inaturalist2017", 579_184, 95_986, 5_089),
    "iNat2018": DataSet("inaturalist2018", 437_513, 24_426, 8_142),
    "Places205": DataSet("places205", 2_448_873, 20_500, 205),
}


@dataclass(frozen=True)
class Reference:
    """The training of some cells: ``recipe`` with ``overrides``; ``attributes`` are the cells' without the
    metric, ``config`` is flat."""

    attributes: paper.Attributes
    recipe: Path
    overrides: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def key(self) -> tuple[tuple[str, Any], ...]:
        return training_key(self.attributes)

    @property
    def data(self) -> DataSet | None:
        return SETS.get(self.attributes.get("data", ""))


def training_key(attributes: paper.Attributes) -> tuple[tuple[str, Any], ...]:
    """What tells trainings apart: all attributes but the metric."""
    return paper.key_of(without(attributes, "metric"))


def without(attributes: paper.Attributes, *names: str) -> paper.Attributes:
    """The attributes but for those of ``names``."""
    return {name: value for name, value in attributes.items() if name not in names}


def recipes(folders: Iterable[Path] = FOLDERS) -> list[Path]:
    """Every recipe, in order; parts that others build on lie in folders of their own."""
    return [file for folder in folders for file in sorted(folder.glob("*.yaml"))]


def cell_of(recipe: Path) -> paper.Cell | None:
    """The cell that a recipe reproduces; None where it names no table of results, or not one cell of it."""
    head = read_recipe(recipe)
    cells = [
        cell for cell in paper.tables().get(f"table{head.table}", ()) if "variant" not in cell.attributes
    ]
    known = [word for word in (*head.cell, head.method) if any(paper.has(cell, word) for cell in cells)]
    found = [cell for cell in cells if all(paper.has(cell, word) for word in known)]
    trainings = {training_key(cell.attributes): cell for cell in found}
    return next(iter(trainings.values())) if len(trainings) == 1 and head.method in known else None


def plain_config(recipe: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe with its bases, the defaults and ``overrides`` as flat keys: quick and unchecked,
    `load_experiment` checks.

    Raises:
        UserError: a file that cannot be read.
    """
    given = dict(_flat(recipe.resolve()))
    found = {"method": {"name": given.get("method.name")}}
    given |= {key: value for _, key, value in read_overrides(Experiment, overrides, found, SECTIONS)}
    return with_defaults(given)


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings over the defaults of this version; those of the method are its own."""
    method = _method_defaults(str(given.get("method.name", "vanilla")), str(given.get("method.preset", "")))
    return {**_defaults(), **method, **given}


@functools.cache
def _defaults() -> Mapping[str, Any]:
    return flatten(asdict(Experiment()))


@functools.lru_cache(maxsize=256)
def _method_defaults(name: str, preset: str) -> Mapping[str, Any]:
    try:
        options = load_options(name, {"preset": preset} if preset else {})
    except UserError:  # of another version
        return {}
    return {f"method.{key}": value for key, value in asdict(options).items()}


@functools.lru_cache(maxsize=1024)
def _flat(file: Path) -> Mapping[str, Any]:
    """The settings of a file over those of its bases; parts that many recipes share are read once."""
    content = {key: value for key, value in read_yaml(file).items() if key not in HEAD_KEYS}
    bases = content.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged |= _flat((file.parent / base).resolve())
    return merged | flatten(content)
