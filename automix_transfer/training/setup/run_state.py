"""A run: everything that the loop works on, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import ImageLoader, TrainLoader
from automix_transfer.mixing import Method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.training.distributed import World
from automix_transfer.training.record.averages import Averages
from automix_transfer.training.record.checkpoint import Checkpoint, encoder_prefixes, split_state
from automix_transfer.training.schedule import LearningRates
from automix_transfer.training.settings import Experiment

Batch = tuple[Tensor, Tensor, Tensor]  # images (N, 3, H, W), labels (N,) or (N, K), indices (N,)


@dataclass
class Position:
    """Where a run stands; part of every checkpoint."""

    averages: Averages  # of the epoch that is under way
    step: int = 0  # steps done
    epoch: int = 0  # epochs done, evaluation included
    history: list[dict[str, Any]] = field(default_factory=list)  # one row for each epoch done
    best: dict[str, Any] = field(default_factory=dict)  # the row of history with the best top-1 or mAP
    seconds: float = 0.0  # of training, over all starts

    @classmethod
    def of(cls, found: Checkpoint, world: World) -> Position:
        """Where ``found`` left the run."""
        averages = Averages(world, found.averages)
        return cls(averages, found.step, found.epoch, found.history, found.best, found.seconds)


@dataclass
class Run:
    """Everything that the loop works on.

    ``model`` is ``method``, behind DistributedDataParallel where there are several processes. ``weights``
    says which weights it starts from.
    """

    experiment: Experiment
    world: World
    info: EncoderInfo
    method: Method
    model: nn.Module
    optimizer: Optimizer
    rates: LearningRates
    scaler: torch.amp.GradScaler
    train_batches: TrainLoader
    eval_batches: ImageLoader
    at: Position
    weights: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.experiment.output)

    @property
    def train_set(self) -> ClassificationDataset:
        return self.train_batches.dataset  # type: ignore[return-value]

    @property
    def eval_set(self) -> ClassificationDataset:
        return self.eval_batches.dataset  # type: ignore[return-value]

    @cached_property
    def images(self) -> list[str]:
        """Digests of training and validation images."""
        return [part.listing.digest() for part in (self.train_set, self.eval_set)]

    @property
    def steps_per_epoch(self) -> int:
        return self.train_batches.batches_per_epoch // self.experiment.train.accumulate

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.experiment.train.epochs

    def batches(self, max_steps: int | None = None) -> Iterator[list[Batch]]:
        """What is left of the epoch: the batches of each step's passes, fetched before the step begins."""
        accumulate = self.experiment.train.accumulate
        done = self.at.step - self.at.epoch * self.steps_per_epoch
        self.train_batches.set_epoch(self.at.epoch, done * accumulate)
        batches = iter(self.train_batches)
        for _ in range(self.steps_per_epoch - done if max_steps is None else max_steps):
            yield list(islice(batches, accumulate))

    def on_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch where the method is, in the memory layout of ``train.channels_last``."""
        device = self.world.device
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if self.experiment.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels

    def gradients(self, number: int) -> AbstractContextManager[None]:
        """Around pass ``number`` of a step: processes add up their gradients in the last one only."""
        if number < self.experiment.train.accumulate - 1 and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def saves_now(self) -> bool:
        """Whether a checkpoint is due in the middle of an epoch; there is one at each end."""
        every = self.experiment.train.save_every_steps
        return every > 0 and self.at.step % every == 0 and self.at.step % self.steps_per_epoch != 0

    def checkpoint(self) -> Checkpoint:
        """All of the run. ``at.averages`` must have been flushed, in all processes."""
        return Checkpoint(
            encoder=self.info.to_dict(),
            encoders=encoder_prefixes(self.method),
            **split_state(self.method),
            config=asdict(self.experiment),
            step=self.at.step,
            epoch=self.at.epoch,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            best=self.at.best,
            history=self.at.history,
            averages=self.at.averages.sums,
            seconds=self.at.seconds,
            processes=self.world.size,
            samples=[len(self.train_set), len(self.eval_set)],
            images=self.images,
        )
