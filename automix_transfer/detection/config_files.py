"""Detectron2's configs as files, overrides and overlays, read as data: nothing is fetched or built."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from automix_transfer.config import MOST_FILES, flatten, read_yaml
from automix_transfer.errors import UserError
from automix_transfer.io import expand_home
from automix_transfer.recipes.find import find_recipe

# a child of Detectron2's logger, so that it shares its files and format
logger = logging.getLogger("detectron2.automix_transfer")
BASE = "_BASE_"
LONGEST = 1000  # characters of a value that is no text


def merge_file(cfg: CfgNode, file: Path) -> set[str]:
    """Set what a config file and its ``_BASE_`` say; returns the keys.

    Raises:
        UserError: a file that cannot be read, is no config, or names an unknown key or a wrong type.
    """
    if file == Path():
        raise UserError("the config file has no name; give --config-file, e.g. voc_R50_C4_24k")
    flat: dict[str, Any] = {}
    for layer in _layers(file, (), iter(range(MOST_FILES))):
        flat |= layer
    for key, value in flat.items():
        set_value(cfg, key, value, f"config file {file}")
    return set(flat) - {"VERSION"}


def _layers(file: Path, above: tuple[Path, ...], left: Iterator[int]) -> Iterator[dict[str, Any]]:
    """The settings of ``file`` behind those of its bases, by dotted keys."""
    content = read_yaml(file)
    bases = content.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"config file {file}: {BASE} must be a file name or a list of file names")
    if file.resolve() in above or next(left, None) is None:
        raise UserError(
            f"config file {file} is based on itself, or on more than {MOST_FILES} files; correct its {BASE}"
        )
    for base in bases:
        if "://" in base:
            raise UserError(
                f"config file {file}: {BASE} is {base}, and nothing is downloaded here; download the file "
                "and give its path"
            )
        found = find_recipe(expand_home(base), "detection", beside=file.parent)
        yield from _layers(found, (*above, file.resolve()), left)
    yield flatten(content)


def merge_overrides(cfg: CfgNode, overrides: Sequence[str]) -> set[str]:
    """Set ``KEY VALUE KEY VALUE ...``, text as it is typed; returns the keys."""
    overrides = [part for part in overrides if part != "--"]
    if late := [part for part in overrides if part.startswith("--")]:
        raise UserError(f"option {late[0][:80]} stands behind KEY VALUE pairs; put options before them")
    if len(overrides) % 2:
        raise UserError(
            f"overrides must be pairs of KEY VALUE, e.g. SOLVER.BASE_LR 0.01; '{overrides[-1]}' has no value"
        )
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        source = f"override '{key} {show(value)}'"
        text = isinstance(get_value(cfg, key, source), str) and value != "None"
        if not text and len(value) > LONGEST:
            raise UserError(f"{source}: the value has {len(value):,} characters; give a shorter one")
        set_value(cfg, key, value if text else CfgNode._decode_cfg_value(value), source)
    return set(overrides[::2])


def set_value(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    """Set a dotted key; a `UserError` that names ``source`` where it is unknown or of another type."""
    *above, name = key.split(".")
    present = get_value(cfg, key, source)
    try:
        if value is None and get_value(get_cfg(), key, source) is not None:  # yacs takes None for any type
            raise TypeError("None")
        if isinstance(present, str) and isinstance(value, str):  # merge_from_list makes 2024_01 a number
            get_value(cfg, ".".join(above), source)[name] = value
        else:
            cfg.merge_from_list([key, value])
    except (
        ValueError,
        AssertionError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UserError(
            f"{source}: {key} must be of type {type(present).__name__}, not {type(value).__name__} "
            f"({show(value)})"
        ) from error


def get_value(cfg: CfgNode, key: str, source: str) -> Any:
    """The value of a dotted key; a `UserError` that suggests the closest one where it is unknown."""
    node: Any = cfg
    for number, part in enumerate(key.split(".") if key else ()):
        if not isinstance(node, CfgNode) or part not in node:
            known = [str(name) for name in node] if isinstance(node, CfgNode) else []
            close = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
            above = "".join(f"{name}." for name in key.split(".")[:number])
            hint = f"did you mean {above}{close[0]}?" if close else f"known there: {', '.join(known)}"
            raise UserError(f"{source}: unknown config key {key}; {hint}")
        node = node[part]
    return node


def same(a: Any, b: Any) -> bool:
    """Equal as configuration values; numbers to 4 digits, lists and tuples alike."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if {type(a), type(b)} <= {int, float}:
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-10)
    return a == b


def show(value: Any) -> str:
    """A value as a part of a sentence, its beginning where it is long."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) < 100 else f"{text[:100]}..."
