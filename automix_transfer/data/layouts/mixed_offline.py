"""A training split with images that were mixed offline.

Their folder holds `images/*.png`, `soft_labels.npy` (M, classes) and `mixed.json`. Items of such a data set
have soft labels (classes,); those of the real images are one-hot.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.images import read_image
from automix_transfer.data.listing import Listing
from automix_transfer.errors import UserError
from automix_transfer.io import expand_home, load_npy, read_json
from automix_transfer.text_files import same_names

FORMAT = "automix_transfer/mixed/1"
ABOUT, SOFT_LABELS, IMAGES = "mixed.json", "soft_labels.npy", "images"


def read_mixed(folder: Path, classes: list[str]) -> tuple[list[Path], NDArray[np.float32]]:
    """Images and soft labels of a mixed data set, checked against the ``classes`` of the real one.

    Raises:
        UserError: the folder holds none, an unfinished one or one of other classes, labels that are no
            distributions, or not all of its images.
    """
    again = "write or finish it with automix-transfer supermix"
    if not (folder / ABOUT).is_file():
        raise UserError(f"{folder} holds no finished mixed data set ({ABOUT} is missing); {again}")
    about = read_json(folder / ABOUT)
    names = about.get("files") if isinstance(about, dict) and about.get("format") == FORMAT else None
    if not isinstance(names, list):
        raise UserError(f"{folder / ABOUT} is not of format {FORMAT}; {again}")
    mixed = about.get("classes")
    if not isinstance(mixed, list) or not same_names(map(str, mixed), classes):
        raise UserError(
            f"{folder} was mixed from other classes than the {len(classes)} of this data set; give the "
            "folder that was written from it"
        )
    labels = load_npy(folder / SOFT_LABELS, again, lazy=True)
    files = [folder / IMAGES / str(name) for name in names]
    if labels.shape != (len(files), len(classes)) or labels.dtype != np.float32:
        raise UserError(
            f"{folder / SOFT_LABELS} is {labels.dtype} {labels.shape}, but {len(files)} images of "
            f"{len(classes)} classes need float32 ({len(files)}, {len(classes)}); {again}"
        )
    if len(files) and not (np.all(labels >= 0) and np.allclose(labels.sum(axis=1), 1, atol=1e-3)):
        raise UserError(f"{folder / SOFT_LABELS} has rows that are no shares adding up to 1; {again}")
    there = pictures(folder)
    if gone := [file for file in files if file.name not in there]:
        raise UserError(
            f"{len(gone)} of the {len(files)} images of {folder} are gone, e.g. {gone[0]}; restore them, or "
            "write the data set into another folder with automix-transfer supermix"
        )
    return files, labels


def pictures(folder: Path) -> set[str]:
    """Names of the images that are there."""
    return set(os.listdir(folder / IMAGES)) if (folder / IMAGES).is_dir() else set()


class WithMixed(ClassificationDataset):
    """The images of ``listing``, then the mixed ones of ``folder``; labels are soft."""

    def __init__(
        self, listing: Listing, transform: Callable[[Image.Image], Any], folder: str | Path, seed: int = 0
    ) -> None:
        files, self.soft = read_mixed(expand_home(folder), listing.classes)
        self.real = len(listing)
        labels = [*listing.labels, *(int(row) for row in self.soft.argmax(axis=1))]
        both = replace(listing, paths=[*listing.paths, *files], labels=labels, boxes=None)
        super().__init__(both, transform, seed)

    def read(self, index: int) -> Image.Image:
        return super().read(index) if index < self.real else read_image(self.path(index))

    def __getitem__(self, item: int | tuple[int, ...]) -> tuple[Tensor, Tensor, int]:
        image, label, index = super().__getitem__(item)
        if index >= self.real:
            return image, torch.from_numpy(np.array(self.soft[index - self.real])), index
        return image, torch.nn.functional.one_hot(torch.tensor(label), len(self.classes)).float(), index
