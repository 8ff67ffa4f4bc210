"""Do networks recognise both images of a mixed sample (Fig. 4, right), and is a Mix Block alive (Fig. 6)?

All methods get the same images, partners and λ, so their figures can be compared. A pair of two images of one
class says nothing here (top-2 could never equal {y, y}) and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import Mixer, automix_mask, mix_block_of
from automix_transfer.mixing import Method
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.rng import derive_generator

LAMS = tuple(tenth / 10 for tenth in range(1, 10))  #: 0.1 to 0.9


@dataclass
class MixedAccuracy:
    """One λ: percent over ``pairs`` pairs of different classes; ``left_out`` pairs had one class."""

    lam: float
    top1: float
    top2: float
    pairs: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def mixed_accuracy(
    encoder: nn.Module,
    batches: Iterable[Sequence[Any]],
    mixer: Mixer,
    lams: Sequence[float] = LAMS,
    seed: int = 0,
) -> list[MixedAccuracy]:
    """Accuracy of ``encoder`` on mixed samples, for each λ (Fig. 4, right).

    Top-1 is right when the first prediction is y_i or y_j; top-2 when the first two are y_i and y_j, in
    either order.

    Args:
        batches: (images (N, 3, H, W), labels (N,), ...); partners are drawn within a batch, so batches should
            hold many classes (`shuffled_batches`; a loader in the order of class folders would pair each
            class with itself).

    Raises:
        UserError: fewer than two classes, λ outside [0, 1], or no pair of two classes in any batch.
    """
    _check_lams(lams)
    device = next(encoder.parameters()).device
    hits = torch.zeros(len(lams), 2, dtype=torch.float64)
    pairs = seen = 0
    with eval_mode(encoder):
        for number, batch in enumerate(batches):
            images, labels = batch[0].to(device), batch[1].to(device)
            permutation = draw_partners(len(images), seed, number).to(device)
            y_i, y_j = labels, labels[permutation]
            different = y_i != y_j
            seen, pairs = seen + len(labels), pairs + int(different.sum())
            for at, lam in enumerate(lams):
                mixed = mixer(images, permutation, lam, derive_generator(seed, "mixer", number, at))
                logits_NK = encoder(mixed).float()
                if logits_NK.shape[1] < 2:
                    raise UserError("accuracy on mixed samples needs an encoder with at least two classes")
                first, second = logits_NK.topk(2, dim=1).indices.unbind(1)
                top1 = (first == y_i) | (first == y_j)
                top2 = ((first == y_i) & (second == y_j)) | ((first == y_j) & (second == y_i))
                hits[at] += torch.stack([(top1 & different).sum(), (top2 & different).sum()]).cpu()
    if pairs == 0:
        raise UserError(
            f"none of the {seen} pairs has two different classes, so there is no accuracy on mixed samples; "
            "shuffle the samples, or use larger batches"
        )
    percent = (100 * hits / pairs).tolist()
    return [
        MixedAccuracy(float(lam), top1, top2, pairs, seen - pairs)
        for lam, (top1, top2) in zip(lams, percent, strict=True)
    ]


@dataclass
class MaskStatistics:
    """Health of a Mix Block at one λ.

    Attributes:
        mean: of all masks (share of image i); it should follow λ.
        error: mean over pairs of |mask's mean - λ|.
        spatial_std: mean over pairs of the standard deviation within a mask; 0 is the trivial solution of
            Fig. 6.
        pair_std: mean over positions of the standard deviation over pairs; 0: one mask for all pairs.
    """

    lam: float
    mean: float
    error: float
    spatial_std: float
    pair_std: float
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def mask_statistics(
    method: Method, batches: Iterable[Sequence[Any]], lams: Sequence[float] = LAMS, seed: int = 0
) -> list[MaskStatistics]:
    """`MaskStatistics` for each λ, over one pair for every image of ``batches``.

    Raises:
        UserError: the method has no Mix Block, λ is outside [0, 1], or there is no image.
    """
    block = mix_block_of(method)
    _check_lams(lams)
    device = next(block.parameters()).device
    # mean, |mean - λ|, spatial standard deviation, summed over pairs
    sums = torch.zeros(len(lams), 3, dtype=torch.float64)
    moments: list[list[Tensor]] = [[] for _ in lams]  # per position: sum and sum of squares over pairs
    pairs = 0
    for number, batch in enumerate(batches):
        images = batch[0].to(device)
        permutation = draw_partners(len(images), seed, number).to(device)
        pairs += len(images)
        for at, lam in enumerate(lams):
            mask = automix_mask(block, images, permutation, lam, derive_generator(seed, "mixer", number, at))
            mask_NP = mask.flatten(1).cpu().double()
            mean_N, std_N = mask_NP.mean(dim=1), mask_NP.std(dim=1, unbiased=False)
            sums[at] += torch.stack([mean_N.sum(), (mean_N - lam).abs().sum(), std_N.sum()])
            new = [mask_NP.sum(dim=0), mask_NP.square().sum(dim=0)]
            moments[at] = [a + b for a, b in zip(moments[at], new, strict=True)] if moments[at] else new
    if pairs == 0:
        raise UserError("there is no image to draw masks for; give at least one batch")
    rows = []
    means = (sums / pairs).tolist()
    for lam, (mean, error, spatial), (first, second) in zip(lams, means, moments, strict=True):
        variance_P = (second / pairs - (first / pairs).square()).clamp(min=0)
        rows.append(MaskStatistics(float(lam), mean, error, spatial, float(variance_P.sqrt().mean()), pairs))
    return rows


def draw_partners(count: int, seed: int, batch: int) -> Tensor:
    """(N,) int64 partners of ``count`` images, the same for every method and λ.

    A random cycle: every image is i once and j once, and none is its own partner.
    """
    order = torch.randperm(count, generator=derive_generator(seed, "partners", batch))
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners


def shuffled_batches(
    dataset: ClassificationDataset, batch_size: int = 64, seed: int = 0, count: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` samples (0: all) in a random order as (images, labels); a last batch of one is dropped."""
    order = torch.randperm(len(dataset), generator=derive_generator(seed, "shuffled batches"))
    chosen = order[: count or len(dataset)].tolist()
    for start in range(0, len(chosen), batch_size):
        samples = [dataset[index] for index in chosen[start : start + batch_size]]
        if len(samples) > 1:
            images, labels, *_ = zip(*samples, strict=True)
            yield torch.stack(images), torch.tensor(labels)


def _check_lams(lams: Sequence[float]) -> None:
    for lam in lams:
        if not 0 <= lam <= 1:
            raise UserError(f"lam={lam} is not the share of an image; give numbers from 0 to 1")
