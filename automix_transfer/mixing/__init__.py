"""Mixing methods by name: `METHODS` says what is known of each, `build_method` imports and builds one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automix_transfer.mixing.table import METHODS

if TYPE_CHECKING:
    from automix_transfer.mixing.public import (
        PRESETS,
        AutoMix,
        AutoMixOptions,
        CutMix,
        Method,
        MixBlock,
        MixUp,
        StepOutput,
        Vanilla,
        build_method,
        load_options,
    )

__all__ = [
    "METHODS",
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


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from automix_transfer.mixing import public

    return getattr(public, name)
