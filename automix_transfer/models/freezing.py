"""Parts of an encoder that stay as they are while the rest is trained."""

from __future__ import annotations

from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.models.classifier import classifier_prefixes
from automix_transfer.models.depth import layers_by_depth

MARK = "frozen_part"  #: set on modules that stay in eval mode, and copied with them


def freeze(encoder: nn.Module, parts: int, head_only: bool = False) -> None:
    """Take the first ``parts`` of ``encoder`` out of training: the stem, then stages of a ResNet or blocks of
    a transformer (timm's coarse groups); with ``head_only`` all but the classifier.

    Their parameters ask for no gradient, and `keep_frozen` holds their BatchNorm statistics and dropout.

    Raises:
        UserError: the encoder has not so many parts before its last one, or its parts are not known.
    """
    names = [name for name, _ in encoder.named_parameters()]
    if head_only:
        heads = classifier_prefixes(encoder)
        fixed = {name for name in names if not name.startswith(heads)}
        if not heads or len(fixed) == len(names):
            raise UserError("encoder.head_only=true needs an encoder with a classifier; choose another")
    else:
        layers = layers_by_depth(encoder, f"encoder.freeze={parts}", coarse=True)
        last = max(layers.values())
        if parts > last:
            raise UserError(
                f"encoder.freeze={parts} leaves nothing of {type(encoder).__name__} to train, which has "
                f"{last + 1} parts with its classifier's; give at most {last}, or encoder.head_only=true"
            )
        fixed = {name for name in names if layers[name] < parts}
    for name, parameter in encoder.named_parameters():
        if name in fixed:
            parameter.requires_grad_(False)
    for module in encoder.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            setattr(module, MARK, True)


def keep_frozen(network: nn.Module) -> None:
    """Put what `freeze` has fixed, in ``network`` or copies of it, back into eval mode after ``train()``."""
    for module in network.modules():
        if getattr(module, MARK, False):
            module.eval()
