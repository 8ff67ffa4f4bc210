"""The images of an experiment: both splits, this process's share of them, and the weights of classes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.listing import Listing
from automix_transfer.data.loader import ImageLoader, TrainLoader, class_shares, eval_loader, train_loader
from automix_transfer.data.splits import eval_dataset_beside, shared_images, train_dataset
from automix_transfer.data.transforms import eval_transform
from automix_transfer.errors import UserError
from automix_transfer.progress import to_stderr
from automix_transfer.rng import derive_generator
from automix_transfer.training.distributed import World
from automix_transfer.training.settings import Experiment


def tell_of_data(train: Listing, val: Listing) -> None:
    """What the readers of both splits found worth saying, and images that both splits have."""
    shared = () if val.paths is train.paths else (shared_images(train, val),)
    for note in dict.fromkeys((*train.notes, *val.notes, *shared)):
        if note:
            to_stderr(f"note: {note}")


def build_data(
    experiment: Experiment, known: Sequence[str] = ()
) -> tuple[ClassificationDataset, ClassificationDataset]:
    """Training and validation sets; ``known`` are the classes of a run that goes on.

    With ``train.overfit_batches`` both are the same few batches, without augmentation.

    Raises:
        UserError: training images of one class only, or splits of different classes.
    """
    data, train = experiment.data, experiment.train
    train_set = train_dataset(data, experiment.seed, known, vectors=True)
    if len(set(train_set.listing.labels)) == 1:  # where images show several classes there are none
        name = train_set.classes[train_set.listing.labels[0]]
        raise UserError(
            f"split {data.train_split} of data.root={data.root} has images of one class only ('{name}'), so "
            "there is nothing to learn; set data.root to the folder that holds the class folders, or "
            "data.label_column to the column of the labels"
        )
    if train.overfit_batches:
        count = min(train.overfit_batches * train.batch_size, len(train_set))
        order = torch.randperm(len(train_set), generator=derive_generator(experiment.seed, "overfit"))
        chosen = train_set.listing.select(order[:count].tolist())
        train_set = ClassificationDataset(chosen, eval_transform(data), experiment.seed)
        return train_set, copy.copy(train_set)  # a method may ask for more views in training
    return train_set, eval_dataset_beside(train_set, data, known, vectors=True)


def build_loaders(
    experiment: Experiment,
    world: World,
    train_set: ClassificationDataset,
    eval_set: ClassificationDataset,
    size: int,
) -> tuple[TrainLoader, ImageLoader]:
    """This process's share of both splits, ``size`` training images at a time."""
    data, eval_size = experiment.data, experiment.train.eval_batch_size or size
    train_batches = train_loader(
        train_set,
        size,
        experiment.seed,
        rank=world.rank,
        world_size=world.size,
        workers=data.workers,
        repeats=data.repeats,
        sampler=data.sampler,
    )
    return train_batches, eval_loader(eval_set, eval_size, world.rank, world.size, data.workers)


def class_weights(counts: NDArray[np.int64], kind: str, sampler: str = "shuffle") -> Tensor:
    """(K,) float32: 1 / n of each class's ``counts`` n (``balanced``) or 1 / sqrt(n) (``sqrt``), times what
    makes the mean over the images 1, as ``sampler`` draws them, so that the loss keeps its scale."""
    weights = counts ** {"balanced": -1.0, "sqrt": -0.5}[kind]
    drawn = class_shares(torch.from_numpy(counts), sampler).numpy()
    return torch.from_numpy(weights * (drawn.sum() / (weights * drawn).sum())).float()
