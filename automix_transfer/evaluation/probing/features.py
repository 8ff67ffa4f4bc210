"""The inputs of an encoder's classifier for every image of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import eval_loader
from automix_transfer.errors import UserError
from automix_transfer.models.classifier import find_classifier

REMEDY = "choose an encoder with a linear classifier, whose inputs are the features"


@dataclass(frozen=True)
class Features:
    """``values`` (N, D) float32 and ``labels`` (N,) int64, in the data set's order, on the CPU."""

    values: Tensor
    labels: Tensor


@torch.no_grad()
def read_features(
    encoder: nn.Module,
    dataset: ClassificationDataset,
    device: torch.device,
    batch_size: int = 128,
    workers: int = 0,
    say: Callable[[int], None] = lambda done: None,
) -> Features:
    """What ``encoder`` hands to its classifier, one vector an image; in eval mode, in float32.

    Args:
        encoder: with a linear classifier, or without one: then its outputs are the features.
        say: is told how many images are done.

    Raises:
        UserError: the encoder's classifier is no linear layer, it gives something else than one vector an
            image, or values that are not finite.
    """
    encoder = encoder.to(device).eval()
    inputs: list[Tensor] = []
    handle = None
    linear = any(isinstance(part, nn.Linear) for part in encoder.modules())
    if outputs_logits(encoder) and (linear or hasattr(encoder, "num_classes")):
        classifier = find_classifier(encoder, REMEDY)
        handle = classifier.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    found: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        for images, label, *_ in eval_loader(dataset, batch_size, workers=workers):
            output = encoder(images.to(device))
            if handle is not None and (not inputs or output.shape[-1] != classifier.out_features):
                raise UserError(
                    f"the last linear layer of {type(encoder).__name__} is no classifier; {REMEDY}"
                )
            vectors = inputs.pop() if handle is not None else output
            if vectors.ndim != 2 or len(vectors) != len(images):
                shape = tuple(vectors.shape)
                raise UserError(
                    f"the encoder gives features of shape {shape} for {len(images)} images, not one vector "
                    "an image; choose an encoder that pools"
                )
            found.append(vectors.float().cpu())
            labels.append(label)
            say(sum(map(len, labels)))
    finally:
        if handle is not None:
            handle.remove()
    values = torch.cat(found)
    if not torch.isfinite(values).all():
        raise UserError(
            "the encoder's features are not finite; take weights of a training that did not diverge"
        )
    return Features(values, torch.cat(labels).long())


def outputs_logits(encoder: nn.Module) -> bool:
    """Whether the encoder has a classifier: timm's without one has ``num_classes`` 0."""
    return getattr(encoder, "num_classes", 1) != 0
