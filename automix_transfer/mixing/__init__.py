"""Mixing methods by name. A new method is one new file and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.choose import automix
from automix_transfer.mixing.automix.mix_block import MixBlock
from automix_transfer.mixing.automix.options import PRESETS, AutoMixOptions, is_removed
from automix_transfer.mixing.automix.step import AutoMix
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.methods.alignmix import AlignMix, AlignMixOptions
from automix_transfer.mixing.methods.attentivemix import AttentiveMix, AttentiveMixOptions
from automix_transfer.mixing.methods.augmix import AugMix, AugMixOptions
from automix_transfer.mixing.methods.comixup import CoMixup, CoMixupOptions
from automix_transfer.mixing.methods.cutmix import CutMix, CutMixOptions
from automix_transfer.mixing.methods.fmix import FMix, FMixOptions
from automix_transfer.mixing.methods.manifoldmix import ManifoldMix, ManifoldMixOptions
from automix_transfer.mixing.methods.mixup import MixUp, MixUpOptions
from automix_transfer.mixing.methods.mixup_cutmix import MixUpCutMix, MixUpCutMixOptions
from automix_transfer.mixing.methods.puzzlemix import PuzzleMix, PuzzleMixOptions
from automix_transfer.mixing.methods.resizemix import ResizeMix, ResizeMixOptions
from automix_transfer.mixing.methods.saliencymix import SaliencyMix, SaliencyMixOptions
from automix_transfer.mixing.methods.supermix import SuperMix, SuperMixOptions
from automix_transfer.mixing.methods.transmix import TransMix, TransMixOptions
from automix_transfer.mixing.methods.vanilla import Vanilla, VanillaOptions
from automix_transfer.models.encoders import EncoderInfo

__all__ = [
    "METHODS",
    "NEVER_READ",
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

#: name -> (the class of its options, the method)
METHODS: dict[str, tuple[type, Callable[..., Method]]] = {
    "vanilla": (VanillaOptions, Vanilla),
    "mixup": (MixUpOptions, MixUp),
    "cutmix": (CutMixOptions, CutMix),
    "mixup_cutmix": (MixUpCutMixOptions, MixUpCutMix),
    "manifoldmix": (ManifoldMixOptions, ManifoldMix),
    "attentivemix": (AttentiveMixOptions, AttentiveMix),
    "saliencymix": (SaliencyMixOptions, SaliencyMix),
    "fmix": (FMixOptions, FMix),
    "resizemix": (ResizeMixOptions, ResizeMix),
    "puzzlemix": (PuzzleMixOptions, PuzzleMix),
    "comixup": (CoMixupOptions, CoMixup),
    "supermix": (SuperMixOptions, SuperMix),
    "augmix": (AugMixOptions, AugMix),
    "alignmix": (AlignMixOptions, AlignMix),
    "transmix": (TransMixOptions, TransMix),
    "automix": (AutoMixOptions, automix),
}

#: (method, option) that was accepted once and never read: new recipes are refused, the files of old runs name
#: it still
NEVER_READ = {("mixup_cutmix", "alpha"), ("transmix", "alpha")}


def load_options(name: str, values: Mapping[str, Any] | None = None) -> Any:
    """The options of method ``name`` from plain values, checked; ``preset`` (AutoMix) is read first, so that
    values win over it.

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
        values = {key: value for key, value in values.items() if not is_removed(key, value)}
        preset = str(values.get("preset", AutoMixOptions.preset))
        files = [PRESETS / f"{preset}.yaml"]
        if "/" in preset or not files[0].is_file():
            known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
            raise UserError(f"method.preset '{preset}' is unknown; choose one of {known}")
    return load_config(schema, files, values=values, section="method")


def build_method(
    name: str, encoder: nn.Module, options: Any = None, info: EncoderInfo | None = None
) -> Method:
    """Method ``name`` around ``encoder``; ``options`` is what `load_options` returns, or a mapping of plain
    values.

    ``info`` says what the images will be, so that a method that cannot mix them is refused here and not in
    its first step.
    """
    if options is None or isinstance(options, Mapping):
        options = load_options(name, options)
    method = METHODS[name][1](encoder, options)
    if info is not None:
        method.prepare(info)
    return method
