"""Typed configuration: dataclasses, YAML files that build on each other, and ``key=value`` overrides.

A schema is a dataclass (nested dataclasses for sections). A YAML file may start with ``base: other.yaml`` (or
a list): the named files (relative to the file that names them) or recipes are read first. Later values win:
bases, file, overrides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from automix_transfer.errors import UserError, did_you_mean, first_line
from automix_transfer.recipes.find import find_recipe

__all__ = ["MISSING", "flatten", "load_config", "read_layers", "read_yaml", "to_yaml"]

Schema = TypeVar("Schema")

#: Keys at the top of a file that are about the file; no schema has them.
HEAD_KEYS = ("reproduces",)


def load_config(
    schema: type[Schema],
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    section: str = "",
) -> Schema:
    """Build a ``schema`` from its defaults, then YAML ``files``, plain ``values`` and ``overrides``.

    Args:
        overrides: each ``key=value``, the value as YAML.
        section: the section that ``values`` are of, for messages, e.g. ``method``.

    Raises:
        UserError: an unreadable file, an unknown key (the closest one is suggested), a wrong type, or a value
            that is still missing.
    """
    config: Any = OmegaConf.structured(schema)
    for file in files:
        for source, layer in read_layers(Path(file)):
            settings = {key: value for key, value in layer.items() if key not in HEAD_KEYS}
            config = _merge(config, settings, f"config file {source}")
    config = _merge(config, values or {}, f"config section '{section}'")
    for override in overrides:
        config = _merge(config, _read_override(override), f"override '{' '.join(override.split())}'")
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except MissingMandatoryValue as error:
        raise UserError(
            f"config key '{error.full_key}' has no value; set it in the file, or as {error.full_key}=VALUE"
        ) from error
    except OmegaConfBaseException as error:
        raise UserError(f"config key '{error.full_key}': {first_line(error)}") from error


def read_layers(file: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """``file`` and the files that its ``base`` names, deepest first, each with its own keys.

    Raises:
        UserError: see `read_yaml`; a file that is based on itself.
    """
    file = file.resolve()
    if file in above:
        raise UserError(f"config file {file} is based on itself; remove it from 'base' of {above[-1]}")
    layer = read_yaml(file)
    bases = layer.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"config file {file}: 'base' must be a file name or a list of file names")
    for base in bases:
        yield from read_layers(find_recipe(base, beside=file.parent), (*above, file))
    yield file, layer


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping of a YAML file as plain values; ``base`` is not followed.

    Raises:
        UserError: the file is missing, is not YAML, is no mapping of names to values, or has a key twice.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except FileNotFoundError as error:
        raise UserError(f"config file {file} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {file} could not be read as text ({first_line(error)})") from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"config file {file} {yaml_problem(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"config file {file} must be a mapping of keys to values at its top level")
    return content  # type: ignore[return-value]


def to_yaml(config: Any) -> str:
    """The complete configuration as YAML, in the schema's order."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys: ``{"train.epochs": 100, ...}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML text and where, as the end of a sentence about it."""
    mark = getattr(error, "problem_mark", None)
    where = f" at line {mark.line + 1}" if mark else ""
    return f"is not valid YAML{where} ({getattr(error, 'problem', None) or first_line(error)})"


def _read_override(override: str) -> Mapping[str, Any]:
    if not override.partition("=")[0].strip() or "=" not in override:
        raise UserError(f"override '{override}' is not of the form key=value, e.g. train.epochs=10")
    try:
        return OmegaConf.from_dotlist([override])
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"override '{override}' {yaml_problem(error)}; quote its value") from error


def _merge(config: Any, layer: Mapping[str, Any], source: str) -> Any:
    """``layer`` over ``config``, which changes; an unknown key and a wrong type become one sentence."""
    for key, value in layer.items():
        try:
            config = OmegaConf.unsafe_merge(config, OmegaConf.create({key: value}))
        except (ConfigKeyError, ConfigAttributeError) as error:
            known = [str(key) for key in error.parent_node or ()]
            hint = did_you_mean(str(error.key), known, f"known keys here: {', '.join(known)}", quote="'")
            raise UserError(f"{source}: unknown config key '{error.full_key}'; {hint}") from error
        except OmegaConfBaseException as error:
            raise UserError(f"{source}: config key '{error.full_key or key}': {first_line(error)}") from error
    return config
