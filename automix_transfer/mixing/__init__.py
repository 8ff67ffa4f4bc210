"""Mixing methods by name. A new method is one new file and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.mixing.automix import AutoMix
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.cutmix import CutMix, CutMixOptions
from automix_transfer.mixing.mix_block import MixBlock
from automix_transfer.mixing.mixup import MixUp, MixUpOptions
from automix_transfer.mixing.options import PRESETS, AutoMixOptions
from automix_transfer.mixing.vanilla import Vanilla, VanillaOptions

__all__ = ["METHODS", "AutoMix", "AutoMixOptions", "CutMix", "Method", "MixBlock", "MixUp", "StepOutput", "Vanilla", "build_method",
           "load_options"]

#: name -> (the class of its options, the method)
METHODS: dict[str, tuple[type, Callable[..., Method]]] = {
    "vanilla": (VanillaOptions, Vanilla),
    "mixup": (MixUpOptions, MixUp),
    "cutmix": (CutMixOptions, CutMix),
    "automix": (AutoMixOptions, AutoMix),
}


def load_options(name: str, values: Mapping[str, Any] | None = None) -> Any:
    """The options of method ``name`` from plain values, checked; ``preset`` (AutoMix) is read first, so that values win over it.

    Raises:
        UserError: an unknown method, option, preset or a value of the wrong type.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(str(name), METHODS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(METHODS)}"
        raise UserError(f"method.name '{name}' is unknown; {hint}")
    schema, values = METHODS[name][0], dict(values or {})
    files = []
    if schema is AutoMixOptions:
        preset = str(values.get("preset", AutoMixOptions.preset))
        files = [PRESETS / f"{preset}.yaml"]
        if "/" in preset or not files[0].is_file():
            known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
            raise UserError(f"method.preset '{preset}' is unknown; choose one of {known}")
    return load_config(schema, files, values=values, section="method.")


def build_method(name: str, encoder: nn.Module, options: Any = None) -> Method:
    """Method ``name`` around ``encoder``; ``options`` is what `load_options` returns, or a mapping of plain values."""
    if options is None or isinstance(options, Mapping):
        options = load_options(name, options)
    return METHODS[name][1](encoder, options)
