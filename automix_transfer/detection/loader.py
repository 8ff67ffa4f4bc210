"""Training batches whose order, augmentation and sampling of regions are functions of (seed, position): what
an exact resume needs.

Detectron2 draws an order once and consumes it, so a resumed run starts over with other images. Here position
p of the endless stream of samples lies in epoch p // size, whose order comes from (seed, epoch); the
augmentation of a sample comes from (seed, p), in whatever worker; and before every step the global
generators, from which region proposals are sampled, are reseeded from (seed, step, rank). A batch is a list
of Detectron2's dicts. With aspect-ratio grouping landscape and portrait images go into batches of their own,
as there; since the annotations say the sizes, batches are known before any image is read, and step k is found
by counting.

With ``DATALOADER.ON_BAD_IMAGE skip`` an image that does not decode is replaced by the next one of the order
that does: again a function of (seed, position), whatever process meets it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, DatasetMapper, get_detection_dataset_dicts
from detectron2.data.samplers import InferenceSampler, RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from automix_transfer.data.detection.decoding import problem
from automix_transfer.data.loader import ImageLoader, loader_options
from automix_transfer.errors import UserError
from automix_transfer.rng import derive_generator, reseed_globals
from automix_transfer.signals import Interrupted, StopRequest

# a child of Detectron2's logger, as that of `config`
logger = logging.getLogger("detectron2.automix_transfer")
SAMPLERS = ("TrainingSampler", "RandomSubsetTrainingSampler", "RepeatFactorTrainingSampler")
Record = dict[str, Any]
Item = tuple[int, ...]  # position in the stream, index in the data set, and those that may replace it
SPARES, REPLACES = (
    16,
    "replaces",
)  # how many may replace a bad image; what the one that does has in its record
Order = Callable[[int], Sequence[int]]  # epoch -> indices of all its samples


class TrainLoader:
    """An endless iterable over this process's batches of ``cfg``, from step ``start`` on, which may be set.

    Args:
        purpose: streams with different purposes (training, precise BN) share nothing.
        workers: instead of ``DATALOADER.NUM_WORKERS``.
    """

    def __init__(self, cfg: CfgNode, purpose: str = "detection", workers: int | None = None) -> None:
        options, rank, world = cfg.DATALOADER, comm.get_rank(), comm.get_world_size()
        records = get_detection_dataset_dicts(
            list(cfg.DATASETS.TRAIN), filter_empty=options.FILTER_EMPTY_ANNOTATIONS
        )
        self.start, self.seed, self.rank, self.purpose = 0, cfg.SEED, rank, purpose
        self.workers = options.NUM_WORKERS if workers is None else workers
        group = options.ASPECT_RATIO_GROUPING
        shapes = [not group or record.get("width", 1) > record.get("height", 0) for record in records]
        order = sample_order(cfg, records)
        spares = SPARES if options.ON_BAD_IMAGE == "skip" else 0
        self.batches = Batches(shapes, cfg.SOLVER.IMS_PER_BATCH // world, order, rank, world, spares)
        self.skipped: set[str] = set()
        self.samples = Samples(records, DatasetMapper(cfg, True), cfg.SEED, purpose)

    def __iter__(self) -> Iterator[list[Any]]:
        # read when the first batch is asked for, since a trainer makes its iterator before it resumes
        self.batches.start = self.start
        options: dict[str, Any] = loader_options(self.workers, self.seed)
        options |= {"pin_memory": False, "persistent_workers": False}
        loader = ImageLoader(self.samples, batch_sampler=self.batches, collate_fn=list, **options)
        for step, batch in enumerate(loader, self.start):
            for sample in batch:
                self._count(sample.pop(REPLACES, ()))
            reseed_globals(self.seed, f"{self.purpose} step", step, self.rank)
            yield batch

    def _count(self, files: Iterable[str]) -> None:
        """Say of each image once that it is left out."""
        for file in sorted({*files} - self.skipped):
            self.skipped.add(file)
            logger.warning(
                f"image {file} does not decode and is left out, the {len(self.skipped)}. one "
                "(DATALOADER.ON_BAD_IMAGE skip)"
            )


class TestLoader(ImageLoader):
    """This process's share of a test set, an image a batch, mapped as Detectron2 does, or by ``mapper``;
    ``indices`` says which images of the set these are.

    A signal that came to ``stop`` ends it: by `Interrupted` in a single process, and early among several,
    which have to agree before they end.
    """

    __test__ = False  # it is no test

    def __init__(
        self, cfg: CfgNode, name: str, stop: StopRequest, mapper: DatasetMapper | None = None
    ) -> None:
        records = get_detection_dataset_dicts(name, filter_empty=False)
        samples = Samples(records, mapper or DatasetMapper(cfg, False), cfg.SEED, "test")
        options = loader_options(cfg.DATALOADER.NUM_WORKERS, cfg.SEED)
        options |= {"pin_memory": False, "persistent_workers": False}
        self.indices = list(InferenceSampler(len(records)))
        items: Any = [(index, index) for index in self.indices]
        super().__init__(samples, batch_size=1, sampler=items, collate_fn=list, **options)
        self.stop = stop

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if self.stop.asked() and comm.get_world_size() == 1:
                raise Interrupted(self.stop.number)
            if self.stop.asked():
                break
            yield batch


class Batches(Sampler[list[Item]]):
    """Batches of (position, index) of one rank, from batch number ``start`` on; rank r of W has the positions
    r, r + W, r + 2W, ...

    With ``spares`` the next indices of the epoch that are of the same form follow each index.
    """

    def __init__(
        self, landscape: Sequence[bool], batch: int, order: Order, rank: int, world: int, spares: int = 0
    ) -> None:
        self.landscape, self.batch, self.order = landscape, batch, order
        self.rank, self.world, self.start, self.spares = rank, world, 0, spares

    def __iter__(self) -> Iterator[list[Item]]:
        return islice(self._all(), self.start, None)

    def _all(self) -> Iterator[list[Item]]:
        buckets: tuple[list[Item], list[Item]] = ([], [])
        for item in islice(self._stream(), self.rank, None, self.world):
            bucket = buckets[self.landscape[item[1]]]
            bucket.append(item)
            if len(bucket) == self.batch:
                yield bucket[:]
                bucket.clear()

    def _stream(self) -> Iterator[Item]:
        position = 0
        for epoch in count():
            indices = self.order(epoch)
            for place, index in enumerate(indices):
                yield position, index, *self._after(indices, place)
                position += 1

    def _after(self, indices: Sequence[int], place: int) -> Iterator[int]:
        """At most ``spares`` indices that follow the one at ``place``, around the epoch's end."""
        if self.spares:
            form = self.landscape[indices[place]]
            others = (indices[(place + step) % len(indices)] for step in range(1, len(indices)))
            yield from islice((index for index in others if self.landscape[index] == form), self.spares)


class Samples(Dataset):
    """Mapped records by (position, index); the records lie in one array, which workers share."""

    def __init__(
        self, records: list[Record], mapper: Callable[[Record], Any], seed: int, purpose: str
    ) -> None:
        self.records = DatasetFromList(records, copy=False)
        self.mapper, self.seed, self.purpose = mapper, seed, purpose

    def __getitem__(self, item: Item) -> Any:
        position, index, *spares = item
        reseed_globals(self.seed, f"{self.purpose} sample", position)
        record = self.records[index]
        try:
            return self.mapper(record)
        # a file that was damaged since it was checked: the readers raise nearly anything
        except Exception as error:
            if spares and problem(Path(file := str(record["file_name"]))):
                sample = self.__getitem__((position, *spares))
                return {**sample, REPLACES: [file, *sample.get(REPLACES, ())]}
            raise UserError(
                f"{record.get('file_name', 'a record')} could not be made into a sample "
                f"({type(error).__name__}: {str(error)[:200]}); restore the file, or take it out of the data "
                "set"
            ) from error


def sample_order(cfg: CfgNode, records: list[Record]) -> Order:
    """The order of each epoch, for Detectron2's three samplers by their names."""
    name, size, seed = cfg.DATALOADER.SAMPLER_TRAIN, len(records), cfg.SEED
    if name == "TrainingSampler":
        return lambda epoch: torch.randperm(size, generator=derive_generator(seed, "order", epoch)).tolist()
    if name == "RandomSubsetTrainingSampler":
        kept = torch.randperm(size, generator=derive_generator(seed, "subset"))[
            : max(1, int(size * cfg.DATALOADER.RANDOM_SUBSET_RATIO))
        ]
        return lambda epoch: kept[
            torch.randperm(len(kept), generator=derive_generator(seed, "order", epoch))
        ].tolist()
    if name == "RepeatFactorTrainingSampler":
        repeats = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD
        )

        def order(epoch: int) -> list[int]:  # a factor of 1.3 is two copies with probability 0.3
            generator = derive_generator(seed, "order", epoch)
            times = repeats.floor() + (torch.rand(size, generator=generator) < repeats.frac())
            indices = torch.repeat_interleave(torch.arange(size), times.long())
            return indices[torch.randperm(len(indices), generator=generator)].tolist()

        return order
    raise ValueError(f"{name} is none of {SAMPLERS}")  # `load_config` has said so
