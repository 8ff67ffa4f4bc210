"""The whole evaluation of a source of maps on a set of targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.errors import UserError
from automix_transfer.localization.pipeline import Report, Source, Task, measure_all, open_records
from automix_transfer.localization.records import Records
from automix_transfer.localization.scores.box_results import summarize_boxes
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.localization.scores.mask_results import summarize_masks
from automix_transfer.localization.scores.mask_task import MaskTask
from automix_transfer.localization.scores.metrics import default_thresholds
from automix_transfer.localization.targets import TargetSet
from automix_transfer.localization.writing import Results
from automix_transfer.training.joining import refuse_differences, together
from automix_transfer.training.sharing import ALONE, Team


@dataclass(frozen=True)
class Chosen:
    """Where the threshold is chosen: targets of another split, and the source of their maps."""

    target_set: TargetSet
    source: Source


def evaluate(
    source: Source,
    target_set: TargetSet,
    *,
    thresholds: NDArray[np.float64] | None = None,
    threshold: float | None = None,
    chosen: Chosen | None = None,
    workers: int | None = None,
    save_maps: Path | None = None,
    partial: Path | None = None,
    signature: dict[str, Any] | None = None,
    progress: Callable[[str], Report] | None = None,
    team: Team = ALONE,
) -> Results | None:
    """MaxBoxAcc, MaxBoxAccV2 and what belongs to them, or PxAP; ``summary`` is the content of ``out.json``.

    Of several processes, which share the images out, the first gets the results, the others None.

    Everything that can be wrong with targets and maps' files is found before the first image of either split
    is evaluated.

    Args:
        thresholds: (T,) that the maxima are taken over; default 0, 0.001, ... 0.999.
        threshold: fixed threshold of GT-known, top-1 and top-5 localization; default: MaxBoxAcc's best, of
            ``chosen`` if given.
        workers: threads; default all cores.
        save_maps: folder that every score map is written to as ``<image id>.npy``.
        partial: file of records that an interrupted run is continued from, bit for bit; ``signature`` says
            what else it depends on.
        progress: given a split's name, a function called with (images done, images).

    Raises:
        UserError: classes that do not fit, no boxes, maps that are missing or malformed, an unreadable image.
    """
    thresholds = default_thresholds() if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    with_masks = target_set.has_masks or (chosen is not None and chosen.target_set.has_masks)
    if with_masks and (chosen is not None or threshold is not None):
        raise UserError(
            "PxAP counts all thresholds, so there is none to fix (--threshold) or to choose on another split "
            "(--threshold-split, --threshold-metadata); leave the option out"
        )
    ours = _Split(source, target_set, thresholds)
    other = None if chosen is None else _Split(chosen.source, chosen.target_set, thresholds)
    splits = [ours] if other is None else [other, ours]
    _open(splits, partial, signature or {}, team)
    for split in splits:
        report = progress(split.target_set.name) if progress else None
        seconds = measure_all(
            split.source, split.target_set, split.task, split.kept, report, workers, save_maps, team
        )
    if not team.main:
        return None
    notes = [note for split in reversed(splits) for note in split.target_set.notes]
    about = {**source.about, "notes": [*notes, *source.notes(target_set)], "seconds": seconds}
    if isinstance(ours.task, MaskTask):
        return summarize_masks(ours.records, target_set, ours.task, thresholds, about)
    found = None
    if other is not None and isinstance(other.task, BoxTask):
        found = summarize_boxes(other.records, other.target_set, other.task, thresholds)
    return summarize_boxes(ours.records, target_set, ours.task, thresholds, threshold, found, about)


class _Split:
    """One split: its targets, the source of their maps, what is measured, and the records of that."""

    def __init__(self, source: Source, target_set: TargetSet, thresholds: NDArray[np.float64]) -> None:
        self.source, self.target_set, size = source, target_set, source.map_size
        self.task: Task = MaskTask(size, thresholds) if target_set.has_masks else BoxTask(size)
        self.kept: Records | None = None

    @property
    def records(self) -> Records:
        assert self.kept is not None
        return self.kept


def _open(splits: Sequence[_Split], partial: Path | None, signature: dict[str, Any], team: Team) -> None:
    """Find what is wrong, and open the records, in the first process; ``splits`` end with the one that is
    reported, whose file ``partial`` is."""
    if team.world.size > 1:
        refuse_differences(team.world, _facts(splits, signature))

    def work() -> None:
        for split in reversed(splits):
            beside = partial and partial.with_name(f"{partial.name}.{split.target_set.name}")
            file = partial if split is splits[-1] else beside
            if team.main:
                split.kept = open_records(split.source, split.target_set, split.task, file, signature)
            else:
                split.source.check(split.target_set)

    together(team.world, work)


def _facts(splits: Sequence[_Split], signature: dict[str, Any]) -> dict[str, str]:
    """What must be equal in all processes."""
    # a machine may have them elsewhere
    elsewhere = ("root", "metadata", "checkpoint", "loaded", "scoremaps")
    facts: dict[str, Any] = dict(signature)
    for split in splits:
        facts |= {**split.source.about, "--batch-size": split.source.batch_size}
        rows = json.dumps([split.task.signature, split.target_set.rows()]).encode()
        facts[f"images of {split.target_set.name}"] = hashlib.sha256(rows).hexdigest()[:12]
    return {name: str(value) for name, value in facts.items() if name not in elsewhere}
