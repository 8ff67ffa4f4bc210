"""`automix-transfer probe`: features of the training and the test images, and what is read from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.layouts.walking import find_below
from automix_transfer.data.registry import KNOWN_BY, SPLITS
from automix_transfer.data.settings import DataConfig, validate
from automix_transfer.data.splits import eval_dataset, eval_dataset_beside
from automix_transfer.errors import UserError
from automix_transfer.evaluation.probing.classifiers import linear_probe, nearest_neighbours, top1
from automix_transfer.evaluation.probing.features import Features, read_features
from automix_transfer.models.encoders import EncoderInfo, check_size, plain_info
from automix_transfer.models.timm_names import describe
from automix_transfer.models.weights import load_encoder
from automix_transfer.models.weights_file import sha256_of_weights
from automix_transfer.progress import Progress
from automix_transfer.rng import reseed_globals
from automix_transfer.training.joining import digest_of, refuse_differences, together
from automix_transfer.training.sharing import ALONE, Team

KINDS = ("linear", "knn")
RANDOM = "random"


def open_encoder(
    weights: str,
    name: str | None,
    which: str | None,
    seed: int,
    stem: str = "imagenet",
    image_size: int | None = None,
) -> tuple[nn.Module, EncoderInfo, str]:
    """The encoder of a file, or ``random``: one that ``seed`` initialises; and a sentence on what was loaded.

    Args:
        stem, image_size: of random weights; None: the network's own size in pixels.

    Raises:
        UserError: as `load_encoder`; ``random`` without a name.
    """
    if weights != RANDOM:
        said: list[str] = []
        encoder, info = load_encoder(weights, name, which, say=said.append)
        return encoder, info, " ".join(said)
    if name is None:
        raise UserError("--weights random needs --encoder NAME, the network that is initialised")
    reseed_globals(seed, "initialise")
    info = plain_info(name, 1000, stem)
    info = replace(info, image_size=image_size or info.image_size)
    encoder = info.build().eval()
    describe(encoder, info)
    return encoder, info, f"random weights of seed {seed}"


def splits_of(dataset: str, train: str | None, test: str | None) -> tuple[str, str]:
    """The split that is learnt from and the one that is measured on: Aircraft's are trainval and test."""
    usual = "trainval" if dataset == "aircraft" else SPLITS[dataset][0]
    return train or usual, test or SPLITS[dataset][-1]


def layout_of(root: Path) -> str:
    """The name of the layout that the folder ``root`` has, or one up to two folders below it, as archives
    unpack.

    Raises:
        UserError: none that is known.
    """
    for depth in range(3):
        for name, fits in KNOWN_BY.items():
            if find_below(root, fits, depth):
                return name
    raise UserError(
        f"{root} has none of the layouts {', '.join(KNOWN_BY)}; see automix-transfer data check --help "
        "for how each lies on disk"
    )


def probe(
    encoder: nn.Module,
    info: EncoderInfo,
    config: DataConfig,
    kinds: Sequence[str],
    device: torch.device,
    batch_size: int = 128,
    neighbours: int = 20,
    temperature: float = 0.07,
    team: Team = ALONE,
) -> dict[str, Any]:
    """Top-1 in percent of each of ``kinds`` on ``config.val_split``, learnt from ``config.train_split``; both
    splits are seen as in testing, without augmentation.

    Of several processes, which share the images out, the first gets the figures.

    Raises:
        UserError: splits of different classes, an image that does not decode, an encoder without features.
    """
    begin = time.monotonic()
    train, test = together(team.world, lambda: datasets(encoder, info, config))
    if team.world.size > 1:
        facts: dict[str, Any] = {f"data.{key}": value for key, value in asdict(config).items()}
        del facts["data.root"], facts["data.workers"]  # a machine may have them elsewhere
        images = (part.listing.fingerprint(config.root) for part in (train, test))
        facts |= {"--batch-size": batch_size, "images": " and ".join(images)}
        facts["weights"] = digest_of(encoder.state_dict())
        refuse_differences(team.world, {name: str(value) for name, value in facts.items()})
    learnt, seen = (
        _features(encoder, part, device, batch_size, config.workers, team) for part in (train, test)
    )
    if not team.main:
        return {}
    classes = len(train.classes)
    found: dict[str, Any] = {"images": len(test), "training_images": len(train), "classes": classes}
    if "linear" in kinds:
        model = linear_probe(learnt, classes)
        found["linear"] = {
            "top1": top1(model.logits(seen.values).argmax(1), seen.labels),
            "weight_decay": model.weight_decay,
            "held_out_top1": {f"{decay:g}": value for decay, value in model.held_out.items()},
        }
    if "knn" in kinds:
        k = min(neighbours, len(learnt.labels))
        predicted = nearest_neighbours(learnt, seen.values, classes, k, temperature)
        found["knn"] = {"top1": top1(predicted, seen.labels), "k": k, "temperature": temperature}
    return {**found, "seconds": round(time.monotonic() - begin, 1)}


def datasets(
    encoder: nn.Module, info: EncoderInfo, config: DataConfig
) -> tuple[ClassificationDataset, ClassificationDataset]:
    """The images that are learnt from, and those that are measured on."""
    validate(config)
    check_size(encoder, info.name, config.image_size, "--image-size")
    train = eval_dataset(config, config.train_split)
    return train, eval_dataset_beside(train, config)


def _features(
    encoder: nn.Module,
    dataset: ClassificationDataset,
    device: torch.device,
    batch_size: int,
    workers: int,
    team: Team,
) -> Features:
    progress = Progress("features")
    return read_features(
        encoder, dataset, device, batch_size, workers, lambda done: progress(done, len(dataset)), team
    )


def about(weights: str, info: EncoderInfo, config: DataConfig, loaded: str, seed: int) -> dict[str, Any]:
    """What the figures were measured with."""
    source = {} if weights == RANDOM else {"sha256": sha256_of_weights(weights)}
    keys = ("dataset", "root", "train_split", "val_split", "image_size", "test_crop_ratio", "mean", "std")
    data = {key: getattr(config, key) for key in keys}
    named = replace(info, class_names=())
    return {
        "weights": weights,
        **source,
        "loaded": loaded,
        "encoder": named.to_dict(),
        "data": data,
        "seed": seed,
    }
