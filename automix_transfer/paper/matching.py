"""Which cell a run belongs to, and how its training differs from what the cell's recipe says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automix_transfer.paper.references import Reference, training_key
from automix_transfer.paper.trained import FREE, START, Trained, is_whole, short

#: settings that shrinking changes; they are told in epochs and images
SCALED = {"train.epochs", "schedule.warmup_epochs", "data.limit_per_class"}


@dataclass(frozen=True)
class Match:
    """The training that a run is one of, and how it differs: ``marks`` are sentences' worth each, the empty
    tuple is an exact run."""

    reference: Reference
    marks: tuple[str, ...]


def match(run: Trained, by_bucket: Mapping[tuple[str, ...], list[Reference]]) -> Match | None:
    """The reference whose settings a run has, or nearly has; None if no cell has its data set, encoder and
    method."""
    candidates = by_bucket.get(run.bucket, [])
    if not candidates:
        return None
    planned = run.planned.get("attributes")
    if isinstance(planned, Mapping):
        chosen = [reference for reference in candidates if reference.key == training_key(planned)]
        candidates = chosen or candidates
    scored = [(differences(run.config, reference.config), reference) for reference in candidates]
    differing, reference = min(
        scored,
        key=lambda pair: (
            len([key for key in pair[0] if key not in SCALED]),
            _distance(run.config, pair[1].config),
        ),
    )
    return Match(reference, tuple(_marks(run, reference, differing)))


def _marks(run: Trained, reference: Reference, differing: Mapping[str, tuple[Any, Any]]) -> list[str]:
    marks, told = [], set()
    if "train.epochs" in differing:
        ours, theirs = differing["train.epochs"]
        marks.append(f"{short(ours)} of {short(theirs)} epochs")
        told |= {"train.epochs", "schedule.warmup_epochs"}
    if reference.data is not None and is_whole(classes := differing.get("data.limit_classes", (None,))[0]):
        told.add("data.limit_classes")  # another task, not fewer images of the same
        marks += (
            [f"{classes} of {reference.data.classes:,} classes"]
            if 0 < classes < reference.data.classes
            else []
        )
    if images := _image_mark(run, reference):
        marks += images
        told.add("data.limit_per_class")
    marks += _start_mark(run, reference)
    rest = {key: pair for key, pair in differing.items() if key not in told}
    if rest:
        shown = ", ".join(
            f"{key}={short(ours)} (recipe: {short(theirs)})"
            for key, (ours, theirs) in sorted(rest.items())[:3]
        )
        marks.append(shown + (f" and {len(rest) - 3} more settings" if len(rest) > 3 else ""))
    return marks + run.oddities


def _start_mark(run: Trained, reference: Reference) -> list[str]:
    """What the run starts from, where the paper's starts from something else."""
    weights = " ".join(str(run.config.get("encoder.weights") or "").split())
    if reference.attributes.get("procedure") == "fine-tuning":
        return [] if weights else ["from random weights instead of ImageNet's"]
    return [f"starts from {weights if len(weights) <= 100 else '...' + weights[-97:]}"] if weights else []


def _image_mark(run: Trained, reference: Reference) -> list[str]:
    """How many images an epoch saw, from its steps, where it was not all of the data set."""
    batch, data = run.config.get("train.batch_size"), reference.data
    if data is None or not run.epochs or not is_whole(batch) or batch < 1:
        return []
    steps, whole = run.steps / run.epochs, data.train // batch
    if abs(steps - whole) <= 0.01 * whole:
        return []
    return [f"about {round(steps * batch):,} of {data.train:,} images"]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(ours, theirs) of every setting that changes what is trained and is not the same in both flat configs;
    the file that a training starts from is left to the caller."""
    # without a file it does not matter how it would be read
    free = FREE if ours.get("encoder.weights") else FREE.union(START)
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


def _distance(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """How far apart the epochs are; a shrunk run is put with the shortest training that it could be one of."""
    try:
        return abs(math.log(float(ours["train.epochs"]) / float(theirs["train.epochs"])))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return math.inf
