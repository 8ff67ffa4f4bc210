"""The training and the validation split of a `DataConfig` as torch data sets."""

from __future__ import annotations

from collections.abc import Sequence

from automix_transfer.data.check import drop_bad_images
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.layouts.mixed_offline import WithMixed
from automix_transfer.data.listing import Listing, names_of
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.transforms import eval_transform, train_transform
from automix_transfer.errors import UserError, few

COMPARED = 500  # images of one class and name


def train_dataset(
    config: DataConfig, seed: int = 0, known: Sequence[str] = (), vectors: bool = False
) -> ClassificationDataset:
    """The training split with the training transform; bad images are treated as ``config.on_bad_image`` says.

    Args:
        known, vectors: see `load_listing`.

    With ``config.mixed`` images that were mixed offline come with it, and labels are soft; see `WithMixed`.
    """
    listing, transform = _usable(config, config.train_split, known, vectors), train_transform(config)
    if config.mixed:
        return WithMixed(listing, transform, config.mixed, seed)
    return ClassificationDataset(listing, transform, seed)


def eval_dataset(
    config: DataConfig, split: str | None = None, known: Sequence[str] = (), vectors: bool = False
) -> ClassificationDataset:
    """A split (default: ``config.val_split``) with the testing transform; for the others see
    `load_listing`."""
    listing = _usable(config, split or config.val_split, known, vectors)
    return ClassificationDataset(listing, eval_transform(config))


def eval_dataset_beside(
    train: ClassificationDataset, config: DataConfig, known: Sequence[str] = (), vectors: bool = False
) -> ClassificationDataset:
    """`eval_dataset` with the classes of the training split, in their order.

    Raises:
        UserError: the splits have different classes.
    """
    found, ours = eval_dataset(config, known=known, vectors=vectors), list(train.classes)
    names = list(found.classes)
    if names != ours and set(names) <= set(ours):  # a ClassLabel and COCO's ids have an order in each split
        found = eval_dataset(config, known=ours, vectors=vectors)
    if list(found.classes) != ours:
        differing = set(names) ^ set(ours) or {a for a, b in zip(names, ours, strict=True) if a != b}
        raise UserError(
            f"splits {config.train_split} and {config.val_split} of {config.root} have different classes "
            f"({few(sorted(map(str, differing)))}); take other splits, or correct the class folders or "
            "labels of one of them"
        )
    return found


def shared_images(train: Listing, val: Listing) -> str:
    """A sentence on the images of ``val`` that ``train`` has by class (of one label), name and content, or an
    empty text.

    Of `COMPARED` images the content is read; `check` compares all of them, whatever their names.
    """
    if train.pixels is not None or val.pixels is not None:
        return ""
    labels, ours = (split.labels if split.vectors is None else [0] * len(split) for split in (val, train))
    places = {(label, val.paths[index].name): index for index, label in enumerate(labels)}
    found, compared = [], 0
    for number, (label, name) in enumerate(zip(ours, names_of(train.paths), strict=True)):
        index = places.get((label, name.rpartition("/")[2]))
        if index is None or train.size(number) != val.size(index):
            continue
        compared += 1
        if train.content(number) == val.content(index):
            found.append(val.paths[index])
        if compared == COMPARED:
            break
    some = f"at least {len(found):,}" if compared == COMPARED else f"{len(found):,}"
    return (
        f"{some} images of the validation split are in the training split too, e.g. {found[0]}: figures "
        "measured on them are not figures on unseen images; automix-transfer data check finds copies under "
        "other names too"
        if found
        else ""
    )


def _usable(config: DataConfig, split: str, known: Sequence[str], vectors: bool) -> Listing:
    listing = load_listing(config, split, known, vectors)
    # not all are read here: for ImageNet that takes an hour; `check` and --dry-run do it on demand
    if config.on_bad_image == "fail":
        return listing
    what = f"{config.dataset} {split} at {config.root}"
    return drop_bad_images(listing, what, workers=max(1, config.workers))
