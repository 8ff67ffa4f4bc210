"""Reading run folders for the report. They may be incomplete, hand-edited or of another version: what cannot be read is a sentence."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.io import read_json


@dataclass
class RunFolder:
    """What a folder of `training` says of itself; ``problems`` has a sentence for everything that is missing or damaged."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    config: str = ""
    start: dict[str, Any] = field(default_factory=dict)  # the last entry of run.json's starts
    seed: int | None = None
    pictures: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """The git commit, short, with + where the tree was changed; empty if unknown."""
        commit = str(self.start.get("commit") or "")
        return commit[:10] + ("+" if commit and self.start.get("changed") else "")


def read_run(path: Path) -> RunFolder:
    """Everything of a run folder that can be read."""
    run = RunFolder(path)
    if not path.is_dir():
        run.problems.append(f"{path} does not exist")
        return run
    run.metrics = _mapping(path / "metrics.json", run.problems, "the run has not finished")
    about = _mapping(path / "run.json", run.problems)
    starts = about.get("starts")
    run.start = starts[-1] if isinstance(starts, list) and starts and isinstance(starts[-1], dict) else {}
    run.seed = about.get("seed") if isinstance(about.get("seed"), int) else None
    run.history = read_history(path, run.problems)
    config = path / "config.yaml"
    try:
        run.config = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        run.problems.append(f"{config} is missing or cannot be read")
    run.pictures = sorted((path / "pictures").glob("*.png"))
    return run


def read_history(path: Path, problems: list[str] | None = None) -> list[dict[str, float]]:
    """The rows by epoch of ``path/log.csv``; empty cells are left out. A missing or damaged file gives what is readable of it."""
    rows: list[dict[str, float]] = []
    try:
        with (path / "log.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                numbers = {}
                for key, value in row.items():
                    try:
                        numbers[key] = float(value)
                    except (TypeError, ValueError):
                        continue
                if "epoch" in numbers:
                    rows.append(numbers)
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    if not rows and problems is not None:
        problems.append(f"{path / 'log.csv'} is missing or has no rows, so there is no learning curve")
    return rows


def read_optional(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object, or an empty one and a sentence in ``problems``."""
    return _mapping(path, problems)


def _mapping(path: Path, problems: list[str], reason: str = "") -> dict[str, Any]:
    try:
        found = read_json(path)
    except UserError as error:
        problems.append(str(error) + (f": {reason}" if reason and not path.exists() else ""))
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path} is not a JSON object")
        return {}
    return found
