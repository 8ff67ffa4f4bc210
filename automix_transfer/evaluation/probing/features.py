"""The inputs of an encoder's classifier for every image of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import eval_loader
from automix_transfer.errors import UserError
from automix_transfer.models.classifier import find_classifiers
from automix_transfer.training.sharing import ALONE, Team

REMEDY = "choose an encoder with a linear classifier, whose inputs are the features"


@dataclass(frozen=True)
class Features:
    """``values`` (N, D) float32 and ``labels`` (N,) int64, in the data set's order, on the CPU."""

    values: Tensor
    labels: Tensor


Vectors = tuple[NDArray[np.float32], NDArray[np.int64]]  # (N, D) features and (N,) labels of a batch


def read_features(
    encoder: nn.Module,
    dataset: ClassificationDataset,
    device: torch.device,
    batch_size: int = 128,
    workers: int = 0,
    say: Callable[[int], None] = lambda done: None,
    team: Team = ALONE,
) -> Features:
    """What ``encoder`` hands to its classifier, or to several, beside each other: one vector an image; in
    eval mode, in float32.

    Args:
        encoder: with a linear classifier, or without one: then its outputs are the features.
        say: is told how many images are done.
        team: processes that share the images; the first gets all features, the others none.

    Raises:
        UserError: the encoder's classifier is no linear layer, it gives something else than one vector an
            image, or values that are not finite.
    """
    place = team.world.rank, team.world.size
    loader = eval_loader(dataset, batch_size, *place, workers=workers, whole=True)
    done = 0

    def count(batch: Vectors) -> None:
        nonlocal done
        done += len(batch[1])
        say(done)

    found = team.in_order(_vectors(encoder.to(device).eval(), loader, device), count)
    if not found:
        return Features(torch.empty(0, 0), torch.empty(0, dtype=torch.int64))
    values, labels = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
    if not torch.isfinite(values).all():
        raise UserError(
            "the encoder's features are not finite; take weights of a training that did not diverge"
        )
    return Features(values, labels.long())


@torch.no_grad()
def _vectors(encoder: nn.Module, loader: Iterable[Any], device: torch.device) -> Iterator[Vectors]:
    """Features and labels of each batch."""
    inputs: dict[int, Tensor] = {}  # of each classifier
    classifiers, handles = read_by(encoder), list[RemovableHandle]()
    for number, classifier in enumerate(classifiers):
        handles.append(classifier.register_forward_pre_hook(partial(_keep, inputs, number)))
    try:
        for images, label, *_ in loader:
            output = encoder(images.to(device))
            called = len(inputs) == len(classifiers)
            if classifiers and not (called and output.shape[-1] == classifiers[-1].out_features):
                raise UserError(
                    f"the last linear layer of {type(encoder).__name__} is no classifier; {REMEDY}"
                )
            found = [inputs.pop(number) for number in range(len(classifiers))]
            vectors = torch.cat(found, dim=-1) if len(found) > 1 else (found or [output])[0]
            if vectors.ndim != 2 or len(vectors) != len(images):
                shape = tuple(vectors.shape)
                raise UserError(
                    f"the encoder gives features of shape {shape} for {len(images)} images, not one vector "
                    "an image; choose an encoder that pools"
                )
            yield vectors.float().cpu().numpy(), label.numpy()
    finally:
        for handle in handles:
            handle.remove()


def _keep(inputs: dict[int, Tensor], number: int, _: nn.Module, given: tuple[Tensor, ...]) -> None:
    inputs[number] = given[0]


def read_by(encoder: nn.Module) -> list[nn.Linear]:
    """The classifiers whose inputs are the features of ``encoder``; none where its outputs are.

    Raises:
        UserError: it has a classifier, but no linear one.
    """
    if hasattr(encoder, "num_classes"):
        logits = encoder.num_classes != 0  # timm's without a classifier has 0
    else:
        logits = any(isinstance(part, nn.Linear) for part in encoder.modules())
    return find_classifiers(encoder, REMEDY) if logits else []
