"""Data sets by name: a dict of functions (root, split) -> `Listing`. A new layout is one function and one
line here."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from automix_transfer.data.layouts.cars import cars
from automix_transfer.data.layouts.cifar import cifar10, cifar100
from automix_transfer.data.layouts.folders import imagefolder, tiny_imagenet
from automix_transfer.data.layouts.large_scale import inaturalist2017, inaturalist2018, places205
from automix_transfer.data.layouts.lists import aircraft, cub
from automix_transfer.data.listing import Listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.shards.index import shards
from automix_transfer.errors import UserError
from automix_transfer.io import expand_home

# The splits that the check looks at unless told.
SPLITS: dict[str, tuple[str, ...]] = {
    "imagefolder": ("train", "val"),
    "tiny_imagenet": ("train", "val"),
    "cub": ("train", "test"),
    "aircraft": ("train", "val", "test"),
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "cars": ("train", "test"),
    "inaturalist2017": ("train", "val"),
    "inaturalist2018": ("train", "val"),
    "places205": ("train", "val"),
    "shards": ("train", "val"),
}
DATASETS: dict[str, Callable[[Path, str], Listing]] = {
    "imagefolder": imagefolder,
    "tiny_imagenet": tiny_imagenet,
    "cub": cub,
    "aircraft": aircraft,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cars": cars,
    "inaturalist2017": inaturalist2017,
    "inaturalist2018": inaturalist2018,
    "places205": places205,
    "shards": shards,
}


def load_listing(config: DataConfig, split: str) -> Listing:
    """The images of one split, with the limits of ``config``; list files are validated line by line, no image
    is read.

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
            "(data.classes); give the root "
            f"of its own data set, or say data.classes={found} to train on this one"
        )
    if not config.crop_banner:
        listing = replace(listing, crop_bottom=0)
    return limit(listing, config.limit_classes, config.limit_per_class if split == config.train_split else 0)


def limit(listing: Listing, classes: int = 0, per_class: int = 0) -> Listing:
    """The first ``classes`` classes and the first ``per_class`` images of each, in the listing's order; 0
    keeps all."""
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
