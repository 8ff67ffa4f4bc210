"""What the command line names, opened: the encoder, and the images as it wants them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.layouts.class_order import require_known_order
from automix_transfer.data.registry import SPLITS, load_listing
from automix_transfer.data.settings import INTERPOLATIONS, DataConfig
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.opened import open_run
from automix_transfer.models.encoders import EncoderInfo, check_size
from automix_transfer.models.weights import load_encoder
from automix_transfer.progress import to_stderr
from automix_transfer.text_files import same_names


@dataclass(frozen=True)
class Inputs:
    """An encoder, the file it came from, and its images; ``loaded`` says in words what was taken of the
    file."""

    encoder: nn.Module
    info: EncoderInfo
    weights: Path
    config: DataConfig
    dataset: ClassificationDataset
    loaded: str = ""


def open_inputs(args: argparse.Namespace) -> Inputs:
    """Everything that can be wrong with weights and data is found here.

    Raises:
        UserError: as the readers of runs, weights and data; classes that are not the network's.
    """
    said: list[str] = []
    if args.run is not None:
        run = open_run(args.run)
        if args.which is not None and args.which not in run.encoders:
            raise UserError(
                f"{run.file} holds no encoder '{args.which}'; choose one of {', '.join(run.encoders)}"
            )
        encoder, info, weights = run.encoders[args.which] if args.which else run.encoder, run.info, run.file
        config = run_config(args, run.data)
    else:
        chosen = args.weights, args.encoder, args.which
        (encoder, info), weights = load_encoder(*chosen, say=said.append), args.weights
        config = data_config(args, info)
    if not Path(config.root).exists():
        raise UserError(f"the data of {weights}, {config.root}, are not there; give their folder with --data")
    dataset = open_data(config, args.limit, info.class_names)
    for note in dataset.listing.notes:
        to_stderr(f"note: {note}")
    check_classes(info, dataset, weights, config.root)
    if not info.class_names and config.class_order == "auto":
        require_known_order(weights, dataset.classes, "--class-order number or --class-order text")
    check_size(encoder, info.name, config.test_size or config.image_size, "--image-size")
    return Inputs(encoder, info, weights, config, dataset, " ".join(said))


def train_counts(config: DataConfig, split: str | None, classes: Sequence[str]) -> list[int]:
    """(K,) images of each of ``classes`` in the training split (default: that of ``config``); none is read.

    Raises:
        UserError: there is no such split, or it has other classes.
    """
    split = split or config.train_split
    listing = load_listing(replace(config, train_split=split), split, classes)
    if not same_names(map(str, listing.classes), map(str, classes)):
        raise UserError(
            f"--train-split {split} of {config.root} has other classes than the images that are evaluated; "
            "give the split that the network was trained on"
        )
    return np.bincount(listing.labels, minlength=len(classes)).tolist()


def run_config(args: argparse.Namespace, data: DataConfig) -> DataConfig:
    """The data of a run as it was validated on; what the command line says wins."""
    given = {
        "root": args.data and str(args.data),
        "dataset": args.dataset,
        "val_split": args.split,
        "image_column": args.image_column,
        "label_column": args.label_column,
        "test_size": args.image_size,
        "test_crop_ratio": args.test_crop_ratio,
        "interpolation": args.interpolation,
        "class_order": args.class_order,
        "mean": args.mean,
        "std": args.std,
    }
    return replace(
        data, workers=args.workers, **{key: value for key, value in given.items() if value is not None}
    )


def data_config(args: argparse.Namespace, info: EncoderInfo) -> DataConfig:
    """The data as the encoder wants them; what the command line says wins."""
    size = args.image_size or info.test_size or info.image_size
    # 0 is refused with the other settings of the data
    ratio = (
        replace(info, image_size=size).crop_ratio if args.test_crop_ratio is None else args.test_crop_ratio
    )
    known = info.interpolation if info.interpolation in INTERPOLATIONS else None
    root, split = args.data, args.split
    if args.dataset is None:
        root, split = class_folders(args.data, split)
    else:
        split = split or SPLITS[args.dataset][-1]
    return DataConfig(
        dataset=args.dataset or "imagefolder",
        root=str(root),
        train_split=split,
        val_split=split,
        image_column=args.image_column or "",
        label_column=args.label_column or "",
        image_size=size,
        test_crop_ratio=ratio,
        test_crop="squash" if info.test_crop == "squash" else "center",
        interpolation=args.interpolation or known or "bilinear",
        class_order=args.class_order or "auto",
        mean=list(args.mean or info.mean),
        std=list(args.std or info.std),
        workers=args.workers,
    )


def class_folders(folder: Path, split: str | None) -> tuple[Path, str]:
    """(parent, name) of the folder of class folders: ``folder`` itself, or its ``split``, test/ or val/."""
    if not folder.is_dir():
        raise UserError(f"--data {folder} is no folder; give a folder of class folders")
    for name in (split,) if split else ("test", "val"):
        if (folder / name).is_dir():
            return folder, name
    if split:
        raise UserError(f"--data {folder} has no folder '{split}'; leave --split out or correct it")
    return folder.absolute().parent, folder.absolute().name


def open_data(config: DataConfig, limit: int, known: Sequence[str] = ()) -> ClassificationDataset:
    """The images, or ``limit`` of them at even distances, so that every class keeps its share.

    Args:
        known: the network's classes, in its order.
    """
    dataset = eval_dataset(config, known=known, vectors=True)
    if limit and limit < len(dataset):
        chosen = [index * len(dataset) // limit for index in range(limit)]
        return ClassificationDataset(dataset.listing.select(chosen), dataset.transform)
    return dataset


def check_classes(info: EncoderInfo, dataset: ClassificationDataset, weights: Path, root: str) -> None:
    """The network's classes must be those of the folders, in the same order."""
    names = dataset.classes
    if info.num_classes != len(names):
        raise UserError(
            f"{weights} has {info.num_classes} classes, but {root} has {len(names)} "
            f"({', '.join(names[:3])}, ...); give the images of the network's own classes"
        )
    if info.class_names and not same_names(info.class_names, names):
        pairs = enumerate(zip(info.class_names, names, strict=True))
        at = next(i for i, (ours, theirs) in pairs if not same_names([ours], [theirs]))
        raise UserError(
            f"class {at} of {weights} is '{info.class_names[at]}', but that of {root} is "
            f"'{names[at]}'; name the classes as in training"
        )
