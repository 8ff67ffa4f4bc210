"""AlignMix (Venkataramanan et al., 2022): MixUp of the last feature maps, one of them first laid out as the
other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed, StepOutput
from automix_transfer.mixing.checks import between, positive
from automix_transfer.mixing.draw import PairDraw, Rng, Size
from automix_transfer.mixing.methods.mixup import combined
from automix_transfer.mixing.pairs import PairMethod, PairOptions, partners_of
from automix_transfer.mixing.parts.hooks import replaced_output
from automix_transfer.mixing.parts.sinkhorn import sinkhorn
from automix_transfer.mixing.precision import full_precision
from automix_transfer.models.encoders import feature_layer
from automix_transfer.models.taps import channel_axis, feature_channels


@dataclass
class AlignMixOptions(PairOptions):
    """``feature_layer``: whose maps are aligned, the last (4). ``epsilon``, ``iterations``, ``tolerance``: of
    `sinkhorn`. ``align_probability``: of alignment; the other batches are MixUp of the input."""

    alpha: float = positive(2.0)
    feature_layer: str = "4"
    epsilon: float = between(0.1, 1e-6)
    iterations: int = between(100, 1, 10**4)
    tolerance: float = between(0.1)
    align_probability: float = between(0.5, 0, 1)


@dataclass(frozen=True)
class AlignMixDraw(PairDraw):
    """``align``: features or input; ``move_partner``: the partner's map is laid out as image i's, or the
    other way round."""

    align: bool
    move_partner: bool


def mix_aligned(features: Tensor, draw: AlignMixDraw, options: AlignMixOptions) -> Tensor:
    """λ·A + (1-λ)·A'Rᵀ, or λ·AR + (1-λ)·A', for feature maps A (N, C, h, w) or (N, C, M); R (N, M, M) from
    Sinkhorn, without gradient.

    R's columns sum to 1, its rows nearly.
    """
    own = features.flatten(2)  # (N, C, M)
    other = partners_of(own, draw)
    plan = sinkhorn(
        own.detach().transpose(1, 2),
        other.detach().transpose(1, 2),
        options.epsilon,
        options.iterations,
        options.tolerance,
    )
    plan = (plan * own.shape[2]).to(own.dtype)
    with full_precision(features.device.type):
        if draw.move_partner:
            other = other @ plan.transpose(1, 2)
        else:
            own = own @ plan
    return torch.lerp(other, own, draw.lam).view_as(features)


class AlignMix(PairMethod):
    """Eq. 2 on aligned feature maps, or on MixUp of the input, by a coin; one λ a batch. `mix` mixes the
    input, which is what can be looked at; features are mixed on the way, by `step`."""

    options_class = AlignMixOptions
    reads_layers = True

    def __init__(self, encoder: nn.Module, options: AlignMixOptions | None = None) -> None:
        super().__init__(encoder, options)
        self.layer = feature_layer(encoder, self.options.feature_layer)
        if getattr(encoder, "has_class_token", False):
            raise UserError(
                f"method.name=alignmix mixes the feature map that the classifier averages, but "
                f"{type(encoder).__name__} classifies by a class token; use a convolutional network, or "
                "method.name=transmix, manifoldmix or mixup_cutmix"
            )
        feature_channels(encoder, self.layer)  # refuses a layer without a feature map

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> AlignMixDraw:
        pairs = super().draw(count, size, rng, lam)
        align, move = torch.rand(2, generator=rng).tolist()
        return AlignMixDraw(
            **vars(pairs), align=align < self.options.align_probability, move_partner=move < 0.5
        )

    def mix(self, images: Tensor, labels: Tensor, draw: PairDraw) -> Mixed:
        return combined(images, draw)

    def step(self, images: Tensor, labels: Tensor, draw: AlignMixDraw) -> StepOutput:
        if not draw.align:
            return super().step(images, labels, draw)

        def align(output: Tensor) -> Tensor:
            axis = channel_axis(output, self.layer, self.encoder)
            return mix_aligned(output.movedim(axis, 1), draw, self.options).movedim(1, axis)

        with replaced_output(self.encoder, self.layer, align):
            logits = self.encoder(images)
        return self.classified(logits, labels, draw)
