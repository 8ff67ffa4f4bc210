"""Which recipe gives which cell, and what must be set besides.

Where no recipe names a cell, one of the same experiment at another length serves with ``train.epochs=N``, or
MixUp's with ``method.name=...`` and that method's options; and a variant of an ablation is its method's
recipe with settings changed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from automix_transfer.config import read_yaml
from automix_transfer.errors import UserError
from automix_transfer.mixing.losses import LossOptions
from automix_transfer.paper import published as paper
from automix_transfer.paper.references import (
    FOLDERS,
    SETS,
    Reference,
    cell_of,
    plain_config,
    recipes,
    training_key,
    with_defaults,
    without,
)


@dataclass(frozen=True)
class Catalogue:
    """What the recipes offer: references by `training_key`, and a sentence for each recipe that cannot be
    read."""

    references: Mapping[tuple[tuple[str, Any], ...], Reference]
    problems: tuple[str, ...]

    def of(self, attributes: paper.Attributes) -> Reference | None:
        """The training of a cell, if a recipe serves it."""
        return self.references.get(training_key(attributes))

    def of_recipe(self, recipe: str) -> Sequence[Reference]:
        """The trainings that a recipe serves, by its bare name: its own cell first."""
        return self._by_recipe.get(recipe, ())

    @functools.cached_property
    def _by_recipe(self) -> Mapping[str, list[Reference]]:
        found: dict[str, list[Reference]] = {}
        for reference in self.references.values():
            found.setdefault(reference.recipe.stem, []).append(reference)
        return found


@functools.cache
def catalogue(folders: tuple[Path, ...] = FOLDERS) -> Catalogue:
    """The training of every cell that a recipe of ``folders`` serves; a recipe that names the cell wins over
    one that is adapted."""
    found: dict[tuple[tuple[str, Any], ...], Reference] = {}
    problems: list[str] = []
    for recipe in recipes(folders):
        try:
            config, cell = plain_config(recipe), cell_of(recipe)
        except UserError as error:
            problems.append(str(error))
            continue
        if cell is not None:
            attributes = without(cell.attributes, "metric")
            found.setdefault(training_key(attributes), Reference(attributes, recipe, (), config))
    named = list(found.values())
    for cell in trainings():
        plain = without(cell.attributes, "metric", "variant")
        base = found.get(training_key(plain)) or _other_length(plain, named) or _other_method(plain, named)
        changes = variant_of(cell.attributes)
        if base is not None and changes is not None and training_key(cell.attributes) not in found:
            attributes = without(cell.attributes, "metric")
            found[training_key(attributes)] = adapted(attributes, base, changes)
    return Catalogue(found, tuple(problems))


def adapted(attributes: paper.Attributes, base: Reference, changes: Mapping[str, Any]) -> Reference:
    """The training of ``attributes`` by the recipe of ``base`` with settings changed."""
    overrides = (*base.overrides, *(f"{key}={_scalar(value)}" for key, value in changes.items()))
    return Reference(attributes, base.recipe, overrides, plain_config(base.recipe, overrides))


def trainings() -> list[paper.Cell]:
    """A cell of each training that the tables and ablations need; detection (Table 7) trains nothing of its
    own."""
    cells = [
        cell
        for table in (*paper.tables().values(), *paper.figures().values())
        for cell in table
        if "epochs" in cell.attributes
    ]
    plain_first = sorted(cells, key=lambda cell: "variant" in cell.attributes)
    return list({training_key(cell.attributes): cell for cell in reversed(plain_first)}.values())[::-1]


def variant_of(attributes: paper.Attributes) -> Mapping[str, Any] | None:
    """The settings that a cell's variant changes: none for the method as it is; None where the method has no
    such variant."""
    if "variant" not in attributes:
        return {}
    return _variants().get(attributes["variant"], {}).get(attributes["method"])


@functools.cache
def _variants() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    return read_yaml(paper.ABLATIONS)["variants"]


def _other_length(attributes: paper.Attributes, named: Sequence[Reference]) -> Reference | None:
    """A recipe that is this experiment but for its epochs, made as long as this one."""
    rest = training_key(without(attributes, "epochs"))
    for reference in named:
        if training_key(without(reference.attributes, "epochs")) == rest:
            return adapted(attributes, reference, {"train.epochs": attributes["epochs"]})
    return None


def _other_method(attributes: paper.Attributes, named: Sequence[Reference]) -> Reference | None:
    """MixUp's recipe of this experiment by another method: with that method's options in the most similar of
    its own recipes, and the α of appendix A.1. Losses and the like are the procedure's, and stay. TransMix is
    left out: it needs its recipe's kind of network."""
    as_mixup = {**attributes, "method": "mixup"}
    base = next(
        (reference for reference in named if reference.key == training_key(as_mixup)), None
    ) or _other_length(as_mixup, named)
    method = attributes["method"]
    donors = [reference for reference in named if reference.attributes["method"] == method]
    if base is None or not donors or method == "transmix":
        return None
    similar = [*SETS].index
    donor = min(
        donors,
        key=lambda reference: (
            [reference.attributes[key] != attributes[key] for key in ("data", "procedure")],
            reference.config["data.image_size"] != base.config["data.image_size"],
            similar(reference.attributes["data"]),
        ),
    )
    plain = with_defaults({"method.name": method})
    kept = {f"method.{option.name}" for option in fields(LossOptions)} | {"method.name", "method.alpha"}
    options = {
        key: value
        for key, value in donor.config.items()
        if key.startswith("method.") and key not in kept and value != plain.get(key)
    }
    alpha = alpha_of(attributes) or donor.config.get("method.alpha")
    changes = {"method.name": method, **({"method.alpha": alpha} if alpha is not None else {}), **options}
    return adapted(attributes, base, changes)


def alpha_of(attributes: paper.Attributes) -> float | None:
    """α of appendix A.1; None for methods that it gives one for all, and those without."""
    for rule in _alphas():
        if all(attributes.get(name) in values for name, values in rule["when"].items()):
            return rule["alpha"].get(attributes["method"])
    return None


@functools.cache
def _alphas() -> list[dict[str, Any]]:
    return yaml.safe_load(Path(__file__).with_name("alphas.yaml").read_text(encoding="utf-8"))


def _scalar(value: Any) -> str:
    """A value as an override has it: ``false``, ``0.5``, ``[2, 4]``, and text as it is."""
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
