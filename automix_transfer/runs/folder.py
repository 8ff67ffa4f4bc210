"""Reading run folders for the report. They may be incomplete, hand-edited or of another version: what cannot
be read is a sentence."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.text_files import MOST_BYTES, read_text

Points = tuple[list[float], list[float]]


@dataclass
class RunFolder:
    """What a folder of `training` says of itself; ``problems`` has a sentence for everything that is missing
    or damaged."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    config: str = ""
    start: dict[str, Any] = field(default_factory=dict)  # the last entry of run.json's starts
    seed: int | None = None
    recipe: str = ""  # its bare name
    problems: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """The config, flat."""
        return settings(self.config)

    @property
    def commit(self) -> str:
        """See `commit_of`."""
        return commit_of(self.start)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a number, and not NaN or infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def finite(value: Any, least: float = -1e300, most: float = 1e300) -> float:
    """``value``, where it is a finite number from ``least`` to ``most``; else a `ValueError`."""
    if not is_number(value) or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is no number from {least:g} to {most:g}")
    return float(value)


def number(values: Any, *keys: str) -> float | None:
    """``values[a][b]...`` if it is a finite number, else None."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return float(values) if is_number(values) else None


def commit_of(about: Mapping[str, Any]) -> str:
    """The git commit of what was run, short, with + where the tree was changed; the version of an installed
    copy, as v0.2.0; empty if unknown."""
    commit, version = about.get("commit"), about.get("version")
    if isinstance(commit, str) and commit:
        return commit[:10] + ("+" if about.get("changed") else "")
    return f"v{version}"[:20] if isinstance(version, str) and version else ""


def read_run(path: Path) -> RunFolder:
    """Everything of a run folder that can be read."""
    run = RunFolder(path)
    run.metrics = read_optional(path / "metrics.json", run.problems, "the run has not finished")
    about = read_optional(path / "run.json", run.problems)
    starts, recipe = about.get("starts"), about.get("recipe")
    run.start = starts[-1] if isinstance(starts, list) and starts and isinstance(starts[-1], dict) else {}
    run.seed = about.get("seed") if isinstance(about.get("seed"), int) else None
    run.recipe = str(recipe.get("name") or "") if isinstance(recipe, dict) else ""
    run.history = read_history(path)
    if not run.history:
        run.problems.append(f"{path / 'log.csv'} is missing or has no rows, so there is no learning curve")
    try:
        run.config = read_text(path / "config.yaml", MOST_BYTES)
    except UserError:
        run.problems.append(f"{path / 'config.yaml'} is missing or cannot be read")
    return run


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows by epoch of ``path/log.csv``, without empty cells: what is readable of them."""
    rows = []
    with suppress(UserError, csv.Error):
        for row in csv.DictReader(read_text(path / "log.csv").splitlines()):
            cells = {key: _number_in(value) for key, value in row.items() if key}
            rows.append({key: value for key, value in cells.items() if value is not None})
    return [row for row in rows if "epoch" in row]


def _number_in(text: Any) -> float | None:
    try:
        return value if math.isfinite(value := float(text)) else None
    except (TypeError, ValueError):
        return None


def read_metrics(run: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Detectron2's ``metrics.json`` (a JSON object a line) by iteration; of an iteration that a resumed run
    did again, the last."""
    file = run / "metrics.json"
    found: dict[int, dict[str, Any]] = {}
    try:
        lines = read_text(file).splitlines()
    except UserError as error:
        problems.append(f"{error}; its run is not among the curves")
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # a killed run leaves half a line
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            found[row["iteration"]] = {**found.get(row["iteration"], {}), **row}
    return [found[iteration] for iteration in sorted(found)]


def points(rows: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Iterations (from 1) and values of the rows that have a finite ``key``."""
    # Detectron2 files the evaluation after the last iteration, which trained, under the next
    last = max((row["iteration"] for row in rows if "total_loss" in row), default=math.inf)
    found = [row for row in rows if is_number(row.get(key))]
    return [min(row["iteration"], last) + 1.0 for row in found], [float(row[key]) for row in found]


def settings(config: str) -> dict[str, str]:
    """``data.image_size`` -> ``64``: the settings of a config.yaml as we write them; lines that a hand has
    damaged are passed over."""
    found: dict[str, list[str]] = {}
    above: list[str] = []
    for line in config.splitlines():
        text = line.strip()
        depth = (len(line) - len(line.lstrip())) // 2
        if text.startswith("- ") and above:
            found.setdefault(".".join(above), []).append(text[2:])
            continue
        key, colon, value = text.partition(":")
        if not colon or not key or key.startswith("#"):
            continue
        above = [*above[:depth], key]
        if value.strip():
            found[".".join(above)] = [value.strip()]
    return {name: ", ".join(values) for name, values in found.items()}


def differences(configs: Sequence[str], own: Sequence[str] = ("output",)) -> list[dict[str, str]]:
    """For each config, its settings that are not what most of them have; an absent one is "–". Settings named
    in ``own`` say nothing."""
    flat = [settings(config) for config in configs]
    usual = {}
    for key in dict.fromkeys(key for one in flat for key in one):
        usual[key] = Counter(one.get(key, "–") for one in flat if one).most_common(1)[0][0]
    return [
        {
            key: one.get(key, "–")
            for key, value in usual.items()
            if one and key not in own and one.get(key, "–") != value
        }
        for one in flat
    ]


def read_optional(path: Path, problems: list[str], reason: str = "") -> dict[str, Any]:
    """A JSON object, or an empty one and a sentence in ``problems``; ``reason``: why it may be missing."""
    try:
        found = tame(read_json(path))
    except UserError as error:
        problems.append(str(error) + (f": {reason}" if reason and not path.exists() else ""))
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path} is not a JSON object")
        return {}
    return found


def tame(value: Any, depth: int = 0) -> Any:
    """``value`` with None for what no page can show: NaN, infinities, whole numbers of hundreds of digits,
    and hundreds of brackets."""
    if isinstance(value, dict):
        return {key: tame(item, depth + 1) for key, item in value.items()} if depth < 40 else None
    if isinstance(value, list):
        return [tame(item, depth + 1) for item in value] if depth < 40 else None
    return None if isinstance(value, (int, float)) and not abs(value) < 1e300 else value
