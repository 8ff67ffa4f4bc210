"""Manifold Mixup (Verma et al., 2019): MixUp of the images or of a hidden layer's features, chosen anew for
each batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed, StepOutput
from automix_transfer.mixing.checks import checked, positive
from automix_transfer.mixing.draw import PairDraw, Rng, Size
from automix_transfer.mixing.methods.mixup import combine, combined
from automix_transfer.mixing.pairs import PairMethod, PairOptions
from automix_transfer.mixing.parts.hooks import replaced_output
from automix_transfer.models.encoders import feature_layer


def layers_problem(layers: list[int]) -> str:
    """Why these are no layers to mix at."""
    good = layers and all(0 <= layer <= 4 for layer in layers)
    return "" if good else "name layers from 0 (the input) to 4, e.g. [0, 1, 2]"


@dataclass
class ManifoldMixOptions(PairOptions):
    """``layers``: where to mix; 0 is the input, 1 to 4 the stages of the network (Table 11's l)."""

    alpha: float = positive(2.0)
    layers: list[int] = checked([0, 1, 2], layers_problem)


@dataclass(frozen=True)
class ManifoldMixDraw(PairDraw):
    """The layer at which this batch is mixed; 0: the input."""

    layer: int


class ManifoldMix(PairMethod):
    """Eq. 2 on features mixed at a random layer; one λ a batch. `mix` mixes the input, which is what can be
    looked at; deeper layers are mixed on the way, by `step`."""

    options_class = ManifoldMixOptions
    reads_layers = True

    def __init__(self, encoder: nn.Module, options: ManifoldMixOptions | None = None) -> None:
        super().__init__(encoder, options)
        layers = list(self.options.layers)
        try:
            self.names = {layer: feature_layer(encoder, layer) for layer in layers if layer}
        except UserError as error:
            raise UserError(
                f"method.layers={layers} cannot be mixed: {error}; method.layers=[0] mixes the input alone"
            ) from error

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> ManifoldMixDraw:
        pairs, layers = super().draw(count, size, rng, lam), self.options.layers
        return ManifoldMixDraw(
            **vars(pairs), layer=layers[int(torch.randint(len(layers), (), generator=rng))]
        )

    def mix(self, images: Tensor, labels: Tensor, draw: PairDraw) -> Mixed:
        return combined(images, draw)

    def step(self, images: Tensor, labels: Tensor, draw: ManifoldMixDraw) -> StepOutput:
        if draw.layer == 0:
            return super().step(images, labels, draw)
        with replaced_output(self.encoder, self.names[draw.layer], lambda features: combine(features, draw)):
            logits = self.encoder(images)
        return self.classified(logits, labels, draw)
