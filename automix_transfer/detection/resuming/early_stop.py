"""A training that ends when evaluations no longer get better, at the same iteration whether it was killed and
resumed or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm

from automix_transfer.detection.config_files import logger
from automix_transfer.detection.resuming.checkpoints import FINAL, score


class EarlyStop(HookBase):
    """Ends a training after ``patience`` evaluations that were no better than the best before them.

    It counts the evaluations in metrics.json, of which each is a line, and those of this process.
    """

    def __init__(self, metric: str, patience: int, period: int) -> None:
        self.metric, self.patience, self.period = metric, patience, period
        self.values: dict[int, float] = {}  # by the iterations done, in the first process

    def before_train(self) -> None:
        rows = (row for row in self.trainer.rows if isinstance(row.get(self.metric), int | float))
        self.values = {row["iteration"] + 1: float(row[self.metric]) for row in rows}
        self._end_if_stale(self.trainer.start_iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period or done == self.trainer.max_iter:
            return
        known = self.trainer.storage.latest()
        if self.metric in known:
            self.values[done] = float(known[self.metric][0])
        if self._end_if_stale(done) and comm.is_main_process():
            self.trainer.checkpointer.save(Path(FINAL).stem, iteration=self.trainer.iter)

    def _end_if_stale(self, done: int) -> bool:
        best, stale = stale_evaluations(self.metric, self.values)
        ends = comm.all_gather(done in self.values and stale >= self.patience)[0]
        if ends:
            limit = self.trainer.max_iter
            why = (
                f"the last {stale} evaluations were no better than the one after iteration {best} "
                f"({self.metric} {self.values.get(best, math.nan):.4g}; SOLVER.PATIENCE {self.patience})"
            )
            logger.info(f"stopped after iteration {done} of {limit}: {why}")
            self.trainer.max_iter = done
            self.trainer.stopped_early = {"iteration": done, "max_iter": limit, "best": best, "why": why}
        return ends


def stale_evaluations(metric: str, values: Mapping[int, float]) -> tuple[int, int]:
    """The iteration of the best evaluation, the first of equals, and how many came after it; 0, 0 of none."""
    if not values:
        return 0, 0
    best = max(sorted(values), key=lambda iteration: score(metric, values[iteration]))
    return best, sum(iteration > best for iteration in values)
