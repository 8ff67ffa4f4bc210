"""Loaders whose order is derived from (seed, epoch), shared out to ranks, and entered at any batch.

A batch is (images (N, 3, H, W) float32, labels (N,) int64, indices (N,) int64).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from automix_transfer import signals
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.device import PINNING, accelerator
from automix_transfer.errors import UserError
from automix_transfer.host.causes import cause_of
from automix_transfer.rng import derive_generator

Batch = list[tuple[int, ...]]
T = TypeVar("T")


class EpochBatches(Sampler[Batch]):
    """The batches of one rank in one epoch, as lists of (epoch, index[, copy]).

    Global batch t is the slice [t·B·W, (t+1)·B·W) of the epoch's permutation, and rank r takes its r-th B: W
    ranks at batch B see together what one process sees at batch B·W. The remainder that fills no global batch
    is dropped. ``order`` draws the epoch's images (``size``,) in the permutation's place.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
        order: Callable[[torch.Generator], Tensor] | None = None,
    ) -> None:
        self.order = order or (lambda rng: torch.randperm(size, generator=rng))
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size, self.repeats = rank, world_size, repeats
        self.epoch = self.start_batch = 0

    @property
    def batches_per_epoch(self) -> int:
        return self.size // (self.batch_size * self.world_size)

    def __len__(self) -> int:
        return max(0, self.batches_per_epoch - self.start_batch)

    def __iter__(self) -> Iterator[Batch]:
        """The batches from ``start_batch`` on. One permutation of numbers is all that an epoch costs.

        With R repeats: R copies of each image beside each other, cut to the epoch's length.
        """
        order = self.order(derive_generator(self.seed, "order", self.epoch))
        for batch in range(self.start_batch, self.batches_per_epoch):
            start = (batch * self.world_size + self.rank) * self.batch_size
            if self.repeats == 1:
                yield [(self.epoch, index) for index in order[start : start + self.batch_size].tolist()]
            else:
                places = [divmod(place, self.repeats) for place in range(start, start + self.batch_size)]
                first, end = places[0][0], places[-1][0] + 1
                indices = order[first:end].tolist()
                yield [(self.epoch, indices[image - first], copy) for image, copy in places]


def class_shares(counts: Tensor, sampler: str) -> Tensor:
    """(K,) float64, in proportion to the images that ``sampler`` draws of each class, which has ``counts``
    (K,) of them: as many (``shuffle``), equally many (``balanced``), or by the square root (``sqrt``)."""
    return counts.double() ** {"shuffle": 1.0, "balanced": 0.0, "sqrt": 0.5}[sampler]


def even_order(labels: NDArray[np.int64], sampler: str, rng: torch.Generator) -> Tensor:
    """An epoch of as many images as there are ``labels`` (N,), shared out to the classes by `class_shares`,
    in random order.

    What does not divide falls to classes at random, each as often as its share says. No image comes again
    before all of its class have come.
    """
    images = torch.from_numpy(np.argsort(labels, kind="stable"))  # class by class
    counts = torch.from_numpy(np.bincount(labels))
    shares = class_shares(counts, sampler)
    ends = shares.cumsum(0) * (len(labels) / float(shares.sum()))
    ends[-1] = len(labels)
    ends = (ends + torch.rand((), dtype=torch.float64, generator=rng)).floor().long()
    chosen = []
    for own, places in zip(images.split(counts.tolist()), ends.diff(prepend=ends.new_zeros(1)), strict=True):
        rounds = -(-int(places) // len(own))
        again = [own[torch.randperm(len(own), generator=rng)] for _ in range(rounds)]
        chosen.append(torch.cat([own[:0], *again])[: int(places)])
    return torch.cat(chosen)[torch.randperm(len(labels), generator=rng)]


class ImageLoader(DataLoader):
    """A DataLoader whose workers' `UserError` arrive as one sentence, without the worker's traceback."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            with signals.held():
                batches = super().__iter__()
            yield from batches
        except UserError as error:
            raise UserError(_without_traceback(error)) from None
        except (RuntimeError, OSError) as error:
            if cause := cause_of(error):
                raise UserError(cause) from error
            raise


class TrainLoader(ImageLoader):
    """Training batches; `set_epoch` before each epoch.

    Workers live as long as the loader, because the epoch travels in each item.
    """

    batch_sampler: EpochBatches  # type: ignore[assignment]

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Go to batch ``start_batch`` of ``epoch``; nothing of what comes before is read."""
        self.batch_sampler.epoch, self.batch_sampler.start_batch = epoch, start_batch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch on each rank; ``len`` is what is left of the current one."""
        return self.batch_sampler.batches_per_epoch


def train_loader(
    dataset: ClassificationDataset,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    start_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    repeats: int = 1,
    sampler: str = "shuffle",
) -> TrainLoader:
    """Batches of ``batch_size`` images on each of ``world_size`` ranks, in the order of ``data.sampler``.

    Raises:
        UserError: the data set does not fill one global batch; a class is empty that is to be evened out.
    """
    if len(dataset) < batch_size * world_size:
        ranks = f" on each of {world_size} ranks" if world_size > 1 else ""
        raise UserError(
            f"the training split has {len(dataset):,} images, fewer than one batch of {batch_size}{ranks}; "
            "lower the batch size or add images"
        )
    order = None
    if sampler != "shuffle":
        dataset.images_a_class(f"data.sampler={sampler}")
        order = partial(even_order, dataset.labels, sampler)
    batches = EpochBatches(len(dataset), batch_size, seed, rank, world_size, repeats, order)
    loader = TrainLoader(dataset, batch_sampler=batches, **loader_options(workers, seed))
    loader.set_epoch(epoch, start_batch)
    return loader


def eval_loader(
    dataset: ClassificationDataset,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    whole: bool = False,
) -> ImageLoader:
    """Every sample exactly once over all ranks, in order within a rank.

    The last batch may be smaller, and a rank may have none. With ``whole`` the ranks take the batches of one
    process, else every ``world_size``-th sample.
    """
    indices = range(len(dataset))
    chosen = dealt_out(indices, batch_size, rank, world_size) if whole else indices[rank::world_size]
    items: Any = [(0, index) for index in chosen]
    return ImageLoader(dataset, batch_size=batch_size, sampler=items, **loader_options(workers, 0))


def dealt_out(items: Sequence[T], batch_size: int, rank: int, world_size: int) -> list[T]:
    """What a rank gets of ``items`` when batches of them are dealt out in turn."""
    starts = range(rank * batch_size, len(items), world_size * batch_size)
    return [item for start in starts for item in items[start : start + batch_size]]


def loader_options(workers: int, seed: int) -> dict[str, Any]:
    """What every loader here hands to `DataLoader`; ``seed`` is for a generator that nothing draws from."""
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": (device := accelerator()) is not None and device.type in PINNING,
        "worker_init_fn": _start_worker,
        # else starting a loader would draw from the global generator
        "generator": derive_generator(seed, "loader"),
    }


def _start_worker(_: int) -> None:
    """Let a worker end only when its training process says so, or within seconds of that process's death.

    Ctrl-C, a hang-up and a scheduler's signals reach workers, too, but the training process must be able to
    finish its step and save. Its own SIGTERM must be obeyed, else the interpreter would wait for workers at
    its end for ever.
    """
    torch.set_num_threads(1)
    waits = hasattr(signal, "sigwaitinfo")  # not on macOS
    signals.leave_to_parent(hear_term=not waits)
    if waits:
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _without_traceback(error: UserError) -> str:
    """What the last `UserError` in a worker's traceback says; other text as it is."""
    message, kind = str(error.args[0]), type(error)
    head, found, tail = message.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")
    return tail.rstrip() if found and "Traceback" in head else message
