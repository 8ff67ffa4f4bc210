"""Data sets by name. A new one is a function (root, split) -> `Listing` in `layouts`, and one line here."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from automix_transfer.data.layouts.cars import CARS_LAYOUT, cars
from automix_transfer.data.layouts.cifar import CIFAR10, CIFAR100, cifar10, cifar100
from automix_transfer.data.layouts.folders import FOLDER_LAYOUT, TINY_LAYOUT, imagefolder, tiny_imagenet
from automix_transfer.data.layouts.large_scale import (
    INAT_LAYOUT,
    PLACES_LAYOUT,
    inaturalist2017,
    inaturalist2018,
    places205,
)
from automix_transfer.data.layouts.lists import AIRCRAFT_LAYOUT, CUB_LAYOUT, aircraft, cub
from automix_transfer.data.listing import Listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.shards.index import SHARD_LAYOUT, shards
from automix_transfer.errors import UserError
from automix_transfer.io import expand_home


class Layout(NamedTuple):
    """How a data set lies on disk: its reader, the splits that are usual, and which files lie where."""

    read: Callable[[Path, str], Listing]
    splits: tuple[str, ...]
    files: str


LAYOUTS = {
    "imagefolder": Layout(imagefolder, ("train", "val"), FOLDER_LAYOUT),
    "cifar10": Layout(cifar10, ("train", "test"), CIFAR10.layout),
    "cifar100": Layout(cifar100, ("train", "test"), CIFAR100.layout),
    "tiny_imagenet": Layout(tiny_imagenet, ("train", "val"), TINY_LAYOUT),
    "cub": Layout(cub, ("train", "test"), CUB_LAYOUT),
    "aircraft": Layout(aircraft, ("train", "val", "test"), AIRCRAFT_LAYOUT),
    "cars": Layout(cars, ("train", "test"), CARS_LAYOUT),
    "inaturalist2017": Layout(inaturalist2017, ("train", "val"), INAT_LAYOUT),
    "inaturalist2018": Layout(inaturalist2018, ("train", "val"), INAT_LAYOUT),
    "places205": Layout(places205, ("train", "val"), PLACES_LAYOUT),
    "shards": Layout(shards, ("train", "val"), SHARD_LAYOUT),
}
DATASETS = {name: layout.read for name, layout in LAYOUTS.items()}
SPLITS = {name: layout.splits for name, layout in LAYOUTS.items()}


def load_listing(config: DataConfig, split: str) -> Listing:
    """The images of one split, with the limits of ``config``.

    List files are validated line by line; no image is read.

    Raises:
        UserError: unknown data set, missing or empty root, missing split, a class without images, errors in
            the list files, or another number of classes than ``config.classes``.
    """
    if config.dataset not in DATASETS:
        close = difflib.get_close_matches(config.dataset, DATASETS, n=1)
        raise UserError(
            f"data.dataset='{config.dataset}' is unknown; "
            + (f"did you mean '{close[0]}'? " if close else "")
            + f"Choose one of {', '.join(DATASETS)}"
        )
    if not config.root:
        raise UserError("data.root is empty; set it to the folder that holds the data set")
    root = expand_home(config.root)
    if config.dataset in ("imagefolder", "shards"):
        reader = imagefolder if config.dataset == "imagefolder" else shards
        listing = reader(root, split, reference=config.train_split)
    else:
        listing = DATASETS[config.dataset](root, split)
    found = len(listing.classes)
    if config.classes and not config.limit_classes and found != config.classes:
        raise UserError(
            f"data.root={root} holds {found} classes, but this recipe is for {config.classes} "
            f"(data.classes); give the root of its own data set, or set data.classes={found} to train on it"
        )
    if not config.crop_banner:
        listing = replace(listing, crop_bottom=0)
    return limit(listing, config.limit_classes, config.limit_per_class if split == config.train_split else 0)


def limit(listing: Listing, classes: int = 0, per_class: int = 0) -> Listing:
    """The first ``classes`` classes and the first ``per_class`` images of each in order; 0 keeps all."""
    if not classes and not per_class:
        return listing
    taken: defaultdict[int, int] = defaultdict(int)
    chosen = []
    for index, label in enumerate(listing.labels):
        if (not classes or label < classes) and (not per_class or taken[label] < per_class):
            taken[label] += 1
            chosen.append(index)
    if not chosen:
        raise UserError(f"data.limit_classes={classes} leaves no image in this split; raise it")
    limited = listing.select(chosen)
    return replace(limited, classes=listing.classes[:classes]) if classes else limited
