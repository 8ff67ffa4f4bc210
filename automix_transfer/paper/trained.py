"""What a folder of training measured, which cell it is of, and how it differs from that cell's recipe.

A run names its recipe in ``run.json``. One that has not finished gives no figure; one that was trained
otherwise than its recipe says (fewer epochs, fewer images, other settings, another version) gives its figure
with a mark for each difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from automix_transfer import __version__
from automix_transfer.config import flatten
from automix_transfer.errors import UserError
from automix_transfer.paper.references import Reference, training_key, with_defaults
from automix_transfer.runs.folder import commit_of, is_number, read_optional
from automix_transfer.text_files import read_text
from automix_transfer.training.settings import FREE_ON_RESUME

PLANNED = "planned.json"  #: what `report run` writes beside a run: the cell that it is for, and its recipe
#: settings that do not change what is trained: where, how fast, how often it is saved
FREE = FREE_ON_RESUME | {
    "seed",
    "train.channels_last",
    "train.compile",
    "train.deterministic",
    "train.accumulate",
    "train.sync_batchnorm",
    "data.on_bad_image",
    "data.classes",
    "method.teacher_weights",
}
#: what a training starts from: nothing without a file, but with one it is another experiment
START = ("encoder.weights", "encoder.which", "encoder.classifier")
#: what a run shares with its cell, whatever else is set
SHARED = ("data.dataset", "encoder.name", "encoder.stem", "method.name")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Trained:
    """A run of `training`.

    Attributes:
        config: flat, with this version's defaults for what it does not say.
        recipe: the bare name of its recipe; empty where none is known.
        experiment_id: hash of the config without seed and output; runs that share it are trials.
        top1: median of the last epochs in percent.
        faults: why it has no figure, a sentence each.
        oddities: what is odd without making it useless.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    experiment_id: str = ""
    seed: int | None = None
    top1: float | None = None
    steps: int = 0
    epochs: int = 0
    hours: float | None = None
    commit: str = ""
    device: str = ""
    planned: Mapping[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """The training that a run is one of; ``marks`` say how it differs, the empty tuple is an exact run."""

    reference: Reference
    marks: tuple[str, ...]


def read_trained(path: Path) -> Trained:
    """Read a run's config.yaml, run.json and metrics.json."""
    run = Trained(path)
    about = read_optional(path / "run.json", run.oddities)
    run.planned = read_optional(path / PLANNED, run.oddities) if (path / PLANNED).is_file() else {}
    recipe = about.get("recipe")
    named = recipe.get("name") if isinstance(recipe, dict) else None
    run.recipe = str(named or "") or Path(str(run.planned.get("recipe") or "")).stem
    run.seed = seed if is_whole(seed := about.get("seed")) else None
    starts = about.get("starts")
    last = starts[-1] if isinstance(starts, list) and starts and isinstance(starts[-1], dict) else {}
    run.commit, run.device = commit_of(last), short(last.get("device") or "")
    packages = last.get("packages")
    version = packages.get("automix_transfer", __version__) if isinstance(packages, dict) else __version__
    try:
        lines = read_text(path / "config.yaml").splitlines(keepends=True)
        own = ("seed:", "output:")
        run.config, run.experiment_id = _parse("".join(line for line in lines if not line.startswith(own)))
    except (UserError, ValueError, yaml.YAMLError, RecursionError, TypeError, AttributeError):
        run.faults.append(
            f"{path / 'config.yaml'} is missing or damaged, so it is not known what was trained"
        )
        return run
    if version != __version__:
        run.oddities.append(f"made by version {short(version)}")
    _read_metrics(run)
    return run


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Mapping[str, Any], str]:
    """(flat config over the defaults, experiment id); the same text is parsed once."""
    if max(text.count(opening) for opening in ("- ", "[", "{", "? ")) > 4000:
        raise ValueError("nested too deeply for the parser in C, which would end the interpreter")
    content = yaml.load(text, Loader=_Loader)
    if not all(isinstance(content.get(section), dict) for section in ("method", "train", "data")):
        raise ValueError("sections are missing")
    given = flatten(content)
    free = FREE - {START[0]} if given.get(START[0]) else FREE.union(START)
    relevant = sorted((key, value) for key, value in given.items() if key not in free)
    plain = {key: value for key, value in given.items() if key != "method.preset"}  # it may set what is newer
    identity = hashlib.sha256(json.dumps(relevant, default=str).encode()).hexdigest()[:16]
    return with_defaults(plain) | given, identity


def _read_metrics(run: Trained) -> None:
    if not (run.path / "metrics.json").exists():
        run.faults.append(f"{run.path} has not finished ({epochs_done(run.path)} epochs so far)")
        return
    metrics = read_optional(run.path / "metrics.json", run.faults)
    top1, epochs, steps, seconds = (metrics.get(key) for key in ("top1_median", "epochs", "steps", "seconds"))
    if is_number(top1) and 0 <= top1 <= 100 and is_whole(epochs) and is_whole(steps) and epochs:
        run.top1, run.epochs, run.steps = float(top1), epochs, steps
        run.hours = seconds / 3600 if is_number(seconds) and seconds > 0 else None
    elif metrics:
        run.faults.append(
            f"{run.path / 'metrics.json'} has no median top-1 between 0 and 100, epochs and steps; run it "
            "again with --resume"
        )


def epochs_done(folder: Path) -> int:
    """Epochs that log.csv has."""
    try:
        return max(0, len(read_text(folder / "log.csv").splitlines()) - 1)
    except UserError:
        return 0


def match(run: Trained, references: Sequence[Reference]) -> Match | None:
    """The training of the run's recipe that it is, with what differs; None if it is none of them.

    ``references`` are those of the recipe: its own cell first, then others that it serves with settings
    changed. A run that was planned is of the cell that it was planned for.
    """
    same = [
        one for one in references if all(equal(run.config.get(key), one.config.get(key)) for key in SHARED)
    ]
    attributes = run.planned.get("attributes")
    wanted = training_key(attributes) if isinstance(attributes, Mapping) else None
    chosen = [one for one in same if one.key == wanted] or same
    if not chosen:
        return None
    differing, reference = min(
        ((differences(run.config, one.config), one) for one in chosen), key=lambda pair: len(pair[0])
    )
    return Match(reference, tuple(_marks(run, reference, differing)))


def _marks(run: Trained, reference: Reference, differing: dict[str, tuple[Any, Any]]) -> list[str]:
    marks = []
    if "train.epochs" in differing:
        ours, theirs = differing.pop("train.epochs")
        marks.append(f"{short(ours)} of {short(theirs)} epochs")
        differing.pop("schedule.warmup_epochs", None)
    if (data := reference.data) is not None:
        classes, _ = differing.pop("data.limit_classes", (0, 0))  # another task, not fewer images of the same
        if is_whole(classes) and 0 < classes < data.classes:
            marks.append(f"{classes} of {data.classes:,} classes")
        batch = run.config.get("train.batch_size")
        if run.epochs and is_whole(batch) and batch:
            steps, whole = run.steps / run.epochs, data.train // batch
            if abs(steps - whole) > 0.01 * whole:
                marks.append(f"about {round(steps * batch):,} of {data.train:,} images")
                differing.pop("data.limit_per_class", None)
    weights = " ".join(str(run.config.get(START[0]) or "").split())
    if reference.attributes.get("procedure") == "fine-tuning":
        marks += [] if weights else ["from random weights instead of ImageNet's"]
    elif weights:
        marks.append(f"starts from {weights if len(weights) <= 100 else '...' + weights[-97:]}")
    if differing:
        shown = ", ".join(
            f"{key}={short(ours)} (recipe: {short(theirs)})"
            for key, (ours, theirs) in sorted(differing.items())[:3]
        )
        marks.append(shown + (f" and {len(differing) - 3} more settings" if len(differing) > 3 else ""))
    return marks + run.oddities


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(ours, theirs) of every setting that changes what is trained and is not the same in both flat configs.

    The file that a training starts from is left to the caller; without one, how it would be read is nothing.
    """
    free = FREE if ours.get(START[0]) else FREE.union(START)
    keys = [key for key in {**theirs, **ours} if key not in free]
    return {
        key: (ours.get(key), theirs.get(key)) for key in keys if not equal(ours.get(key), theirs.get(key))
    }


def equal(one: Any, other: Any) -> bool:
    """Equal as settings: 1 and 1.0 and the text 1.0e-4, lists item by item."""
    if one == other:
        return True
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    try:
        return not isinstance(one, bool) and not isinstance(other, bool) and float(one) == float(other)
    except (TypeError, ValueError, OverflowError):
        return False


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether ``value`` is a count."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1e15


def short(value: Any) -> str:
    """A value on one line, cut at 40 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
