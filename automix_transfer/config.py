"""Typed configuration: dataclasses, YAML files that build on each other, and ``key=value`` overrides.

A schema is a dataclass (nested dataclasses for sections). A YAML file may start with ``base: other.yaml`` (or
a list): the named files (relative to the file that names them) or recipes are read first. Later values win:
bases, file, overrides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from automix_transfer.errors import UserError, did_you_mean, first_line
from automix_transfer.recipes.find import find_recipe
from automix_transfer.text_files import (
    MOST_BYTES,
    YAML_ERRORS,
    field_types,
    is_text,
    parse_yaml,
    read_text,
    yaml_problem,
)

__all__ = ["MISSING", "flatten", "load_config", "read_layers", "read_overrides", "read_yaml", "to_yaml"]

Schema = TypeVar("Schema")
#: For sections that a schema leaves open: from the section's values as they are given, their schema.
Sections = Mapping[str, Callable[[Mapping[str, Any]], type | None]]

#: Keys at the top of a file that are about the file; no schema has them.
HEAD_KEYS = ("reproduces",)
MOST_FILES = 100  # that a config file is based on, each time counted
LARGEST = 2**63


def load_config(
    schema: type[Schema],
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    section: str = "",
    sections: Sections | None = None,
) -> Schema:
    """Build a ``schema`` from its defaults, then YAML ``files``, plain ``values`` and ``overrides``.

    Args:
        overrides: each ``key=value``, see `read_overrides`.
        section: the section that ``values`` are of, for messages, e.g. ``method``.
        sections: schemas of sections that ``schema`` leaves open, for overrides.

    Raises:
        UserError: an unreadable file, an unknown key (the closest one is suggested), a wrong type, an
            interpolation (``${...}``), or a value that is still missing.
    """
    config: Any = OmegaConf.structured(schema)
    for file in files:
        for source, layer in read_layers(Path(file), schema):
            settings = {key: value for key, value in layer.items() if key not in HEAD_KEYS}
            config = _merge(config, settings, f"config file {source}")
    config = _merge(config, values or {}, f"config section '{section}'")
    found = {name: OmegaConf.to_container(config[name]) for name in sections or ()}
    for override, key, value in read_overrides(schema, overrides, found, sections):
        for name in reversed(key.split(".")):
            value = {name: value}
        config = _merge(config, value, _named(override))
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except MissingMandatoryValue as error:
        raise UserError(
            f"config key '{error.full_key}' has no value; set it in the file, or as {error.full_key}=VALUE"
        ) from error
    except OmegaConfBaseException as error:
        raise UserError(f"config key '{error.full_key}': {first_line(error)}") from error


def read_overrides(
    schema: type, overrides: Sequence[str], found: Mapping[str, Any], sections: Sections | None = None
) -> list[tuple[str, str, Any]]:
    """Each override with its key and its value: as it was typed where the field is text, else as YAML.

    ``null`` alone is None, where the field may be None.

    Args:
        found: the values so far of the open ``sections``.

    Raises:
        UserError: an override that is not ``key=value``, whose value is not YAML, or says nothing.
    """
    pairs = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{_named(override)} is not of the form key=value, e.g. train.epochs=10")
        pairs.append((override, key.strip(), text))
    kinds: dict[str, Any] = {}
    for name, choose in (sections or {}).items():
        typed = {key.removeprefix(f"{name}."): text for _, key, text in pairs if key.startswith(f"{name}.")}
        if any(key.partition(".")[0] == name for _, key, _ in pairs):
            kinds[name] = choose({**found[name], **typed})
    return [
        (override, key, _value(override, _kind(schema, key, kinds), text)) for override, key, text in pairs
    ]


def _kind(schema: type, key: str, kinds: Mapping[str, Any]) -> Any:
    """The type of the field that a dotted key names; None where there is none."""
    kind: Any = schema
    for number, name in enumerate(key.split(".")):
        if dataclasses.is_dataclass(kind):
            kind = field_types(kind).get(name)  # type: ignore[arg-type]
        else:
            return None
        if number == 0 and name in kinds:
            kind = kinds[name]
    return kind


def _value(override: str, kind: Any, text: str) -> Any:
    if is_text(kind):
        return None if text == "null" and kind is not str else text
    try:
        value = parse_yaml(text, kind if dataclasses.is_dataclass(kind) else None)  # type: ignore[arg-type]
    except YAML_ERRORS as error:
        raise UserError(f"{_named(override)} {yaml_problem(error)}; correct its value") from error
    if value is None and text.strip() != "null":
        raise UserError(f"{_named(override)} has no value; give one, or null where the key may have none")
    return value


def _named(override: str) -> str:
    shown = " ".join(override.split())
    return f"override '{shown[:200]}{'...' if len(shown) > 200 else ''}'"


def read_layers(
    file: Path, schema: type | None = None, above: tuple[Path, ...] = (), left: Iterator[int] | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """``file`` and the files that its ``base`` names, deepest first, each with its own keys.

    Raises:
        UserError: see `read_yaml`; a file that is based on itself, or on more than `MOST_FILES`.
    """
    file = file.resolve()
    if file in above:
        raise UserError(f"config file {file} is based on itself; remove it from 'base' of {above[-1]}")
    left = iter(range(MOST_FILES)) if left is None else left
    if next(left, None) is None:
        raise UserError(
            f"config file {(*above, file)[0]} is based on more than {MOST_FILES} files; 'base' has fewer"
        )
    layer = read_yaml(file, schema)
    bases = layer.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"config file {file}: 'base' must be a file name or a list of file names")
    for base in bases:
        if "://" in base:
            raise UserError(f"config file {file}: 'base' is {base}, but nothing is fetched; give a file")
        yield from read_layers(find_recipe(base, beside=file.parent), schema, (*above, file), left)
    yield file, layer


def read_yaml(file: Path, schema: type | None = None) -> dict[str, Any]:
    """The mapping of a YAML file as plain values; ``base`` is not followed.

    Args:
        schema: see `parse_yaml`.

    Raises:
        UserError: the file is missing, is not YAML, is no mapping of names to values, has a key twice or a
            tag, or is larger than a config.
    """
    try:
        content = parse_yaml(read_text(file, MOST_BYTES), schema)
    except UserError as error:
        raise UserError(f"config file {error}") from error
    except YAML_ERRORS as error:
        raise UserError(f"config file {file} {yaml_problem(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"config file {file} must be a mapping of keys to values at its top level")
    return content


def to_yaml(config: Any) -> str:
    """The complete configuration as YAML, in the schema's order."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys: ``{"train.epochs": 100, ...}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _merge(config: Any, layer: Mapping[str, Any], source: str) -> Any:
    """``layer`` over ``config``, which changes; an unknown key and a wrong type become one sentence."""
    for key, value in layer.items():
        _refuse_unresolved(key, value, source)
        try:
            config = OmegaConf.unsafe_merge(config, OmegaConf.create({key: value}))
        except (ConfigKeyError, ConfigAttributeError) as error:
            known = [str(key) for key in error.parent_node or ()]
            hint = did_you_mean(str(error.key), known, f"known keys here: {', '.join(known)}", quote="'")
            raise UserError(f"{source}: unknown config key '{error.full_key}'; {hint}") from error
        except OmegaConfBaseException as error:
            raise UserError(f"{source}: config key '{error.full_key or key}': {first_line(error)}") from error
    return config


def _refuse_unresolved(key: str, value: Any, source: str) -> None:
    """Interpolations, which could read the environment, and integers that are too long to be shown."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_unresolved(f"{key}.{name}", inner, source)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_unresolved(key, inner, source)
    elif isinstance(value, str) and "${" in value:
        raise UserError(
            f"{source}: config key '{key}' holds '${{', which is not resolved; write the value itself"
        )
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise UserError(
            f"{source}: config key '{key}' is an integer of more than 63 bits; give a smaller one"
        )
