"""Manifold Mixup (Verma et al., 2019): MixUp of the images or of a hidden layer's features, chosen anew for
each batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.losses import pair_loss
from automix_transfer.mixing.pairs import MixDraw, Mixed, PairMethod, PairOptions, draw_mix, partners_of
from automix_transfer.mixing.parts.hooks import replaced_output
from automix_transfer.models.encoders import feature_layer


@dataclass
class ManifoldMixOptions(PairOptions):
    """``layers``: where to mix; 0 is the input, 1 to 4 the stages of the network (Table 11's l)."""

    alpha: float = 2.0
    layers: list[int] = field(default_factory=lambda: [0, 1, 2])


@dataclass(frozen=True)
class ManifoldMixDraw(MixDraw):
    """The layer at which this batch is mixed; 0: the input."""

    layer: int


def draw_manifoldmix(
    count: int, options: ManifoldMixOptions, rng: torch.Generator | None, lam: float | None = None
) -> ManifoldMixDraw:
    """One λ, one permutation and one of the layers, each as likely."""
    pairs = draw_mix(count, options, rng, lam)
    layer = options.layers[int(torch.randint(len(options.layers), (), generator=rng))]
    return ManifoldMixDraw(pairs.lam, pairs.permutation, pairs.apply, layer)


def mix_features(features: Tensor, draw: MixDraw) -> Tensor:
    """λ·h_i + (1-λ)·h_j of images, feature maps or tokens (N, ...)."""
    return torch.lerp(partners_of(features, draw), features, draw.lam)


class ManifoldMix(PairMethod):
    """Eq. 2 on features mixed at a random layer; one λ a batch."""

    options: ManifoldMixOptions
    reads_layers = True

    def __init__(self, encoder: nn.Module, options: ManifoldMixOptions | None = None) -> None:
        options = options or ManifoldMixOptions()
        super().__init__(encoder, options)
        if not options.layers or not all(0 <= layer <= 4 for layer in options.layers):
            raise UserError(
                f"method.layers={list(options.layers)} must name layers from 0 (the input) to 4, e.g. [0, 1, "
                "2]"
            )
        try:
            self.names = {layer: feature_layer(encoder, layer) for layer in options.layers if layer}
        except UserError as error:
            raise UserError(
                f"method.layers={list(options.layers)} cannot be mixed: {error}; "
                "method.layers=[0] mixes the input alone"
            ) from error

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> ManifoldMixDraw:
        return draw_manifoldmix(count, self.options, rng, lam)

    def apply_draw(self, images: Tensor, labels: Tensor, draw: ManifoldMixDraw) -> Mixed:
        """The mix of the input, which is what can be looked at; deeper layers are mixed on the way, see
        `step`."""
        mask = images.new_full((len(images), 1, *images.shape[2:]), draw.lam)
        return Mixed(mix_features(images, draw), mask, draw.lam)

    def step(self, images: Tensor, labels: Tensor, draw: ManifoldMixDraw) -> StepOutput:
        if draw.layer == 0:
            return super().step(images, labels, draw)
        with replaced_output(
            self.encoder, self.names[draw.layer], lambda features: mix_features(features, draw)
        ):
            logits = self.encoder(images)
        loss = pair_loss(logits, labels, labels[draw.permutation.to(labels.device)], draw.lam, self.options)
        return StepOutput(loss, {"loss_mce": loss.detach()}, permutation=draw.permutation, lam=draw.lam)
