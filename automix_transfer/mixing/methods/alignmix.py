"""AlignMix (Venkataramanan et al., 2022): MixUp of the last feature maps, one of them first laid out as the
other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.checks import check_range
from automix_transfer.mixing.losses import pair_loss
from automix_transfer.mixing.methods.manifoldmix import mix_features
from automix_transfer.mixing.pairs import MixDraw, Mixed, PairMethod, PairOptions, draw_mix, partners_of
from automix_transfer.mixing.parts.hooks import replaced_output
from automix_transfer.mixing.parts.sinkhorn import sinkhorn
from automix_transfer.models.encoders import feature_layer
from automix_transfer.models.taps import channel_axis, feature_channels


@dataclass
class AlignMixOptions(PairOptions):
    """``feature_layer``: whose maps are aligned, the last (4). ``epsilon``, ``iterations``, ``tolerance``: of
    `sinkhorn`. ``align_probability``: of alignment; the other batches are MixUp of the input."""

    alpha: float = 2.0
    feature_layer: str = "4"
    epsilon: float = 0.1
    iterations: int = 100
    tolerance: float = 0.1
    align_probability: float = 0.5


@dataclass(frozen=True)
class AlignMixDraw(MixDraw):
    """``align``: features or input; ``move_partner``: the partner's map is laid out as image i's, or the
    other way round."""

    align: bool
    move_partner: bool


def draw_alignmix(
    count: int, options: AlignMixOptions, rng: torch.Generator | None, lam: float | None = None
) -> AlignMixDraw:
    """One λ, one permutation and two coins for the batch."""
    pairs = draw_mix(count, options, rng, lam)
    align, move = torch.rand(2, generator=rng).tolist()
    return AlignMixDraw(
        pairs.lam, pairs.permutation, pairs.apply, align < options.align_probability, move < 0.5
    )


def apply_alignmix(features: Tensor, draw: AlignMixDraw, options: AlignMixOptions) -> Tensor:
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
    if draw.move_partner:
        other = (other @ plan.transpose(1, 2)).to(own.dtype)  # autocast may have made it half
    else:
        own = (own @ plan).to(other.dtype)
    return torch.lerp(other, own, draw.lam).view_as(features)


class AlignMix(PairMethod):
    """Eq. 2 on aligned feature maps, or on MixUp of the input, by a coin; one λ a batch."""

    options: AlignMixOptions
    reads_layers = True

    def __init__(self, encoder: nn.Module, options: AlignMixOptions | None = None) -> None:
        options = options or AlignMixOptions()
        super().__init__(encoder, options)
        check_range("epsilon", options.epsilon, 1e-6)
        check_range("iterations", options.iterations, 1)
        check_range("tolerance", options.tolerance)
        check_range("align_probability", options.align_probability, 0, 1)
        self.layer = feature_layer(encoder, options.feature_layer)
        if getattr(encoder, "has_class_token", False):
            raise UserError(
                f"alignmix mixes the feature map that the classifier averages, but {type(encoder).__name__} "
                "classifies by a "
                "class token; use a convolutional network, or method.name=transmix, manifoldmix or "
                "mixup_cutmix"
            )
        feature_channels(encoder, self.layer)  # refuses a layer without a feature map

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> AlignMixDraw:
        return draw_alignmix(count, self.options, rng, lam)

    def apply_draw(self, images: Tensor, labels: Tensor, draw: AlignMixDraw) -> Mixed:
        """The mix of the input, which is what can be looked at; features are mixed on the way, see `step`."""
        mask = images.new_full((len(images), 1, *images.shape[2:]), draw.lam)
        return Mixed(mix_features(images, draw), mask, draw.lam)

    def step(self, images: Tensor, labels: Tensor, draw: AlignMixDraw) -> StepOutput:
        if not draw.align:
            return super().step(images, labels, draw)

        def align(output: Tensor) -> Tensor:
            axis = channel_axis(output, self.layer, self.encoder)
            return apply_alignmix(output.movedim(axis, 1), draw, self.options).movedim(1, axis)

        with replaced_output(self.encoder, self.layer, align):
            logits = self.encoder(images)
        loss = pair_loss(logits, labels, partners_of(labels, draw), draw.lam, self.options)
        return StepOutput(loss, {"loss_mce": loss.detach()}, permutation=draw.permutation, lam=draw.lam)
