"""AutoMix as the table of methods builds it: the class that the options ask for."""

from __future__ import annotations

from typing import Any

from torch import nn

from automix_transfer.mixing.automix.fast import FastAutoMix
from automix_transfer.mixing.automix.joint import JointAutoMix
from automix_transfer.mixing.automix.options import AutoMixOptions
from automix_transfer.mixing.automix.step import AutoMix


def automix(encoder: nn.Module, options: AutoMixOptions, **parts: Any) -> AutoMix:
    """`AutoMix`, or `FastAutoMix` or `JointAutoMix` where an option is theirs."""
    kinds: dict[str, type[AutoMix]] = {kind.__name__: kind for kind in (AutoMix, FastAutoMix, JointAutoMix)}
    return kinds[options.asks_for()[0]](encoder, options=options, **parts)
