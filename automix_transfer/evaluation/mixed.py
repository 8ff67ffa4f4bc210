"""Do networks recognise both images of a mixed sample (Fig. 4, right), and is a Mix Block alive (Fig. 6)?

A *mixer* is a pure function ``(images, permutation, lam, rng) -> mixed``: images (N, C, H, W) and their partners
``images[permutation]`` become (N, C, H, W) with share λ of image i. All methods get the same images, partners and λ, so their
figures can be compared. A pair of two images of one class says nothing here (top-2 could never equal {y, y}) and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.mixing import AutoMix, Method, build_method
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.mix_block import mix
from automix_transfer.mixing.mixup import apply_mixup
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.taps import features
from automix_transfer.rng import derive_generator
from automix_transfer.training import checkpoint
from automix_transfer.training.validation import eval_mode

Mixer = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
LAMS = tuple(tenth / 10 for tenth in range(1, 10))  #: 0.1 to 0.9


# Mixers

def mixup(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
    """λ·x_i + (1-λ)·x_j."""
    return apply_mixup(images, PairDraw(lam, permutation))


def cutmix(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
    """A box of x_j in x_i, its place drawn for every pair.

    Unlike the training method the box is moved inside the image and not clipped at its border, so the share of i stays within the
    rounding of the box's sides of λ: about 1/H + 1/W.
    """
    count, _, height, width = images.shape
    inside = torch.ones(count, 1, height, width, dtype=torch.bool)
    for dimension, length in ((2, height), (3, width)):
        side = round(length * math.sqrt(1 - lam))
        start = (torch.rand(count, generator=rng) * (length - side + 1)).long().view(-1, 1, 1, 1)
        place = torch.arange(length).view(*(-1 if d == dimension else 1 for d in range(4)))
        inside &= (place >= start) & (place < start + side)
    return torch.where(inside.to(images.device), images[permutation.to(images.device)], images)


#: mixers that need no network
MIXERS: dict[str, Mixer] = {"mixup": mixup, "cutmix": cutmix}


@torch.no_grad()
def automix_mask(method: AutoMix, images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
    """The share s_i (N, 1, H, W) that a Mix Block gives image i: from encoder k's features, in eval mode, whatever the batch.

    ``rng`` is used by the ablation with random grids only. In training the features may come from the batch's BatchNorm statistics
    (``method.k_mode=train``); here they come from the running ones, so a pair's mask does not depend on the other pairs.
    """
    encoder = method.inference_encoder()
    with eval_mode(method):
        z = features(encoder, images, method.layer)
        seed = int(torch.randint(2**62, (), generator=rng))
        return method.mask(z, PairDraw(lam, permutation), images.shape[2:], seed).float()


def automix_mixer(method: Method) -> Mixer:
    """The mixer of a trained `AutoMix`: plain MixUp within ``method.small_lam`` of 0 and 1, as in training.

    Raises:
        UserError: the method has no Mix Block.
    """
    block = _automix(method)

    def mixer(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
        if min(lam, 1 - lam) <= block.options.small_lam and block.options.small_lam > 0:
            return mixup(images, permutation, lam, rng)
        return mix(images, images[permutation.to(images.device)], automix_mask(block, images, permutation, lam, rng))

    return mixer


# A trained method, offline

def load_method(path: str | Path, device: str | torch.device = "cpu") -> tuple[Method, EncoderInfo]:
    """The method of a training checkpoint, in eval mode, and what is known of its encoder: for using a trained Mix Block offline.

    Raises:
        UserError: the file is no training checkpoint of ours, or was written by a version that built the method otherwise.
    """
    path = Path(path)
    content = checkpoint.read(path)
    info = EncoderInfo.from_dict(content["encoder"])
    options = {key: value for key, value in content["config"]["method"].items() if key != "name"}
    name = content["config"]["method"]["name"]
    try:
        method = build_method(name, info.build(), options)
        method.load_state_dict(content["model"] | content.get("model_extra", {}))
    except (UserError, RuntimeError) as error:
        raise UserError(f"{path} does not fit the method '{name}' of this version ({str(error).splitlines()[0]}); "
                        "use the version that wrote it") from error
    return method.to(device).eval(), info


# Figures

@dataclass
class MixedAccuracy:
    """One λ: ``top1`` and ``top2`` in percent over ``pairs`` pairs of different classes; ``left_out`` pairs had one class."""

    lam: float
    top1: float
    top2: float
    pairs: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def mixed_accuracy(encoder: nn.Module, batches: Iterable[Sequence[Any]], mixer: Mixer, lams: Sequence[float] = LAMS,
                   seed: int = 0) -> list[MixedAccuracy]:
    """Accuracy of ``encoder`` on mixed samples, for each λ (Fig. 4, right).

    Top-1 is right when the first prediction is y_i or y_j; top-2 when the first two are y_i and y_j, in either order.

    Args:
        batches: (images (N, 3, H, W), labels (N,), ...); partners are drawn within a batch, so batches should hold many classes
            (`shuffled_batches`; a loader in the order of class folders would pair each class with itself).

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
        raise UserError(f"none of the {seen} pairs has two different classes, so there is no accuracy on mixed samples; "
                        "shuffle the samples, or use larger batches")
    percent = (100 * hits / pairs).tolist()
    return [MixedAccuracy(float(lam), top1, top2, pairs, seen - pairs) for lam, (top1, top2) in zip(lams, percent, strict=True)]


@dataclass
class MaskStatistics:
    """Health of a Mix Block at one λ.

    Attributes:
        mean: of all masks (share of image i); it should follow λ.
        error: mean over pairs of |mask's mean - λ|.
        spatial_std: mean over pairs of the standard deviation within a mask; 0 is the trivial solution of Fig. 6.
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
def mask_statistics(method: Method, batches: Iterable[Sequence[Any]], lams: Sequence[float] = LAMS, seed: int = 0) -> list[MaskStatistics]:
    """`MaskStatistics` for each λ, over one pair for every image of ``batches``.

    Raises:
        UserError: the method has no Mix Block, λ is outside [0, 1], or there is no image.
    """
    block = _automix(method)
    _check_lams(lams)
    device = next(block.parameters()).device
    sums = torch.zeros(len(lams), 3, dtype=torch.float64)  # mean, |mean - λ|, spatial standard deviation, summed over pairs
    moments: list[list[Tensor]] = [[] for _ in lams]  # per position: sum and sum of squares over pairs
    pairs = 0
    for number, batch in enumerate(batches):
        images = batch[0].to(device)
        permutation = draw_partners(len(images), seed, number).to(device)
        pairs += len(images)
        for at, lam in enumerate(lams):
            mask_NP = automix_mask(block, images, permutation, lam, derive_generator(seed, "mixer", number, at)).flatten(1).double().cpu()
            mean_N = mask_NP.mean(dim=1)
            sums[at] += torch.stack([mean_N.sum(), (mean_N - lam).abs().sum(), mask_NP.std(dim=1, unbiased=False).sum()])
            new = [mask_NP.sum(dim=0), mask_NP.square().sum(dim=0)]
            moments[at] = [a + b for a, b in zip(moments[at], new, strict=True)] if moments[at] else new
    if pairs == 0:
        raise UserError("there is no image to draw masks for; give at least one batch")
    rows = []
    for lam, (mean, error, spatial), (first, second) in zip(lams, (sums / pairs).tolist(), moments, strict=True):
        variance_P = (second / pairs - (first / pairs).square()).clamp(min=0)
        rows.append(MaskStatistics(float(lam), mean, error, spatial, float(variance_P.sqrt().mean()), pairs))
    return rows


def draw_partners(count: int, seed: int, batch: int) -> Tensor:
    """A partner for each of ``count`` images, another one wherever there are two: (N,) int64, the same for every method and λ.

    A random cycle: every image is i once and j once, and none is its own partner.
    """
    order = torch.randperm(count, generator=derive_generator(seed, "partners", batch))
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners


def shuffled_batches(dataset: ClassificationDataset, batch_size: int = 64, seed: int = 0,
                     count: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` samples (0: all) of ``dataset`` in a random order as (images, labels); a last batch of one image is dropped."""
    chosen = torch.randperm(len(dataset), generator=derive_generator(seed, "shuffled batches"))[:count or len(dataset)].tolist()
    for start in range(0, len(chosen), batch_size):
        samples = [dataset[index] for index in chosen[start:start + batch_size]]
        if len(samples) > 1:
            yield torch.stack([sample[0] for sample in samples]), torch.tensor([sample[1] for sample in samples])


def _automix(method: Method) -> AutoMix:
    if not isinstance(method, AutoMix):
        raise UserError(f"method '{type(method).__name__}' has no Mix Block; give the checkpoint of a run with method.name=automix")
    return method


def _check_lams(lams: Sequence[float]) -> None:
    for lam in lams:
        if not 0 <= lam <= 1:
            raise UserError(f"lam={lam} is not the share of an image; give numbers from 0 to 1")
