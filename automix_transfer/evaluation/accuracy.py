"""Accuracy of an encoder: top-1 and top-5 over all samples (`evaluate`), and top-1 of each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.training.distributed import World, sum_over_ranks
from automix_transfer.training.validation import autocast, eval_mode, evaluate

__all__ = ["accuracy", "class_accuracy", "evaluate"]


def accuracy(encoder: nn.Module, loader: Iterable[tuple[Tensor, Tensor, Any]], world: World | None = None,
             precision: str = "fp32") -> dict[str, float]:
    """`evaluate` where the encoder lies: ``top1`` and ``top5`` in percent, and the mean cross-entropy ``loss``."""
    return evaluate(encoder, loader, world or alone(encoder), precision)


@torch.no_grad()
def class_accuracy(encoder: nn.Module, loader: Iterable[tuple[Tensor, Tensor, Any]], classes: Sequence[str], world: World | None = None,
                   precision: str = "fp32") -> dict[str, tuple[float, int]]:
    """For each class its top-1 accuracy in percent and its number of images; NaN where there is none. Exact over the ranks.

    The mean over classes is what long-tailed sets (iNaturalist) and FGVC-Aircraft's protocol report beside the mean over images.
    """
    world = world or alone(encoder)
    totals_2K = torch.zeros(2, len(classes), dtype=torch.int64, device=world.device)  # hits, images
    with eval_mode(encoder), autocast(world.device, precision):
        for images, labels, _ in loader:
            images, labels = images.to(world.device), labels.to(world.device)
            hits = (encoder(images).argmax(dim=1) == labels).long()
            totals_2K[0].index_add_(0, labels, hits)
            totals_2K[1].index_add_(0, labels, torch.ones_like(hits))
    hits_K, images_K = sum_over_ranks(totals_2K.cpu(), world).tolist()
    return {name: (100 * hit / count if count else float("nan"), count) for name, hit, count in zip(classes, hits_K, images_K, strict=True)}


def alone(encoder: nn.Module) -> World:
    """A single process on the encoder's device."""
    return World(0, 1, next(encoder.parameters()).device)
