"""From a source of maps to records: images are decoded, and maps computed and measured, at the same time.

In threads, as the heavy parts release Python's lock. A bounded number of maps waits, so memory does not grow
with the data set.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from automix_transfer.data.cache import stamp
from automix_transfer.localization.maps import score_maps as maps
from automix_transfer.localization.maps.sources import EncoderMaps, FolderMaps
from automix_transfer.localization.records import Records
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.localization.scores.mask_task import MaskTask
from automix_transfer.localization.targets import Target, TargetSet

Report = Callable[[int, int], None]
Source = EncoderMaps | FolderMaps
Task = BoxTask | MaskTask


def open_records(
    source: Source, target_set: TargetSet, task: Task, partial: Path | None, signature: dict[str, Any]
) -> Records:
    """The records of a run, begun or continued; what is wrong with maps and targets is found here.

    Args:
        partial: file of records that an interrupted run is continued from; None: a nameless one.
        signature: what the maps depend on besides what the source itself says.
    """
    depends = source.check(target_set)
    targets = [
        [
            t.image_id,
            t.label,
            t.boxes,
            t.size,
            [(str(f), stamp(f)) for f in (t.path, *t.masks, t.ignore) if f],
        ]
        for t in target_set.targets
    ]
    return Records(
        len(target_set),
        task.dtype,
        partial,
        {**source.about, **depends, **task.signature, **signature, "targets": targets},
    )


def measure_all(
    source: Source,
    target_set: TargetSet,
    task: Task,
    records: Records,
    report: Report | None = None,
    workers: int | None = None,
    save_maps: Path | None = None,
) -> dict[str, float]:
    """Measure every image that ``records`` lacks; what is done when it is interrupted is kept.

    Args:
        report: called with (images done, images).
        workers: threads; default all cores.
        save_maps: folder that every score map is written to as ``<image id>.npy``.

    Returns:
        Seconds: ``wall``, ``forward`` (wall time of the encoder's passes), ``evaluator`` (CPU time of
            resizing and measuring).
    """
    todo = records.missing()
    done = len(records) - len(todo)
    threads = workers or len(os.sched_getaffinity(0))
    seconds = {"wall": -time.perf_counter(), "forward": -source.seconds, "evaluator": 0.0}
    waiting: deque[tuple[int, NDArray | None, Future]] = deque()

    def collect(at_most: int) -> None:
        nonlocal done
        while len(waiting) > at_most:
            index, top, future = waiting.popleft()
            fields, spent = future.result()
            records.put(index, top, fields)
            seconds["evaluator"] += spent
            done += 1
            if report is not None:
                report(done, len(records))

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(threads) as readers:
        try:
            for index, raw, top in source.produce(target_set, todo, readers):
                future = pool.submit(_measure, source, task, target_set.targets[index], raw, save_maps)
                waiting.append((index, top, future))
                collect(8 * threads)
            collect(0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            readers.shutdown(cancel_futures=True)
            raise
    seconds["wall"] += time.perf_counter()
    seconds["forward"] += source.seconds
    return {key: round(value, 3) for key, value in seconds.items()}


def _measure(
    source: Source, task: Task, target: Target, raw: NDArray, save_maps: Path | None
) -> tuple[dict[str, Any], float]:
    """The fields of an image's record, and the CPU seconds they took; runs on any core."""
    start = time.thread_time()
    values = source.finish(target, raw)
    fields = task.measure(values, target)
    spent = time.thread_time() - start
    if save_maps is not None:
        maps.write_map(save_maps, target.image_id, values)
    return fields, spent
