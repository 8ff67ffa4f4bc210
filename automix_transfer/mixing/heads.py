"""A second classifier beside an encoder's own: the published code classifies mixed images with a head of
their own."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from automix_transfer.models.classifier import find_classifier


def copy_head(encoder: nn.Module) -> nn.Linear:
    """A second classifier that starts as a copy of the encoder's."""
    return copy.deepcopy(find_classifier(encoder, "use method.heads=shared"))


def draw_heads(std: float, *heads: nn.Linear | None) -> None:
    """Draw the weights of each head from N(0, std²), one after the other, and set its bias to 0."""
    for head in heads:
        if head is not None:
            nn.init.normal_(head.weight, std=std)
            if head.bias is not None:
                nn.init.zeros_(head.bias)


def classify_with(encoder: nn.Module, head: nn.Linear | None, images: Tensor) -> Tensor:
    """Logits (N, K) of ``images`` by ``head`` in place of the encoder's own classifier; ``head`` None: by its
    own."""
    if head is None:
        return encoder(images)

    own = find_classifier(encoder)
    name = next(name for name, module in encoder.named_modules() if module is own)
    encoder.set_submodule(name, head)  # not by a hook: a compiled encoder would pass it over
    try:
        return encoder(images)
    finally:
        encoder.set_submodule(name, own)
