"""Co-Mixup (Kim et al., 2021): a batch mixed as a whole, each output from the inputs whose saliency fits, no
two outputs alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.mixing.base import Mixed, StepOutput
from automix_transfer.mixing.checks import between, blocks_problem, check_blocks, checked, positive
from automix_transfer.mixing.draw import Draw, Rng, Size, draw_gamma
from automix_transfer.mixing.losses import target_loss, vector_loss
from automix_transfer.mixing.pairs import PairOptions
from automix_transfer.mixing.parts.comixup_solver import label_outputs
from automix_transfer.mixing.parts.mincut import in_threads
from automix_transfer.mixing.parts.saliency import SalientMethod, block_shares, enlarge
from automix_transfer.mixing.precision import full_precision
from automix_transfer.models.classifier import find_classifiers
from automix_transfer.models.encoders import EncoderInfo


@dataclass
class CoMixupOptions(PairOptions):
    """Options of `CoMixup`, named as in its paper, besides those of the loss.

    Attributes:
        alpha: weights of the inputs in the prior ~ Dirichlet(α), anew for each partition.
        blocks: cells a side.
        partition: images that are mixed with each other (20 of 100 on CIFAR, 16 on ImageNet).
        beta, gamma, eta: weights of smooth masks, of outputs that show the same, and of the prior.
        tau: share of the image that others may use of an input before it costs more.
        omega: weight of the distance of salient places in what counts as the same; ``distance_pool``: pixels
            that are averaged for them.
        rounds: of improving every output in turn.
        clean_weight: of the loss on the clean images, trained on too (their code); 0: only looked at for the
            saliency.
    """

    alpha: float = positive(2.0)
    blocks: int = checked(4, lambda blocks: blocks_problem([blocks]))
    partition: int = between(20, 2)
    beta: float = between(0.32)
    gamma: float = between(1.0)
    eta: float = between(0.05)
    tau: float = between(0.83)
    omega: float = between(0.001, 0, 1)
    distance_pool: int = between(8, 1)
    rounds: int = between(4, 1, 1000)
    clean_weight: float = between(1.0)


@dataclass(frozen=True)
class CoMixupDraw(Draw):
    """Each image's weight (N,) within its partition, and the first labels (N, cells), numbers within the
    partition."""

    weights: Tensor
    start: Tensor


def partitions(count: int, size: int) -> list[tuple[int, int]]:
    """[begin, end) of the parts of a batch that are mixed with each other."""
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def similarity(saliency: Tensor, omega: float, pool: int) -> Tensor:
    """A = (1-ω)·I + ω·n·D/ΣD (n, n), D the city-block distances of the most salient places of (n, H, W)."""
    pool = min(pool, *saliency.shape[1:])
    finite = saliency.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    pooled = functional.avg_pool2d(finite.unsqueeze(1), pool, stride=1).squeeze(1)
    place = pooled.flatten(1).argmax(dim=1).cpu()  # MPS has no float64
    row_and_column = torch.stack([place // pooled.shape[2], place % pooled.shape[2]], dim=1).double()
    distance = torch.cdist(row_and_column, row_and_column, p=1)
    identity = torch.eye(len(saliency), dtype=torch.float64)
    return (1 - omega) * identity + omega * len(saliency) * distance / distance.sum().clamp(min=1)


def solve_shares(
    saliency: Tensor, draw: CoMixupDraw, options: CoMixupOptions, threads: int | None = None
) -> list[Tensor]:
    """For each partition the shares (n, b, b, n): output, cell, input. On the CPU, partitions in parallel
    threads."""
    b, cells = options.blocks, options.blocks**2
    shares = block_shares(saliency, (b, b)).flatten(1).cpu().double()
    prior = -(options.eta / cells) * torch.log(draw.weights + 1e-8)
    costs = (prior.unsqueeze(1) - shares).numpy()
    parts = partitions(len(saliency), options.partition)
    start = draw.start.numpy()
    found: list[np.ndarray] = [np.empty(0)] * len(parts)

    def work(first: int, last: int) -> None:
        for at, (begin, end) in enumerate(parts[first:last], start=first):
            similar = similarity(saliency[begin:end], options.omega, options.distance_pool).numpy()
            beta, gamma, most = options.beta / cells, options.gamma / cells, options.tau * cells
            found[at] = label_outputs(
                costs[begin:end], similar, start[begin:end], (b, b), beta, gamma, most, options.rounds
            )

    in_threads(work, len(parts), threads)
    return [torch.from_numpy(part).float().unflatten(1, (b, b)) for part in found]


def shared_labels(shares: Tensor, vectors: Tensor) -> Tensor:
    """Labels (M, K) of outputs with ``shares`` (M, N) of inputs with ``vectors`` (N, K); a class that is
    unknown (NaN) of an input is so of those with a share of it."""
    unknown = shares @ vectors.isnan().to(shares.dtype) > 0
    return (shares @ vectors.nan_to_num()).masked_fill(unknown, torch.nan)


class CoMixup(SalientMethod):
    """Cross-entropy against the soft labels of jointly mixed images."""

    options_class = CoMixupOptions

    def __init__(self, encoder: nn.Module, options: CoMixupOptions | None = None) -> None:
        super().__init__(encoder, options)
        self.classes = 0  # as the run says, or as the encoder's classifier has them

    def prepare(self, info: EncoderInfo) -> None:
        super().prepare(info)
        self.classes = info.num_classes

    def check_size(self, size: Size) -> None:
        check_blocks([self.options.blocks], size)

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> CoMixupDraw:
        """Dirichlet weights and random labels for each partition, and the coin. There is no λ that could be
        given."""
        self.check_size(size)
        weights = draw_gamma((count,), self.options.alpha, rng)
        uniform = torch.rand(count, self.options.blocks**2, generator=rng)
        start = torch.empty(uniform.shape, dtype=torch.int64)
        for begin, end in partitions(count, self.options.partition):
            weights[begin:end] /= weights[begin:end].sum()
            start[begin:end] = (uniform[begin:end] * (end - begin)).long().clamp(max=end - begin - 1)
        return CoMixupDraw(weights, start, apply=self.toss(rng))

    def mix_salient(self, images: Tensor, labels: Tensor, draw: CoMixupDraw, saliency: Tensor) -> Mixed:
        """Mix images (N, C, H, W) by their saliency (N, H, W); soft labels by area (of labels (N,) or vectors
        (N, K)), masks of each output's own input."""
        if labels.ndim == 1:
            self.classes = self.classes or find_classifiers(self.encoder)[-1].out_features
        size, b = images.shape[2:], self.options.blocks
        pieces = images.unflatten(3, (b, -1)).unflatten(2, (b, -1))  # (N, C, b, h, b, w)
        vectors = labels if labels.ndim == 2 else functional.one_hot(labels, self.classes).float()
        mixed, targets, own = [], [], []
        parts = partitions(len(images), self.options.partition)
        for (begin, end), shares in zip(parts, solve_shares(saliency, draw, self.options), strict=True):
            shares = shares.to(images.device)
            with full_precision(images.device.type):  # autocast would round images and labels
                part = torch.einsum("myxn,ncyhxw->mcyhxw", shares.to(images.dtype), pieces[begin:end])
                targets.append(shared_labels(shares.mean(dim=(1, 2)), vectors[begin:end]))
            mixed.append(part.reshape(end - begin, -1, *size))
            own.append(shares.diagonal(dim1=0, dim2=3).permute(2, 0, 1))
        mask = enlarge(torch.cat(own), size).to(images.dtype)
        return Mixed(torch.cat(mixed), mask, targets=torch.cat(targets))

    def classified(self, logits: Tensor, labels: Tensor, draw: Any, mixed: Mixed | None = None) -> StepOutput:
        assert mixed is not None and mixed.targets is not None
        compare = vector_loss if labels.ndim == 2 else target_loss
        loss = compare(logits, mixed.targets, self.options)
        return StepOutput(loss, {"loss_mce": loss.detach()}, mixed.images, mixed.mask)
