"""Data sets by name. A new one is a function (root, split) -> `Listing` in `layouts`, and one line here."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from automix_transfer.data.layouts.cars import CARS_LAYOUT, cars, is_cars
from automix_transfer.data.layouts.cifar import CIFAR10, CIFAR100, cifar10, cifar100
from automix_transfer.data.layouts.folders import FOLDER_LAYOUT, has_splits, imagefolder
from automix_transfer.data.layouts.huggingface import HF_LAYOUT, huggingface, is_saved
from automix_transfer.data.layouts.large_scale import (
    INAT_LAYOUT,
    PLACES_LAYOUT,
    inaturalist2017,
    inaturalist2018,
    is_places205,
    places205,
)
from automix_transfer.data.layouts.lists import (
    AIRCRAFT_LAYOUT,
    CUB_LAYOUT,
    aircraft,
    cub,
    is_aircraft,
    is_cub,
)
from automix_transfer.data.layouts.several import COCO_LAYOUT, VOC_LAYOUT, coco, is_coco, is_voc, voc
from automix_transfer.data.layouts.tiny_imagenet import TINY_LAYOUT, is_tiny_imagenet, tiny_imagenet
from automix_transfer.data.layouts.walking import find_below
from automix_transfer.data.listing import Listing
from automix_transfer.data.problems import ListError
from automix_transfer.data.settings import MULTI_LABEL, DataConfig
from automix_transfer.data.shards.index import SHARD_LAYOUT, shards
from automix_transfer.data.split_parts import sliced, take
from automix_transfer.errors import UserError
from automix_transfer.io import expand_home


class Layout(NamedTuple):
    """How a data set lies on disk: its reader, the splits that are usual, and which files lie where."""

    read: Callable[..., Listing]
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
    "voc": Layout(voc, ("trainval", "test"), VOC_LAYOUT),
    "coco": Layout(coco, ("train", "val"), COCO_LAYOUT),
    "shards": Layout(shards, ("train", "val"), SHARD_LAYOUT),
    "hf": Layout(huggingface, ("train", "val"), HF_LAYOUT),
}
DATASETS = {name: layout.read for name, layout in LAYOUTS.items()}
SPLITS = {name: layout.splits for name, layout in LAYOUTS.items()}


#: How a data set is known by what lies in its folder; the first that fits is named where another fails.
KNOWN_BY: dict[str, Callable[[Path], bool]] = {
    "cub": is_cub,
    "aircraft": is_aircraft,
    "cars": is_cars,
    "tiny_imagenet": is_tiny_imagenet,
    "places205": is_places205,
    "inaturalist2017": lambda folder: (folder / "train2017.json").is_file(),
    "inaturalist2018": lambda folder: (folder / "train2018.json").is_file(),
    "cifar10": lambda folder: (folder / CIFAR10.test[0]).is_file(),
    "cifar100": lambda folder: (folder / CIFAR100.test[0]).is_file(),
    "voc": is_voc,
    "coco": is_coco,
    "shards": lambda folder: any(folder.glob("train*.tar")),
    "hf": is_saved,
    "imagefolder": lambda folder: has_splits(folder, "train", "val"),
}
#: Whose classes may be folders, so that their order can be chosen.
_ORDERED = ("imagefolder", "shards", "cifar10", "cifar100", "hf")


def load_listing(config: DataConfig, split: str, known: Sequence[str] = (), vectors: bool = False) -> Listing:
    """The images of one split, with the limits of ``config``.

    List files are validated line by line; no image is read.

    Args:
        split: its name, or a part of it: ``train[:80%]`` is the first 80 % of the images of each class, and
            ``train[80%:]`` the rest.
        known: the classes of a network in its order, which class folders then have.
        vectors: whether the caller takes images with several labels, too.

    Raises:
        UserError: unknown data set, or one with several labels an image that are not taken; missing or empty
            root, missing split, a class without images, errors in the list files, or another number of
            classes than ``config.classes``.
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
    if config.dataset in MULTI_LABEL and not vectors:
        raise UserError(
            f"data.dataset={config.dataset} has several labels an image, which only pretrain, finetune, "
            "evaluate and data check take; give a data set with one label an image"
        )
    root = expand_home(config.root)
    whole, part = sliced(split)
    options: dict[str, Any] = {}
    if config.dataset in _ORDERED:
        options = {"order": config.class_order, "known": known, "reference": sliced(config.train_split)[0]}
        if config.dataset == "hf":
            options |= {"image_column": config.image_column, "label_column": config.label_column}
    elif config.dataset == "voc":
        options = {"known": known, "reference": sliced(config.train_split)[0]}
    elif config.dataset == "coco":
        options = {"known": known}
    try:
        listing = DATASETS[config.dataset](root, whole, **options)
    except UserError as error:
        if hint := _other_layout(root, config.dataset):
            error.args = (f"{error}; {hint}",)
            if isinstance(error, ListError):
                error.found = (*error.found, hint)
        raise
    found = len(listing.classes)
    if config.classes and not config.limit_classes and found != config.classes:
        raise UserError(
            f"data.root={root} holds {found} classes, but this recipe is for {config.classes} "
            f"(data.classes); give the root of its own data set, or set data.classes={found} to train on it"
        )
    if not config.crop_banner:
        listing = replace(listing, crop_bottom=0)
    if part is not None:
        listing = take(listing, part, split)
    return limit(listing, config.limit_classes, config.limit_per_class if split == config.train_split else 0)


def _other_layout(root: Path, dataset: str) -> str:
    """What else lies at ``root``, or an empty text: a near miss names the option that reads it."""
    if dataset != "imagefolder" and find_below(root, KNOWN_BY[dataset], depth=2):
        return ""  # it is the right one, with a mistake in it
    own = (dataset, "imagefolder") if dataset == "hf" else (dataset,)  # which reads those itself
    for name, holds in KNOWN_BY.items():
        if name not in own and (found := find_below(root, holds, depth=2)):
            there = "" if found[0] == root else f" data.root={found[0]}"
            return (
                f"{found[0]} is laid out as {name}, which data.dataset={name}{there} (--dataset {name}) reads"
            )
    return ""


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
