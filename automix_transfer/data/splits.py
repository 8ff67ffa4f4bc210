"""The training and the validation split of a `DataConfig` as torch data sets."""

from __future__ import annotations

from automix_transfer.data.check import drop_bad_images
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.listing import Listing
from automix_transfer.data.mixed_offline import WithMixed
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.transforms import eval_transform, train_transform


def train_dataset(config: DataConfig, seed: int = 0) -> ClassificationDataset:
    """The training split with the training transform; bad images are treated as ``config.on_bad_image`` says.

    With ``config.mixed`` images that were mixed offline come with it, and labels are soft; see `WithMixed`.
    """
    listing, transform = _usable(config, config.train_split), train_transform(config)
    if config.mixed:
        return WithMixed(listing, transform, config.mixed, seed)
    return ClassificationDataset(listing, transform, seed)


def eval_dataset(config: DataConfig, split: str | None = None) -> ClassificationDataset:
    """A split (default: ``config.val_split``) with the testing transform."""
    return ClassificationDataset(_usable(config, split or config.val_split), eval_transform(config))


def _usable(config: DataConfig, split: str) -> Listing:
    listing = load_listing(config, split)
    # not all are read here: for ImageNet that takes an hour; `check` and --dry-run do it on demand
    if config.on_bad_image == "fail":
        return listing
    what = f"{config.dataset} {split} at {config.root}"
    return drop_bad_images(listing, what, workers=max(1, config.workers))
