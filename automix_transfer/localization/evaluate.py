"""The whole evaluation of a source of maps on a set of targets; its parts are `pipeline` (images to records)
and the two ``*_results``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.errors import UserError
from automix_transfer.localization.pipeline import Progress, Source, Task, measure_all, open_records
from automix_transfer.localization.scores.box_results import BoxResults, summarize_boxes
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.localization.scores.mask_results import summarize_masks
from automix_transfer.localization.scores.mask_task import MaskTask
from automix_transfer.localization.scores.metrics import default_thresholds
from automix_transfer.localization.targets import TargetSet
from automix_transfer.localization.writing import Results


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
    progress: Callable[[str], Progress] | None = None,
) -> Results:
    """MaxBoxAcc, MaxBoxAccV2 and what belongs to them; with masks PxAP. ``summary`` of what it returns is the
    content of ``out.json``.

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
            "PxAP has no threshold to fix or to choose on another split, because it counts all of them; "
            "leave it out"
        )
    jobs: list[tuple[TargetSet, Source, Path | None]] = [(target_set, source, partial)]
    if chosen is not None:
        beside = None if partial is None else partial.with_name(f"{partial.name}.{chosen.target_set.name}")
        jobs.append((chosen.target_set, chosen.source, beside))
    tasks: list[Task] = [
        MaskTask(s.map_size, thresholds) if t.has_masks else BoxTask(s.map_size) for t, s, _ in jobs
    ]
    opened = [
        open_records(s, t, task, path, signature or {})
        for (t, s, path), task in zip(jobs, tasks, strict=True)
    ]
    seconds = [
        measure_all(
            s,
            t,
            task,
            records,
            workers=workers,
            save_maps=save_maps,
            progress=progress(t.name) if progress else None,
        )
        for (t, s, _), task, records in reversed(list(zip(jobs, tasks, opened, strict=True)))
    ]
    about = {
        **source.about,
        "notes": [*(note for t, _, _ in jobs for note in t.notes), *source.notes(target_set)],
        "seconds": seconds[-1],
    }
    if isinstance(tasks[0], MaskTask):
        return summarize_masks(opened[0], target_set, tasks[0], thresholds, about)
    other: BoxResults | None = None
    if chosen is not None and isinstance(tasks[1], BoxTask):
        other = summarize_boxes(opened[1], chosen.target_set, tasks[1], thresholds)
    return summarize_boxes(opened[0], target_set, tasks[0], thresholds, threshold, other, about)
