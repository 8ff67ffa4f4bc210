"""Labelled images as a torch data set whose samples depend on (seed, epoch, index) and on nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from automix_transfer.data.images import FLAG_NOTE, cut_bottom, read_image, rotation_flag
from automix_transfer.data.listing import Listing, Paths
from automix_transfer.data.transforms import split_at_tensor
from automix_transfer.errors import UserError, few
from automix_transfer.progress import to_stderr
from automix_transfer.rng import derive_seed


class ClassificationDataset(Dataset):
    """Images with labels; item (epoch, index[, copy]) -> (image (3, H, W), label, index).

    A label is a number or, where images show several classes, a float vector (K,) of 1, 0, and NaN where a
    class is unknown; ``labels`` are (N,) int64 or (N, K) int8, see `Listing`. An int stands for an index in
    epoch 0.

    The same (seed, epoch, index, copy) gives the same tensor in any process, with any number of workers and
    in any order of reading, and the global generators are left as they were. After `add_views` an item's
    image holds further views of it: (3·views, H, W).
    """

    views: int = 1

    def __init__(self, listing: Listing, transform: Callable[[Image.Image], Any], seed: int = 0) -> None:
        self.listing, self.transform, self.seed = listing, transform, seed
        self.classes = listing.classes
        vectors = listing.vectors
        self.labels: NDArray[Any] = np.asarray(listing.labels, dtype=np.int64) if vectors is None else vectors
        paths = listing.paths
        self._paths = paths if isinstance(paths, Paths) else Paths(str(path) for path in paths)

    def __len__(self) -> int:
        return len(self.labels)

    def images_a_class(self, key: str) -> NDArray[np.int64]:
        """(K,) images of each class, none of them 0.

        Raises:
            UserError: a class is empty, which the setting ``key`` cannot even out.
        """
        counts = np.bincount(self.labels, minlength=len(self.classes))
        if not counts.all():
            empty = [str(self.classes[label]) for label in np.flatnonzero(counts == 0)]
            raise UserError(
                f"{key} needs images of every class, but the training split has none of {few(empty)}; add "
                f"some, leave the class out, or leave {key.partition('=')[0]} out"
            )
        return counts

    def path(self, index: int) -> Path:
        """The file of sample ``index``."""
        return Path(self._paths.name(index))

    def read(self, index: int) -> Image.Image:
        """The untransformed image of sample ``index``."""
        if self.listing.pixels is not None:
            return Image.fromarray(self.listing.pixels[index])
        path, packed = self.path(index), self.listing.packed
        image = read_image(path, packed.read(index) if packed else None)
        _tell_of_rotation(image, path)
        return cut_bottom(image, self.listing.crop_bottom, path)

    def add_views(self, count: int, make: Callable[[Image.Image], Any] | None) -> None:
        """From now on an item's image holds ``count`` views: itself, then ``make`` of its crop, as channels.

        Each view is seeded by (seed, epoch, index, copy, view). Does nothing for one view.
        """
        if count > 1 and make is not None:
            self.views, self._make_view = count, make
            self._geometry, self._to_tensor = split_at_tensor(self.transform)

    def label(self, index: int) -> int | Tensor:
        """The label of sample ``index`` as an item has it."""
        if self.labels.ndim == 1:
            return int(self.labels[index])
        vector = torch.from_numpy(self.labels[index]).float()
        return vector.masked_fill(vector < 0, torch.nan)

    def _all_views(self, image: Image.Image, place: tuple[int, ...]) -> Tensor:
        cropped = self._geometry(image)
        views = [self._to_tensor(cropped)]
        for view in range(1, self.views):
            _seed_cpu_generators(derive_seed(self.seed, "view", *place, view))
            views.append(self._to_tensor(self._make_view(cropped)))
        return torch.cat(views)

    def __getitem__(self, item: int | tuple[int, ...]) -> tuple[Tensor, int | Tensor, int]:
        epoch, index, *copy = item if isinstance(item, tuple) else (0, int(item))
        image = self.read(index)
        states = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
        try:
            _seed_cpu_generators(derive_seed(self.seed, "sample", epoch, index, *copy))
            if self.views == 1:
                return self.transform(image), self.label(index), index
            return self._all_views(image, (epoch, index, *copy)), self.label(index), index
        finally:
            torch.default_generator.set_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])


_told: list[Path] = []  # the first image with a rotation flag in this process


def _tell_of_rotation(image: Image.Image, path: Path) -> None:
    """Say once that a rotation flag is left alone; of a loader's workers the first one does."""
    worker = get_worker_info()
    if not _told and (worker is None or worker.id == 0) and rotation_flag(image):
        _told.append(path)
        to_stderr(f"note: image {path} has a camera's rotation flag; such flags are {FLAG_NOTE}")


def _seed_cpu_generators(value: int) -> None:
    # not torch.manual_seed: it would also reseed the GPU's generators, which belong to the training step
    torch.default_generator.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
