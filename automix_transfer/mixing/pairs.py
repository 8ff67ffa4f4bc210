"""What the methods that mix pairs of images share: their common options, their loss, and the step that draws,
applies and classifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.checks import check_range
from automix_transfer.mixing.draw import PairDraw, draw_beta
from automix_transfer.mixing.losses import LossOptions, check_batch, check_loss, label_loss, pair_loss
from automix_transfer.mixing.methods.mixup import check_alpha
from automix_transfer.mixing.methods.vanilla import SingleEncoderMethod
from automix_transfer.models.encoders import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo


@dataclass
class CoinOptions(LossOptions):
    """Options of every method that mixes pairs, besides those of the loss. ``probability``: of mixing a
    batch; the other batches are trained on as they are."""

    probability: float = 1.0


@dataclass
class PairOptions(CoinOptions):
    """Options of the methods with one λ. ``alpha``: λ ~ Beta(α, α)."""

    alpha: float = 1.0


@dataclass(frozen=True)
class MixDraw(PairDraw):
    """λ, the partners (N,), and whether this batch is mixed at all."""

    apply: bool


@dataclass(frozen=True)
class Mixed:
    """What applying a draw gives.

    Attributes:
        images: (N, C, H, W).
        mask: (N, 1, H, W) share of image i in each pixel.
        lam: share of label i, one number or one for each sample (N,).
    """

    images: Tensor
    mask: Tensor
    lam: float | Tensor


def draw_mix(
    count: int, options: PairOptions, rng: torch.Generator | None, lam: float | None = None
) -> MixDraw:
    """λ ~ Beta(α, α) unless given, a permutation, and the coin that decides whether to mix."""
    drawn = draw_beta(options.alpha, rng)
    permutation = torch.randperm(count, generator=rng)
    coin = float(torch.rand((), generator=rng))
    return MixDraw(drawn if lam is None else lam, permutation, coin < options.probability)


def blend(images: Tensor, partners: Tensor, mask: Tensor) -> Tensor:
    """mask · x_i + (1 - mask) · x_j, exact where the mask is 0 or 1, in the precision of the images."""
    return torch.lerp(partners, images, mask.to(images.dtype))


def paste(images: Tensor, partners: Tensor, mask: Tensor) -> Tensor:
    """x_i where the mask (N, 1, H, W) is 1 and x_j where it is 0; for masks that hold nothing else."""
    return torch.where(mask > 0.5, images, partners)


class CoinMethod(SingleEncoderMethod):
    """Draws, applies, classifies. A subclass says what is drawn and how it is applied."""

    options: CoinOptions

    def __init__(self, encoder: nn.Module, options: CoinOptions) -> None:
        super().__init__(encoder)
        self.options = options
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        check_range("probability", options.probability, 0, 1)
        check_loss(options)

    def prepare(self, info: EncoderInfo) -> None:
        self.mean, self.std = info.mean, info.std
        self.check_size((info.image_size, info.image_size))

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse images of ``size`` (H, W) that the method cannot mix."""

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> Any:
        """Everything random of one step, for ``count`` images of ``size`` (H, W); ``lam`` replaces the λ that
        would be drawn."""
        raise NotImplementedError

    def apply_draw(self, images: Tensor, labels: Tensor, draw: Any) -> Mixed:
        """Mix: a function of the images, the labels, the draw, and of what the encoder says about the images."""
        raise NotImplementedError

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        check_batch(images, labels)
        draw = self.draw(len(images), (images.shape[2], images.shape[3]), rng)
        return self.step(images, labels, draw) if draw.apply else self.clean_step(images, labels)

    def clean_step(self, images: Tensor, labels: Tensor) -> StepOutput:
        """A batch that the coin leaves as it is."""
        loss = label_loss(self.encoder(images), labels, self.options)
        return StepOutput(loss, {"loss_ce": loss.detach()})

    def step(self, images: Tensor, labels: Tensor, draw: Any) -> StepOutput:
        """The loss on mixed images."""
        mixed = self.apply_draw(images, labels, draw)
        loss = pair_loss(
            self.encoder(mixed.images),
            labels,
            labels[draw.permutation.to(labels.device)],
            mixed.lam,
            self.options,
        )
        return pair_output(loss, mixed, draw)


class PairMethod(CoinMethod):
    """With λ ~ Beta(α, α)."""

    options: PairOptions

    def __init__(self, encoder: nn.Module, options: PairOptions) -> None:
        super().__init__(encoder, options)
        check_alpha(options.alpha)

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> Any:
        return draw_mix(count, self.options, rng, lam)


def pair_output(loss: Tensor, mixed: Mixed, draw: PairDraw) -> StepOutput:
    """What a step on mixed pairs reports; λ of a label that differs between samples stays on its device, so
    the drawn one is shown."""
    lam = draw.lam if isinstance(mixed.lam, Tensor) else mixed.lam
    return StepOutput(
        loss,
        {"loss_mce": loss.detach()},
        mixed=mixed.images,
        mask=mixed.mask,
        permutation=draw.permutation,
        lam=lam,
    )


def partners_of(images: Tensor, draw: PairDraw) -> Tensor:
    """The partner x_j of every image (N, ...)."""
    return images[draw.permutation.to(images.device)]
