"""The recipes read against the paper's tables: which cell each names, and what it sets.

A recipe's key ``reproduces`` names its cell; see `automix_transfer.recipes.recipe`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from automix_transfer.config import read_yaml
from automix_transfer.errors import UserError
from automix_transfer.mixing import METHODS, PRESETS
from automix_transfer.paper import published as paper
from automix_transfer.recipes.find import RECIPES
from automix_transfer.recipes.recipe import read_recipe
from automix_transfer.training.settings import Experiment, flatten

ROOT = Path(__file__).resolve().parents[2]
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
    """The cell that a recipe's head names; None where it names no table of results, or not one cell of it."""
    try:
        head = read_recipe(recipe)
    except UserError:
        return None
    table = paper.tables().get(f"table{head.table}")
    if table is None:
        return None
    known = [word for word in head.cell if any(paper.has(cell, word) for cell in table)]
    found = [
        cell
        for cell in table
        if cell.attributes.get("method") == head.method and all(paper.has(cell, word) for word in known)
    ]
    training = {training_key(cell.attributes): cell for cell in found if "variant" not in cell.attributes}
    return next(iter(training.values())) if len(training) == 1 else None


def plain_config(recipe: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe with its bases, the defaults and ``overrides`` as flat keys: quick and unchecked,
    `load_experiment` checks.

    Raises:
        UserError: a file that cannot be read, or that is based on itself.
    """
    given = flatten(_merged(recipe, ()))
    for override in overrides:
        key, _, text = override.partition("=")
        given[key] = yaml.safe_load(text)
    return with_defaults(given)


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings over the defaults of this version; those of the method are its own."""
    name = str(given.get("method.name", "vanilla"))
    defaults = dict(_defaults())
    if name in METHODS:
        defaults |= {f"method.{key}": value for key, value in asdict(METHODS[name][0]()).items()}
        if "method.preset" in defaults:
            preset = PRESETS / f"{given.get('method.preset', defaults['method.preset'])}.yaml"
            defaults |= (
                {f"method.{key}": value for key, value in read_yaml(preset).items()}
                if preset.is_file()
                else {}
            )
    return {**defaults, **given}


@functools.cache
def _defaults() -> Mapping[str, Any]:
    return flatten(asdict(Experiment()))


def _merged(file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    file = file.resolve()
    if file in chain:
        raise UserError(f"config file {file} is based on itself; remove it from 'base'")
    content = dict(_read(file))
    content.pop("reproduces", None)
    bases = content.pop("base", [])
    result: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _merge(result, _merged(file.parent / base, (*chain, file)))
    return _merge(result, content)


@functools.lru_cache(maxsize=1024)
def _read(file: Path) -> Mapping[str, Any]:
    return read_yaml(file)


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
    return into
