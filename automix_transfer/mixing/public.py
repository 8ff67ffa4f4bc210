"""What `automix_transfer.mixing` offers besides the table: building methods, and classes to extend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from automix_transfer.config import load_config
from automix_transfer.errors import UserError, did_you_mean
from automix_transfer.mixing.automix.mix_block import MixBlock
from automix_transfer.mixing.automix.options import PRESETS, AutoMixOptions, read_options
from automix_transfer.mixing.automix.step import AutoMix
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.methods.cutmix import CutMix
from automix_transfer.mixing.methods.mixup import MixUp
from automix_transfer.mixing.methods.vanilla import Vanilla
from automix_transfer.mixing.table import METHODS
from automix_transfer.models.encoders import EncoderInfo

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
]


def load_options(name: str, values: Mapping[str, Any] | None = None) -> Any:
    """The options of method ``name`` from plain values; ``preset`` (AutoMix) is read first, so that values
    win over it.

    Raises:
        UserError: an unknown method, option, preset or a value of the wrong type.
    """
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS, f"choose one of {', '.join(METHODS)}", quote="'")
        raise UserError(f"method.name '{name}' is unknown; {hint}")
    schema = METHODS[name].options_class()
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
