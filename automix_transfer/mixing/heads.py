"""A second classifier beside an encoder's own: the published code classifies mixed images with a head of
their own."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from automix_transfer.errors import UserError


def find_classifier(encoder: nn.Module) -> nn.Linear:
    """The last linear layer of ``encoder``, which gives the logits."""
    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{type(encoder).__name__} has no linear classifier; use method.heads=shared")
    return linear[-1]


def copy_head(encoder: nn.Module) -> nn.Linear:
    """A second classifier that starts as a copy of the encoder's."""
    return copy.deepcopy(find_classifier(encoder))


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
