"""What a folder of training measured, and whether that can be believed: the run's figure, its settings, and
sentences on what is odd.

A run that has not finished, or whose files contradict each other, gives no figure. One that is whole but was
trained otherwise than the paper's cell says (fewer epochs, fewer images, other settings, another version)
gives its figure with a mark for each difference.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from automix_transfer import __version__
from automix_transfer.paper.references import with_defaults
from automix_transfer.runs.folder import read_optional
from automix_transfer.training.settings import FREE_ON_RESUME, as_read

# what `report run` writes beside a run: the cell that it is for, and by what it was shrunk
PLANNED = "planned.json"
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
    "method.preset",
    "method.teacher_weights",
}
#: what a training starts from: nothing without a file, but with one it is another experiment, though a
#: resumed run needs no file
START = ("encoder.weights", "encoder.which", "encoder.classifier")
ROUNDING = 0.006  # log.csv and metrics.json may be rounded
BIGGEST = 1_000_000  # bytes of a config.yaml or of the end of a log.csv that are read
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Trained:
    """A run of `training`.

    Attributes:
        config: flat, with this version's defaults for what it does not say.
        given: a digest of the config but for the seed and the output, with the weights that it started from;
            runs with the same are trials of one experiment.
        top1: median of the last epochs in percent; None where it cannot be believed.
        faults: why it has no figure, a sentence each.
        oddities: what is odd without making it useless.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    given: str = ""
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

    @property
    def bucket(self) -> tuple[str, ...]:
        """What a run and its cell must share: data set, encoder, stem and method."""
        return bucket_of(self.config)


def bucket_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """See `Trained.bucket`."""
    return tuple(
        str(config.get(key, "")) for key in ("data.dataset", "encoder.name", "encoder.stem", "method.name")
    )


def read_trained(path: Path) -> Trained:
    """Read a run's config.yaml, run.json, metrics.json and the end of its log.csv; nothing in them is
    believed unseen."""
    run = Trained(path)
    try:
        with (path / "config.yaml").open("rb") as file:
            text = file.read(BIGGEST).decode()
        config, unknown, run.given = _parse(re.sub(r"^(seed|output):.*\n", "", text, flags=re.MULTILINE))
        run.config = config
        run.oddities += [f"settings unknown to this version ({', '.join(unknown[:3])})"] if unknown else []
    except (
        OSError,
        UnicodeDecodeError,
        ValueError,
        yaml.YAMLError,
        RecursionError,
        TypeError,
        AttributeError,
    ):
        run.faults.append(
            f"{path / 'config.yaml'} is missing or damaged, so it is not known what was trained"
        )
    about = read_optional(path / "run.json", run.oddities)
    seed = about.get("seed")
    run.seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else None
    _start(run, about)
    _weights(run, about)
    planned = path / PLANNED
    run.planned = read_optional(planned, run.oddities) if planned.is_file() else {}
    if run.config:
        _metrics(run)
    return run


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Mapping[str, Any], list[str], str]:
    """(flat config over the defaults, its keys that this version does not know, digest); the same text is
    parsed once."""
    if text.count("[") + text.count("{") > 1000 or any(
        line.count("- ") + line.count("? ") > 100 for line in text.splitlines()
    ):
        raise ValueError("nested more deeply than any config; the parser in C would end the interpreter")
    content = yaml.load(text, Loader=_Loader)
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise ValueError("not a mapping")
    if not all(isinstance(content.get(section), dict) for section in ("method", "train", "data")):
        raise ValueError("sections are missing")
    given = as_read(content)
    config = with_defaults(given)
    known = with_defaults({"method.name": given.get("method.name", "vanilla")})
    relevant = {key: value for key, value in given.items() if key not in FREE and key not in START}
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return config, [key for key in given if key not in known], digest


def _start(run: Trained, about: Mapping[str, Any]) -> None:
    """Commit and version of the run's starts."""
    starts = about.get("starts")
    rows = [row for row in starts if isinstance(row, dict)] if isinstance(starts, list) else []
    if not rows:
        return
    commit = str(rows[-1].get("commit") or "")
    run.commit = commit[:10] + ("+" if commit and rows[-1].get("changed") else "")
    run.device = short(rows[-1].get("device") or "")
    versions = {
        str(row["packages"].get("automix_transfer")) for row in rows if isinstance(row.get("packages"), dict)
    }
    others = sorted(versions - {__version__, "None"})
    run.oddities += [f"made by version {short(others[0])}"] if others else []


def _weights(run: Trained, about: Mapping[str, Any]) -> None:
    """What the training started from, as part of `Trained.given`. The command of its first start has the last
    word: one that goes on from a checkpoint may leave the file out or name another, and ``config.yaml`` is
        that of the last start."""
    starts = about.get("starts")
    command = (
        starts[0].get("command")
        if isinstance(starts, list) and starts and isinstance(starts[0], dict)
        else None
    )
    try:
        words = shlex.split(command)[::-1] if isinstance(command, str) else []
    except ValueError:  # an open quote
        words = []
    first = next((word.partition("=")[2] for word in words if word.startswith(f"{START[0]}=")), None)
    if run.config and first is not None:
        run.config = {**run.config, START[0]: first}
    if run.config.get(START[0]):
        run.given += "".join(f" {run.config.get(key)}" for key in START)


def _metrics(run: Trained) -> None:
    """The figure, if metrics.json, log.csv and the config agree on it."""
    path, wanted = run.path, run.config.get("train.epochs")
    if not (path / "metrics.json").exists():
        done = _last_epoch(path)
        run.faults.append(
            f"{path} has not finished ({done} of {wanted} epochs)"
            if done
            else f"{path} has not finished an epoch"
        )
        return
    metrics = read_optional(path / "metrics.json", run.faults)
    if not metrics:
        return
    top1, epochs, steps, seconds = (metrics.get(key) for key in ("top1_median", "epochs", "steps", "seconds"))
    if (
        not is_number(top1)
        or not 0 <= top1 <= 100
        or not is_whole(epochs)
        or not is_whole(steps)
        or epochs < 1
    ):
        run.faults.append(
            f"{path / 'metrics.json'} has no median top-1 between 0 and 100, epochs and steps; run it again "
            "with --resume"
        )
        return
    run.epochs, run.steps = epochs, steps
    run.hours = seconds / 3600 if is_number(seconds) and seconds > 0 else None
    if epochs != wanted:
        run.faults.append(
            f"{path}: metrics.json is of {epochs} epochs, config.yaml of {short(wanted)}: one of them was "
            "changed"
        )
        return
    window = metrics.get("median_epochs")
    rows = _tail(path / "log.csv", window if is_whole(window) and 1 <= window <= 10_000 else 0)
    if rows is None:
        run.oddities.append("no log.csv to check it by")
    elif not rows or abs(statistics.median(rows) - top1) > ROUNDING:
        run.faults.append(
            f"{path}: metrics.json says {top1:.2f}, but log.csv gives "
            + (f"{statistics.median(rows):.2f}" if rows else "nothing")
            + ": one of them was changed by hand"
        )
        return
    run.top1 = float(top1)


def _tail(path: Path, count: int) -> list[float] | None:
    """``top1`` of the last ``count`` evaluated epochs; None without a file. Only its end is read."""
    try:
        with path.open("rb") as file:
            head = file.readline(BIGGEST).decode()
            size = file.seek(0, 2)
            file.seek(max(len(head.encode()), size - BIGGEST))
            lines = file.read().decode().splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return []
    columns = next(csv.reader([head]), [])
    if "top1" not in columns or not count:
        return []
    at = columns.index("top1")
    values = []
    for line in lines[-4 * count - 10 :]:
        cells = line.split(",")
        try:
            number = float(cells[at])
        except (IndexError, ValueError):
            continue
        if math.isfinite(number):
            values.append(number)
    return values[-count:]


def _last_epoch(path: Path) -> int:
    """Epochs that log.csv has."""
    try:
        lines = (path / "log.csv").read_text(encoding="utf-8").splitlines()
        return int(float(lines[-1].split(",")[lines[0].split(",").index("epoch")])) if len(lines) > 1 else 0
    except (OSError, UnicodeDecodeError, ValueError, IndexError, OverflowError):
        return 0


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a number, and not NaN or infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether ``value`` is a count."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1e15


def short(value: Any) -> str:
    """A value on one line, cut at 40 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
