"""Co-Mixup (Kim et al., 2021): a batch mixed as a whole, each output from the inputs whose saliency fits, no
two outputs alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.checks import check_blocks, check_range
from automix_transfer.mixing.losses import LossOptions, check_batch, check_loss, label_loss, target_loss
from automix_transfer.mixing.methods.mixup import check_alpha
from automix_transfer.mixing.methods.vanilla import SingleEncoderMethod
from automix_transfer.mixing.parts.comixup_solver import label_outputs
from automix_transfer.mixing.parts.mincut import in_threads
from automix_transfer.mixing.parts.saliency import block_shares, enlarge, input_saliency, saliency_with_loss
from automix_transfer.models.classifier import find_classifier
from automix_transfer.models.encoders import EncoderInfo


@dataclass
class CoMixupOptions(LossOptions):
    """Options of `CoMixup`, named as in its paper, besides those of the loss.

    Attributes:
        alpha: weights of the inputs in the prior ~ Dirichlet(α), anew for each partition.
        probability: of mixing a batch.
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

    alpha: float = 2.0
    probability: float = 1.0
    blocks: int = 4
    partition: int = 20
    beta: float = 0.32
    gamma: float = 1.0
    eta: float = 0.05
    tau: float = 0.83
    omega: float = 0.001
    distance_pool: int = 8
    rounds: int = 4
    clean_weight: float = 1.0


@dataclass(frozen=True)
class CoMixupDraw:
    """Whether to mix, each image's weight (N,) within its partition, and the first labels (N, cells), numbers
    within the partition."""

    apply: bool
    weights: Tensor
    start: Tensor


def partitions(count: int, size: int) -> list[tuple[int, int]]:
    """[begin, end) of the parts of a batch that are mixed with each other."""
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def draw_comixup(count: int, options: CoMixupOptions, rng: torch.Generator | None) -> CoMixupDraw:
    """Dirichlet weights and random labels for each partition, and the coin."""
    gamma = torch._standard_gamma(
        torch.full((count,), options.alpha, dtype=torch.float64), generator=rng
    ).clamp(min=1e-300)
    uniform = torch.rand(count, options.blocks**2, generator=rng)
    start = torch.empty(uniform.shape, dtype=torch.int64)
    for begin, end in partitions(count, options.partition):
        gamma[begin:end] /= gamma[begin:end].sum()
        start[begin:end] = (uniform[begin:end] * (end - begin)).long().clamp(max=end - begin - 1)
    return CoMixupDraw(float(torch.rand((), generator=rng)) < options.probability, gamma, start)


def similarity(saliency: Tensor, omega: float, pool: int) -> Tensor:
    """A = (1-ω)·I + ω·n·D/ΣD (n, n), D the city-block distances of the most salient places of (n, H, W)."""
    pool = min(pool, *saliency.shape[1:])
    pooled = functional.avg_pool2d(
        saliency.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).unsqueeze(1), pool, stride=1
    ).squeeze(1)
    place = pooled.flatten(1).argmax(dim=1)
    rows, columns = place // pooled.shape[2], place % pooled.shape[2]
    distance = (
        (rows.unsqueeze(0) - rows.unsqueeze(1)).abs() + (columns.unsqueeze(0) - columns.unsqueeze(1)).abs()
    ).double()
    identity = torch.eye(len(saliency), dtype=torch.float64, device=saliency.device)
    return (1 - omega) * identity + omega * len(saliency) * distance / distance.sum().clamp(min=1)


def solve_shares(
    saliency: Tensor, draw: CoMixupDraw, options: CoMixupOptions, threads: int | None = None
) -> list[Tensor]:
    """For each partition the shares (n, b, b, n): output, cell, input. On the CPU, partitions in parallel
    threads."""
    b, cells = options.blocks, options.blocks**2
    shares = block_shares(saliency, (b, b)).flatten(1).double().cpu()
    prior = -(options.eta / cells) * torch.log(draw.weights + 1e-8)
    costs = (prior.unsqueeze(1) - shares).numpy()
    parts = partitions(len(saliency), options.partition)
    similar = [
        similarity(saliency[begin:end], options.omega, options.distance_pool).cpu().numpy()
        for begin, end in parts
    ]
    start = draw.start.numpy()
    found: list[np.ndarray] = [np.empty(0)] * len(parts)

    def work(first: int, last: int) -> None:
        for at in range(first, last):
            begin, end = parts[at]
            found[at] = label_outputs(
                costs[begin:end],
                similar[at],
                start[begin:end],
                (b, b),
                options.beta / cells,
                options.gamma / cells,
                options.tau * cells,
                options.rounds,
            )

    in_threads(work, len(parts), threads)
    return [torch.from_numpy(part).float().unflatten(1, (b, b)) for part in found]


def apply_comixup(
    images: Tensor, labels: Tensor, draw: CoMixupDraw, saliency: Tensor, classes: int, options: CoMixupOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixed images (N, C, H, W), their soft labels (N, K) by area, and each output's share of its own input
    (N, 1, H, W)."""
    size, b = (images.shape[2], images.shape[3]), options.blocks
    check_blocks("blocks", [b], size)
    pieces = images.unflatten(3, (b, -1)).unflatten(2, (b, -1))  # (N, C, b, h, b, w)
    one_hot = functional.one_hot(labels, classes).float()
    mixed, targets, own = [], [], []
    for (begin, end), shares in zip(
        partitions(len(images), options.partition), solve_shares(saliency, draw, options), strict=True
    ):
        shares = shares.to(images.device)
        with torch.autocast(images.device.type, enabled=False):  # it would round the images
            part = torch.einsum("myxn,ncyhxw->mcyhxw", shares.to(images.dtype), pieces[begin:end])
        mixed.append(part.reshape(end - begin, -1, *size))
        targets.append(shares.mean(dim=(1, 2)) @ one_hot[begin:end])
        own.append(shares.diagonal(dim1=0, dim2=3).permute(2, 0, 1))
    return torch.cat(mixed), torch.cat(targets), enlarge(torch.cat(own), size).to(images.dtype)


class CoMixup(SingleEncoderMethod):
    """Cross-entropy against the soft labels of jointly mixed images."""

    def __init__(self, encoder: nn.Module, options: CoMixupOptions | None = None) -> None:
        super().__init__(encoder)
        self.options = options = options or CoMixupOptions()
        self.classes = 0  # as the run says, or as the encoder's classifier has them
        check_alpha(options.alpha)
        check_loss(options)
        check_range("probability", options.probability, 0, 1)
        check_blocks("blocks", [options.blocks])
        check_range("partition", options.partition, 2)
        check_range("rounds", options.rounds, 1, 1000)
        check_range("distance_pool", options.distance_pool, 1)
        check_range("omega", options.omega, 0, 1)
        for key in ("beta", "gamma", "eta", "tau", "clean_weight"):
            check_range(key, getattr(options, key))

        if options.clean_weight and options.probability < 1:
            self.uneven_passes = f"probability={options.probability:g}"

    def prepare(self, info: EncoderInfo) -> None:
        self.classes = info.num_classes
        check_blocks("blocks", [self.options.blocks], (info.image_size, info.image_size))

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        check_batch(images, labels)
        check_blocks("blocks", [self.options.blocks], (images.shape[2], images.shape[3]))
        draw = draw_comixup(len(images), self.options, rng)
        if not draw.apply:
            loss = label_loss(self.encoder(images), labels, self.options)
            return StepOutput(loss, {"loss_ce": loss.detach()})
        return self.step(images, labels, draw)

    def step(self, images: Tensor, labels: Tensor, draw: CoMixupDraw) -> StepOutput:
        """The loss on jointly mixed images."""
        clean = None
        if self.options.clean_weight:
            saliency, clean = saliency_with_loss(self.encoder, images, labels, self.options)
        else:
            saliency = input_saliency(self.encoder, images, labels)
        self.classes = self.classes or find_classifier(self.encoder).out_features
        mixed, targets, own = apply_comixup(images, labels, draw, saliency, self.classes, self.options)
        loss = target_loss(self.encoder(mixed), targets, self.options)
        metrics = {"loss_mce": loss.detach()}
        if clean is not None:
            loss, metrics["loss_ce"] = loss + self.options.clean_weight * clean, clean.detach()
        return StepOutput(loss, metrics, mixed=mixed, mask=own)
