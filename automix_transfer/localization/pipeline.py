"""From a source of maps to records: images are decoded, and maps computed and measured, at the same time.

In threads, as the heavy parts release Python's lock. A bounded number of maps waits, so memory does not grow
with the data set. Several processes share the images out, and the first one keeps all records.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from automix_transfer.data.cache import stamp
from automix_transfer.data.loader import dealt_out
from automix_transfer.host.launched import cores, processes_here
from automix_transfer.localization.maps import score_maps as maps
from automix_transfer.localization.maps.sources import EncoderMaps, FolderMaps
from automix_transfer.localization.records import Records
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.localization.scores.mask_task import MaskTask
from automix_transfer.localization.targets import Target, TargetSet
from automix_transfer.training.sharing import ALONE, Team

Report = Callable[[int, int], None]
Source = EncoderMaps | FolderMaps
Task = BoxTask | MaskTask


Seen = tuple[int, NDArray | None, dict[str, Any], float]  # index, classes, fields of a record, CPU seconds


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
        [*row, [(str(f), stamp(f)) for f in (t.path, *t.masks, t.ignore) if f]]
        for row, t in zip(target_set.rows(), target_set.targets, strict=True)
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
    records: Records | None,
    report: Report | None = None,
    workers: int | None = None,
    save_maps: Path | None = None,
    team: Team = ALONE,
) -> dict[str, float]:
    """Measure every image that ``records`` lacks; what is done when it is interrupted is kept.

    Args:
        records: of the first process; None in the others.
        report: called with (images done, images).
        workers: threads; default all cores, shared out to the processes of a machine.
        save_maps: folder that every score map is written to as ``<image id>.npy``.
        team: the processes that share the images out.

    Returns:
        Seconds: ``wall``, ``forward`` (wall time of the encoder's passes, of this process), ``evaluator``
            (CPU time of resizing and measuring).
    """
    todo = team.of_first([] if records is None else records.missing())
    done = len(target_set) - len(todo)
    seconds = {"wall": -time.perf_counter(), "forward": -source.seconds, "evaluator": 0.0}
    own = dealt_out(todo, source.batch_size, team.world.rank, team.world.size)
    for _, (index, top, fields, spent) in team.pieces(
        _measured(source, target_set, task, own, workers, save_maps)
    ):
        assert records is not None  # in the first process, which alone gets pieces
        records.put(index, top, fields)
        seconds["evaluator"] += spent
        done += 1
        if report is not None:
            report(done, len(records))
    seconds["wall"] += time.perf_counter()
    seconds["forward"] += source.seconds
    return {key: round(value, 3) for key, value in seconds.items()}


def _measured(
    source: Source,
    target_set: TargetSet,
    task: Task,
    todo: list[int],
    workers: int | None,
    save_maps: Path | None,
) -> Iterator[Seen]:
    """What each image of ``todo`` gives, in this order."""
    threads = workers or max(1, cores() // processes_here())
    waiting: deque[tuple[int, NDArray | None, Future]] = deque()

    def collected(at_most: int) -> Iterator[Seen]:
        while len(waiting) > at_most:
            index, top, future = waiting.popleft()
            yield index, top, *future.result()

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(threads) as readers:
        try:
            for index, raw, top in source.produce(target_set, todo, readers):
                future = pool.submit(_measure, source, task, target_set.targets[index], raw, save_maps)
                waiting.append((index, top, future))
                yield from collected(8 * threads)
            yield from collected(0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            readers.shutdown(cancel_futures=True)
            raise


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
