"""What `automix_transfer.mixing` offers besides the table: building methods, and classes to extend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from automix_transfer.config import load_config
from automix_transfer.errors import UserError, did_you_mean
from automix_transfer.imagenet import IMAGENET_MEAN, IMAGENET_STD
from automix_transfer.mixing.automix.mix_block import MixBlock
from automix_transfer.mixing.automix.options import PRESETS, AutoMixOptions, read_options
from automix_transfer.mixing.automix.step import AutoMix
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.batch_transform import BatchTransform, transform_parts
from automix_transfer.mixing.methods.cutmix import CutMix
from automix_transfer.mixing.methods.mixup import MixUp
from automix_transfer.mixing.methods.vanilla import Vanilla
from automix_transfer.mixing.table import METHODS, Entry
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.eval_mode import eval_mode

__all__ = [
    "PRESETS",
    "AutoMix",
    "AutoMixOptions",
    "CutMix",
    "Method",
    "MixBlock",
    "MixUp",
    "StepOutput",
    "Vanilla",
    "build_method",
    "load_options",
    "transform",
]


def entry(name: str) -> Entry:
    """What the table knows of method ``name``; a `UserError` where it is not there."""
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS, f"choose one of {', '.join(METHODS)}", quote="'")
        raise UserError(f"method.name '{name}' is unknown; {hint}")
    return METHODS[name]


def load_options(name: str, values: Mapping[str, Any] | None = None) -> Any:
    """The options of method ``name`` from plain values; ``preset`` (AutoMix) is read first, so that values
    win over it.

    Raises:
        UserError: an unknown method, option, preset or a value of the wrong type.
    """
    schema = entry(name).options_class()
    if schema is AutoMixOptions:
        return read_options(values or {})
    return load_config(schema, values=values, section="method")


def build_method(
    name: str, encoder: nn.Module, options: Any = None, info: EncoderInfo | None = None, **parts: Any
) -> Method:
    """Method ``name`` around ``encoder``.

    Args:
        options: what `load_options` returns, or a mapping of plain values.
        info: what the images will be, so that a method that cannot mix them is refused here and not in its
            first step.
        parts: what the method's class takes besides, e.g. a network as ``teacher``.
    """
    if options is None or isinstance(options, Mapping):
        options = load_options(name, options)
    method = METHODS[name].load()(encoder, options, **parts)
    if info is not None:
        method.prepare(info)
    return method


def transform(
    name: str,
    num_classes: int,
    *,
    alpha: float | None = None,
    encoder: nn.Module | None = None,
    generator: torch.Generator | None = None,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    **options: Any,
) -> BatchTransform:
    """Method ``name`` as a function of a batch: ``images, targets = transform(...)(images, labels)``.

    Args:
        num_classes: K of the targets (N, K).
        alpha: of λ ~ Beta(α, α); None: the method's default.
        encoder: the network that puzzlemix and comixup ask for the gradient at the images (K outputs, its
            weights as they are at each call), and attentivemix for attention (a trained network, the
            teacher). It runs in eval mode, gets no gradient, and is on the device of the images.
        generator: a CPU generator of all draws; None: torch's own.
        mean, std: normalisation of the images, for saliencymix, puzzlemix and attentivemix.
        options: of the method, by name. ``smoothing`` smooths the targets, and ``probability`` is that of
            mixing a batch.

    Raises:
        UserError: a method that is no function of a batch, with the reason; an unknown option or one of the
            loss; an encoder that is missing or that the method does not ask.
    """
    about, network = entry(name), nn.Identity() if encoder is None else encoder
    values = options if alpha is None else {**options, "alpha": alpha}
    # no size yet: the draw looks at each batch's own
    info = EncoderInfo(type(network).__name__, num_classes, image_size=0, mean=mean, std=std)
    parts = transform_parts(name, about, encoder, info, values, generator)
    with eval_mode(network):
        method = build_method(name, network, values, **parts)
    return BatchTransform(name, method, network, num_classes, generator)
