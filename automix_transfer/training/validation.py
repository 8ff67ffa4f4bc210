"""Accuracy of an encoder, exact over the ranks: top-1 and top-5, or mAP where images have several labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.device import widest_float
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.training.average_precision import class_precisions, mean_precision
from automix_transfer.training.distributed import World, gather, sum_over_ranks


@torch.no_grad()
def evaluate(
    encoder: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Any]],
    world: World,
    precision: str = "fp32",
    max_batches: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """``top1`` and ``top5`` in percent and the mean cross-entropy ``loss``, over all ranks' batches.

    A batch is (images, labels, indices), and every rank brings its own share of whatever size: counts are
    added, not means. With fewer than five classes top-5 is 100. The encoder runs in eval mode and gets back
    every submodule's mode. ``stop`` ends it early; what is returned then means nothing.
    """
    totals = torch.zeros(4, dtype=torch.float64)  # samples, top-1 hits, top-5 hits, sum of losses
    device_totals = torch.zeros(4, dtype=widest_float(world.device), device=world.device)
    with eval_mode(encoder), autocast(world.device, precision):
        for images, labels, _ in islice(loader, max_batches):
            if stop():
                break
            images, labels = (part.to(world.device, non_blocking=True) for part in (images, labels))
            logits_NK = encoder(images).float()
            ranked_N5 = logits_NK.topk(min(5, logits_NK.shape[1]), dim=1).indices
            hits_N5 = ranked_N5 == labels[:, None]
            losses = F.cross_entropy(logits_NK, labels, reduction="sum")
            device_totals += torch.stack(
                [labels.new_tensor(len(labels)), hits_N5[:, 0].sum(), hits_N5.sum(), losses]
            ).to(device_totals)
    totals = sum_over_ranks(device_totals.cpu().double(), world)
    count = max(float(totals[0]), 1.0)
    return {
        "top1": 100 * float(totals[1]) / count,
        "top5": 100 * float(totals[2]) / count,
        "loss": float(totals[3]) / count,
    }


@torch.no_grad()
def evaluate_vectors(
    encoder: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    world: World,
    precision: str = "fp32",
    max_batches: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """``map`` in percent, and ``loss``: the mean binary cross-entropy over what is known, over all ranks'
    batches.

    As `evaluate`, of labels (N, K), NaN where unknown. Without an image that shows a class there is no
    ``map``. The same figures, bit for bit, from any number of processes.
    """
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    with eval_mode(encoder), autocast(world.device, precision):
        for images, labels, indices in islice(loader, max_batches):
            if stop():
                break
            logits = encoder(images.to(world.device, non_blocking=True))
            seen.append((logits.float().cpu(), labels, indices))
    batches = list(chain.from_iterable(gather(seen, world)))
    if not batches:
        return {"loss": 0.0}
    logits_NK, labels_NK, indices_N = (torch.cat(parts) for parts in zip(*batches, strict=True))
    order = indices_N.argsort(stable=True)
    logits_NK, labels_NK = logits_NK[order], labels_NK[order]
    known = ~labels_NK.isnan()
    loss = F.binary_cross_entropy_with_logits(logits_NK[known].double(), labels_NK[known].double())
    mean = mean_precision(class_precisions(logits_NK.numpy(), labels_NK.numpy()))
    return {"loss": float(loss)} if mean is None else {"map": mean, "loss": float(loss)}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision as ``train.precision`` says; fp32 switches it off."""
    return torch.autocast(
        device.type,
        dtype=torch.float16 if precision == "fp16" else torch.bfloat16,
        enabled=precision != "fp32",
    )
