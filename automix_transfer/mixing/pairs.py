"""What the methods that mix pairs of images share: their common options, draw, step and loss."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from automix_transfer.mixing.base import Mixed, SingleEncoderMethod, StepOutput
from automix_transfer.mixing.checks import between, positive
from automix_transfer.mixing.draw import PairDraw, Rng, Size, draw_pairs
from automix_transfer.mixing.losses import LossOptions, label_loss, pair_loss
from automix_transfer.mixing.parts.boxes import Box


@dataclass
class CoinOptions(LossOptions):
    """Options of every method that mixes pairs, besides those of the loss. ``probability``: of mixing a
    batch; the other batches are trained on as they are."""

    probability: float = between(1.0, 0, 1)


@dataclass
class PairOptions(CoinOptions):
    """Options of the methods with one λ. ``alpha``: λ ~ Beta(α, α)."""

    alpha: float = positive(1.0)


@dataclass
class BesideCleanOptions(PairOptions):
    """``clean_weight``: of the loss on the clean images beside that on the mixed ones, as AutoMix's q has it
    (Table 10: + CE); 0 is without that pass."""

    clean_weight: float = between(0.0)


@dataclass(frozen=True)
class BoxDraw(PairDraw):
    """The box [top, bottom) × [left, right) that the partner fills; ``lam`` is the share of the image outside
    it."""

    box: Box


def blend(images: Tensor, partners: Tensor, mask: Tensor) -> Tensor:
    """Eq. 4: s_i ⊙ x_i + (1 - s_i) ⊙ x_j for images (N, C, H, W) and masks s_i (N, 1, H, W), in the images'
    precision; exact where a mask is 0 or 1. One pass over the images, and no copies of them."""
    return torch.lerp(partners, images, mask.to(images.dtype))


def paste(images: Tensor, partners: Tensor, mask: Tensor) -> Tensor:
    """x_i where the mask (N, 1, H, W) is 1 and x_j where it is 0; for masks that hold nothing else."""
    return torch.where(mask > 0.5, images, partners)


def partners_of(images: Tensor, draw: PairDraw) -> Tensor:
    """The partner x_j of every image (N, ...)."""
    return images[draw.to(images.device).permutation]


class PairMethod(SingleEncoderMethod):
    """Draws, mixes, classifies: Eq. 2. A subclass says how it mixes, and what it draws besides λ and
    partners."""

    options_class: ClassVar[type] = PairOptions

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> Any:
        pairs = draw_pairs(count, self.options.alpha, rng, lam)
        return dataclasses.replace(pairs, apply=self.toss(rng))

    def toss(self, rng: Rng) -> bool:
        """The coin that decides whether to mix."""
        return float(torch.rand((), generator=rng)) < self.options.probability

    def step(self, images: Tensor, labels: Tensor, draw: Any) -> StepOutput:
        mixed = self.mix(images, labels, draw)
        return self.classified(self.encoder(mixed.images), labels, draw, mixed)

    def classified(
        self, logits: Tensor, labels: Tensor, draw: PairDraw, mixed: Mixed | None = None
    ) -> StepOutput:
        """The loss of logits (N, K) of mixed pairs, and what the step reports; ``mixed`` None: features were
        mixed. λ of a label that differs between samples stays on its device, so the drawn one is reported."""
        share = draw.lam if mixed is None else mixed.lam
        loss = pair_loss(logits, labels, partners_of(labels, draw), share, self.options)
        output = StepOutput(loss, {"loss_mce": loss.detach()}, permutation=draw.permutation)
        output.lam = draw.lam if isinstance(share, Tensor) else share
        if mixed is not None:
            output.mixed, output.mask = mixed.images, mixed.mask
        return output


class BesideClean(PairMethod):
    """Eq. 2 on mixed images, beside Eq. 1 on the clean ones where ``options.clean_weight`` is not 0."""

    options_class: ClassVar[type] = BesideCleanOptions

    def __init__(self, encoder: nn.Module, options: Any = None) -> None:
        super().__init__(encoder, options)
        if self.options.clean_weight and self.options.probability < 1:
            self.uneven_passes = {"probability": 1}

    def step(self, images: Tensor, labels: Tensor, draw: Any) -> StepOutput:
        output = super().step(images, labels, draw)
        if self.options.clean_weight:
            self.add_clean(output, label_loss(self.encoder(images), labels, self.options))
        return output

    def add_clean(self, output: StepOutput, clean: Tensor) -> None:
        """Add the loss on the clean images to that on the mixed ones."""
        output.loss = output.loss + self.options.clean_weight * clean
        output.metrics["loss_ce"] = clean.detach()
