"""What a killed run leaves undone, made up for by the one that goes on: its curves' windows, an evaluation
that was due, and what comes after the last iteration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.engine import DefaultTrainer, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter

from automix_transfer.detection.resuming.checkpoints import FINAL, BestCheckpoint
from automix_transfer.detection.resuming.early_stop import EarlyStop
from automix_transfer.io import write_text

OF_THE_PROCESS = ("time", "data_time", "rank_data_time", "eta_seconds")  # curves that a new one begins anew
WINDOW = 20  # iterations that Detectron2's writers smooth over


def curves_of(storage: EventStorage) -> dict[str, Any]:
    """The last values of every curve, for a checkpoint: {name: [whether it is smoothed, [[value, iteration],
    ...]]}."""
    smoothed = storage.smoothing_hints()
    return {
        name: [bool(smoothed[name]), [[float(value), int(at)] for value, at in history.values()[-WINDOW:]]]
        for name, history in sorted(storage.histories().items())
        if name not in OF_THE_PROCESS
    }


def restore_curves(
    storage: EventStorage, curves: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Put the values of `curves_of` back, so that what is smoothed over them goes on as it was; and those of
    the evaluation that came after the checkpoint, from its line of metrics.json, ``rows``."""
    now = storage.iter
    for name, (smoothed, values) in curves.items():
        for value, iteration in values:
            storage.iter = iteration
            storage.put_scalar(name, value, smoothing_hint=smoothed)
    storage.iter = now - 1
    there = {name for name, history in storage.histories().items() if history.values()[-1][1] == now - 1}
    there |= {*OF_THE_PROCESS, "iteration"}
    written = {name: value for row in rows if row.get("iteration") == now - 1 for name, value in row.items()}
    for name, value in written.items():
        if name not in there and isinstance(value, float | int):
            storage.put_scalar(name, value, smoothing_hint=False)
    storage.iter = now


def forget_metrics_after(file: Path, iteration: int) -> list[dict[str, Any]]:
    """Drop the lines of ``metrics.json`` that a killed run wrote after its last checkpoint; returns those
    that are kept."""
    if not file.is_file():
        return []
    kept = [
        row
        for line in file.read_text("utf-8", "replace").splitlines()
        if _iteration(row := _row(line)) < iteration
    ]
    write_text(file, "".join(f"{json.dumps(row, sort_keys=True)}\n" for row in kept))
    return kept


class Curves(hooks.PeriodicWriter):
    """Detectron2's, which writes every 20 iterations the newest value of each curve, and here after each
    evaluation too, so that none is lost."""

    def __init__(self, writers: Sequence[EventWriter], evaluations: int) -> None:
        super().__init__(writers, WINDOW)
        self.evaluations = evaluations

    def after_step(self) -> None:
        evaluated = self.evaluations > 0 and (self.trainer.iter + 1) % self.evaluations == 0
        self._period = 1 if evaluated else WINDOW
        super().after_step()


def write_on(writers: Iterable[EventWriter], rows: Iterable[Mapping[str, Any]]) -> None:
    """Let Detectron2's writers write what comes after ``rows``, and nothing of them a second time."""
    last = max((int(_iteration(row)) for row in rows), default=-1)
    for writer in writers:
        if isinstance(getattr(writer, "_last_write", None), int):
            writer._last_write = last


def make_up(trainer: DefaultTrainer, rows: Sequence[Mapping[str, Any]], ended: bool) -> None:
    """Do what the hooks of the last iteration had not done when the process was killed.

    Args:
        rows: the lines of metrics.json; those of the first process count, whose file it is.
        ended: whether the run goes on from ``model_final.pth``.
    """
    period, done, last = trainer.cfg.TEST.EVAL_PERIOD, trainer.start_iter, trainer.max_iter
    due: tuple[type[hooks.HookBase], ...] = ()
    if comm.all_gather(evaluation_is_due(period, done, last, rows))[0]:
        due = (hooks.EvalHook, BestCheckpoint, EarlyStop, hooks.PeriodicWriter)
    elif done == last and not any(row.get("iteration") == done - 1 for row in rows):
        due = (hooks.PeriodicWriter,)
    if due or done == last:
        trainer.iter = trainer.storage.iter = done - 1
    if done == last and not ended and comm.is_main_process():
        trainer.checkpointer.save(Path(FINAL).stem, iteration=trainer.iter)
    for hook in trainer._hooks:
        if isinstance(hook, due):
            hook.after_step()


def evaluation_is_due(period: int, done: int, last: int, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the run was killed before the evaluation after ``done`` iterations was written down.

    The one after the ``last`` iteration is made anyway.
    """
    evaluated = any(row.get("iteration") == done - 1 and any("/AP" in key for key in row) for row in rows)
    return period > 0 and 0 < done < last and done % period == 0 and not evaluated


def _row(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # half a line
        return None


def _iteration(row: Any) -> float:
    number = row.get("iteration") if isinstance(row, dict) else None
    return number if isinstance(number, int) else math.inf
