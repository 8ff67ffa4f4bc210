"""Which part of an encoder is its classifier."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from automix_transfer.errors import UserError

NAMES = ("fc", "head", "heads", "classifier", "linear")


def classifier_prefixes(encoder: nn.Module) -> tuple[str, ...]:
    """Key prefixes of an encoder's classifier, e.g. ``("fc.",)``, by timm's settings or the usual names."""
    config = getattr(encoder, "default_cfg", None) or {}
    names = config.get("classifier", ()) if isinstance(config, Mapping) else ()
    names = (names,) if isinstance(names, str) else tuple(names or ())
    return tuple(f"{name}." for name in names or [name for name in NAMES if hasattr(encoder, name)][:1])


def find_classifier(encoder: nn.Module, remedy: str = "choose another encoder") -> nn.Linear:
    """The last linear layer of ``encoder``, which gives the logits; where there is none, a `UserError` with
    ``remedy``."""
    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{type(encoder).__name__} has no linear classifier; {remedy}")
    return linear[-1]
