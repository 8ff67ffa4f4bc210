"""What folders hold that a report can show. Everything is known by its content, never by where it lies: a
foreign folder gives nothing, a damaged file a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.runs.folder import tame

T = TypeVar("T")
RUN_FILES = {"run.json", "metrics.json", "log.csv"}
# of a run of Detectron2, whose metrics.json is a JSON object a line
DETECTOR_FILES = {"last_checkpoint", "model_final.pth"}
PRUNED = {"tensorboard", "wandb", "maps", "logs", "pictures", "checkpoints", "__pycache__", "node_modules"}
SILENT = {f"{name}.json" for name in "metrics run categories best began demo captions".split()}
DEPTH, FOLDERS, JSON_BYTES = 7, 20_000, 8_000_000
SLIDER = "slider.json"
#: file -> its kind, whatever it holds
BY_NAME = {SLIDER: "slider", "confusion.json": "confusion"}
#: the steps of a chain and its starts, in the order in which the page shows them
STEPS = ("pretrain", "downstream", "detection", "finetune", "localization", "probe")
ORDER = (*STEPS, "vanilla", "random", "mixup", "cutmix", "automix")


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda content: all(key in content for key in keys)


#: kind -> whether a JSON object is one; the first that fits
KINDS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "proof": _has("matched", "total", "largest_difference"),
    "detection": lambda c: "AP50" in c and ("detector" in c or "metrics" in c),
    "answer": lambda c: (
        isinstance(c.get("rows"), list) and isinstance(about := c.get("about"), dict) and "backbones" in about
    ),
    "comparison": lambda c: isinstance(c.get("rows"), list) and isinstance(c.get("about"), dict),
    "localization": lambda c: ("MaxBoxAcc" in c or "PxAP" in c) and "accuracy" not in c,
    "steps": lambda c: isinstance(c.get("steps"), dict) and isinstance(c.get("setting"), dict),
    "confusion": lambda c: isinstance(c.get("pairs") or c.get("most_confused"), list),
    "mixed": lambda c: isinstance(c.get("accuracy"), dict) and "images" in c,
    "evaluation": lambda c: isinstance(c.get("about"), dict) and "images" in c,
    "summary": lambda c: isinstance(c.get("pretrain"), dict),
}


@dataclass
class File:
    """A JSON file of a section of the page: ``name`` is what the page calls it, ``content`` an object."""

    path: Path
    name: str
    content: dict[str, Any]


@dataclass
class Found:
    """All that some folders hold, in the page's order; ``problems``: a sentence for everything damaged."""

    folders: list[Path]
    runs: list[Path] = field(default_factory=list)
    detectors: list[Path] = field(default_factory=list)
    files: dict[str, list[File]] = field(default_factory=dict)  # kind of `KINDS` -> files
    figures: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[File]:
        """The files of a kind."""
        return self.files.get(kind, [])

    def read(self, kind: str, reader: Callable[[File], T]) -> list[T]:
        """What ``reader`` makes of each file of a kind; a sentence for one that was edited or is of another
        version, so that readers may trust what they are given."""
        results = []
        for file in self.of(kind):
            try:
                results.append(reader(file))
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                self.problems.append(
                    f"{file.path} is not as this version writes it ({type(error).__name__}: {error})"
                )
        return results

    def name(self, path: Path) -> str:
        """What the page calls ``path``: from the folder that was given, with that folder's name where there
        are several."""
        for folder in sorted(self.folders, key=lambda f: len(f.parts)):
            if path == folder or folder in path.parents:
                inner = path.relative_to(folder)
                if len(self.folders) == 1:
                    return str(inner) if inner.parts else path.resolve().name
                same = [other for other in self.folders if other.resolve().name == folder.resolve().name]
                return str(Path(folder.resolve().name if len(same) == 1 else str(folder)) / inner)
        return str(path)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.runs or self.detectors or self.figures or self.files)


def collect(folders: Sequence[Path]) -> Found:
    """Look through ``folders``.

    Raises:
        UserError: one of them does not exist.
    """
    found = Found(list(dict.fromkeys(folders)))
    for folder in found.folders:
        if not folder.is_dir():
            raise UserError(
                f"{folder} does not exist or is not a folder; give folders of runs, e.g. runs/demo"
            )
    seen: set[Path] = set()
    for folder in found.folders:
        _walk(folder, found, seen)
    for paths in (found.runs, found.detectors, found.figures):
        paths.sort(key=lambda path: _place(found.name(path)))
    for files in found.files.values():
        files.sort(key=lambda file: _place(file.name))
    return found


def _walk(folder: Path, found: Found, seen: set[Path]) -> None:
    def unreadable(error: OSError) -> None:
        found.problems.append(f"{error.filename} could not be read")

    for here, inner, names in os.walk(folder, onerror=unreadable):
        path, files = Path(here), set(names)
        inner[:] = sorted(name for name in inner if name not in PRUNED and not name.startswith("."))
        if len(path.relative_to(folder).parts) >= DEPTH:
            inner.clear()
        if path.resolve() in seen:
            continue
        if len(seen) >= FOLDERS:
            found.problems.append(
                f"{folder} has more than {FOLDERS:,} folders; those after {path} are left out"
            )
            return
        seen.add(path.resolve())
        if files & DETECTOR_FILES:
            found.detectors.append(path)
        elif files & RUN_FILES:
            found.runs.append(path)
        if path.name == "figures" and any(name.endswith(".png") for name in files):
            found.figures.append(path)
        for name in sorted(name for name in files - SILENT if name.endswith(".json")):
            _file(path / name, found)


def _file(path: Path, found: Found) -> None:
    try:
        if path.stat().st_size > JSON_BYTES:
            raise UserError(f"{path} is larger than {JSON_BYTES // 1_000_000} MB, so it was not read")
        content = tame(read_json(path))
    except (UserError, OSError) as error:
        found.problems.append(str(error))
        return
    if isinstance(content, dict):
        kind = BY_NAME.get(path.name) or next((kind for kind, fits in KINDS.items() if fits(content)), None)
        if kind:
            found.files.setdefault(kind, []).append(File(path, found.name(path), content))


def _place(name: str) -> tuple[Any, ...]:
    """In the chain's order, then by name with numbers in their order."""
    parts = []
    for part in Path(name).parts:
        stem = part.removesuffix(".json")
        start = next((known for known in ORDER if stem == known or stem.endswith(f"_{known}")), "")
        before = stem.removesuffix(start).removesuffix("_") if start else ""
        digits = "".join(c for c in stem if c.isdecimal())[:9]
        parts.append((before, ORDER.index(start) if start else len(ORDER), int(digits or 0), part))
    return tuple(parts)
