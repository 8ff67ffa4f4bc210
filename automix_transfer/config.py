"""Typed configuration: dataclasses, YAML files that build on each other, and ``key=value`` overrides.

A schema is a dataclass (nested dataclasses for sections). A YAML file may start with ``base: other.yaml`` (or
a list): the named files are read first, relative to the file that names them. Later values win: bases, file,
overrides. An unknown key, a wrong type and a missing value are errors that name the key, where it came from
and what was meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from automix_transfer.errors import UserError, first_line

__all__ = ["MISSING", "DuplicateKey", "UniqueKeyLoader", "load_config", "parse_yaml", "read_yaml", "to_yaml"]

Schema = TypeVar("Schema")


def load_config(
    schema: type[Schema],
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    section: str = "",
) -> Schema:
    """Build a ``schema`` instance from its defaults, YAML ``files``, plain ``values`` and ``key=value``
    ``overrides``, in this order.

    ``section`` is what messages put before the keys of ``values``, e.g. ``method.`` for values that come from
    that section.

    Raises:
        UserError: an unreadable file, an unknown key (the closest known one is suggested), a wrong type, or a
            value still missing.
    """
    config: Any = OmegaConf.structured(schema)
    for file in files:
        for source, layer in _layers(Path(file), ()):
            config = _merge(config, layer, str(source))
    if values:
        config = _merge(
            config,
            OmegaConf.create(dict(values)),
            f"config section '{section.rstrip('.')}'" if section else "config",
        )
    for override in overrides:
        config = _merge(config, _override_layer(override), f"override '{_shown(override)}'")
    try:
        result = OmegaConf.to_object(config)
    except MissingMandatoryValue as error:
        raise UserError(
            f"config key '{error.full_key}' has no value; set it in the file or as an override, "
            f"e.g. {error.full_key}=VALUE"
        ) from error
    except OmegaConfBaseException as error:
        raise UserError(f"config: {first_line(error)}") from error
    return result  # type: ignore[return-value]  # to_object returns an instance of the schema


class DuplicateKey(yaml.MarkedYAMLError):
    """A key that stands twice in one mapping; as text, the rest of a sentence that begins with what holds it."""

    def __init__(self, key: str, first: yaml.Mark, second: yaml.Mark) -> None:
        super().__init__(problem_mark=second)
        self.key, self.lines = key, (first.line + 1, second.line + 1)

    def __str__(self) -> str:
        return (
            f"has the key '{_shown(self.key)}' twice in one mapping, at lines {self.lines[0]} and "
            f"{self.lines[1]}; make one of the two"
        )


class UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes the last of several equal keys in silence, with an error instead:
    YAML forbids them.

    Keys are compared as they are written, before ``<<`` is merged in: a mapping's own key over a merged one
    is no duplicate.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        found: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            # several merges lose nothing
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                first = found.setdefault((key.tag, key.value), key.start_mark)
                if first is not key.start_mark:
                    raise DuplicateKey(key.value, first, key.start_mark)
        return node


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, without tags that run code.

    Raises:
        DuplicateKey: a mapping has a key twice.
        yaml.YAMLError, ValueError, RecursionError: it is not YAML.
    """
    return yaml.load(text, Loader=UniqueKeyLoader)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML mapping, without following ``base``.

    Raises:
        UserError: the file is missing, is not YAML, is not a mapping, or has a key twice; the message names
            the line.
    """
    try:
        value = parse_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"config file {file} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config file {file} could not be read as UTF-8 text ({first_line(error)})"
        ) from error
    except DuplicateKey as error:
        raise UserError(f"config file {file} {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(
            f"config file {file} is not valid YAML{where}; check its indentation and colons"
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"config file {file} must be a mapping of keys to values at its top level")
    return value


def to_yaml(config: Any) -> str:
    """The complete configuration as YAML, in the schema's order."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _override_layer(override: str) -> Any:
    """``a.b=value`` as the mapping ``{a: {b: value}}``; the value is YAML."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w[\w-]*(\.\w[\w-]*)*", key):
        raise UserError(f"override '{_shown(override)}' is not of the form key=value, e.g. train.epochs=10")
    try:
        value = parse_yaml(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        return OmegaConf.create(value)
    except DuplicateKey as error:
        raise UserError(f"override '{_shown(override)}' {error}") from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"override '{_shown(override)}' has a value that is not valid YAML; quote it"
        ) from error


def _shown(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _layers(file: Path, chain: tuple[Path, ...]) -> list[tuple[Path, DictConfig]]:
    """``file`` and what it is based on, deepest base first."""
    file = file.resolve()
    if file in chain:
        raise UserError(
            f"config file {file} is based on itself: {' -> '.join(p.name for p in (*chain, file))}"
        )
    value = read_yaml(file)
    bases = value.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"config file {file}: 'base' must be a file name or a list of file names")
    layers = [layer for base in bases for layer in _layers(file.parent / base, (*chain, file))]
    try:
        return [*layers, (file, OmegaConf.create(value))]
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"config file {file}: {first_line(error)}") from error


def _merge(config: Any, layer: DictConfig, source: str) -> Any:
    """``layer`` over ``config``; what OmegaConf refuses becomes one sentence that names the key and its
    source."""
    unknown = _unknown_key(config, layer)
    if unknown:
        key, known = unknown
        close = difflib.get_close_matches(key.split(".")[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(known)}"
        raise UserError(f"{source}: unknown config key '{key}'; {hint}")
    try:
        # neither is used again, so nothing has to be copied first
        return OmegaConf.unsafe_merge(config, layer)
    except OmegaConfBaseException as error:
        full_key = getattr(error, "full_key", None)
        wanted = _wanted_type(config, full_key)
        raise UserError(
            f"{source}: config key '{full_key}' has a value of the wrong type ({first_line(error)})"
            + (f"; expected {wanted}" if wanted else "")
        ) from error


def _unknown_key(config: Any, layer: Any, prefix: str = "") -> tuple[str, list[str]] | None:
    if (
        not isinstance(layer, DictConfig)
        or not isinstance(config, DictConfig)
        or config._metadata.object_type is dict
    ):
        return None
    for key in map(str, layer):
        name = f"{prefix}{key}"
        if key not in config._content:  # type: ignore[operator]
            return name, [str(k) for k in config]
        if not OmegaConf.is_missing(layer, key) and not OmegaConf.is_interpolation(layer, key):
            found = _unknown_key(config._get_node(key), layer._get_node(key), f"{name}.")
            if found:
                return found
    return None


def _wanted_type(config: Any, key: str | None) -> str | None:
    kind = OmegaConf.get_type(config)
    for part in (key or "").split("."):
        fields = {f.name: f for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        if part not in fields:
            return None
        found = fields[part]
        kind = found.default_factory if callable(found.default_factory) else found.type  # type: ignore[assignment]
        last = found
    return str(last.type) if key else None
