"""Stop a run whose loss is no longer a number, before it can overwrite a good checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.io import write_json
from automix_transfer.training.distributed import World, agree
from automix_transfer.training.record.checkpoint import LAST, Checkpoint

SHOWN = 5


class LossWatch:
    """Collects losses on their device and looks at them now and then, so that a GPU is seldom waited for.

    ``settle`` is called before a message names the last good checkpoint: one that is being written counts.
    """

    def __init__(
        self, folder: Path, dataset: ClassificationDataset, world: World, settle: Callable[[], None]
    ) -> None:
        self.folder, self.dataset, self.world, self.settle = folder, dataset, world, settle
        self._waiting: list[tuple[int, Tensor, list[int]]] = []
        self._last: tuple[int, list[int]] = (0, [])

    def add(self, step: int, loss: Tensor, indices: Tensor) -> None:
        """Note the loss of one pass of ``step`` (from 1) and the samples it was computed on."""
        self._last = step, indices.tolist()
        self._waiting.append((step, loss.detach(), self._last[1]))

    def check(self) -> None:
        """Look at the losses since the last check, on all ranks.

        Raises:
            UserError: one is NaN or infinite; names the step, the images of its batch and the last good
                checkpoint.
        """
        losses = torch.stack([loss for _, loss, _ in self._waiting]).tolist() if self._waiting else []
        bad = next((n for n, loss in enumerate(losses) if not math.isfinite(loss)), None)
        waiting, self._waiting = self._waiting, []
        if bad is not None:
            step, _, indices = waiting[bad]
            agree(1, self.world)
            self.settle()
            raise self._error(f"the loss became {losses[bad]} at step {step}", step, indices)
        if agree(0, self.world):
            raise UserError(
                f"the loss of another process is not a number at step {self._last[0]} or before; its message "
                "says more"
            )

    def approval(self) -> Callable[[Checkpoint], None]:
        """What refuses a checkpoint whose weights are not finite: a finite loss can have a NaN gradient."""
        step, indices = self._last

        def approve(found: Checkpoint) -> None:
            for name, value in found.model.items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise self._error(f"weights '{name}' are not finite after step {step}", step, indices)

        return approve

    def _error(self, what: str, step: int, indices: list[int]) -> UserError:
        paths = [str(self.dataset.path(index)) for index in indices]
        report = self.folder / f"not_finite_rank{self.world.rank}.json"
        write_json(report, {"step": step, "what": what, "indices": indices, "images": paths})
        last = self.folder / LAST
        good = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        more = f" and {len(paths) - SHOWN} more, all" if len(paths) > SHOWN else ","
        return UserError(
            f"{what}; its batch: {', '.join(paths[:SHOWN])}{more} listed in {report}; {good}. "
            "Lower optimizer.lr, set train.clip_norm, or use train.precision=bf16 in place of fp16"
        )
