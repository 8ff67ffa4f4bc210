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


def find_classifiers(encoder: nn.Module, remedy: str = "choose another encoder") -> list[nn.Linear]:
    """The linear layers of ``encoder`` that give the logits: the last one, or all that stand beside each
    other, as in a distilled DeiT and in CrossViT; where there is none, a `UserError` with ``remedy``."""
    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{type(encoder).__name__} has no linear classifier; {remedy}")
    modules, beside = dict(encoder.named_modules()), list[nn.Module | None]()
    for prefix in classifier_prefixes(encoder):
        head = modules.get(prefix.removesuffix("."))
        beside += head if isinstance(head, nn.ModuleList) else [head]
    heads = [part for part in beside if isinstance(part, nn.Linear)]
    same = {part.out_features for part in heads} == {linear[-1].out_features}
    return heads if len(heads) > 1 and same else linear[-1:]


def find_classifier(encoder: nn.Module, remedy: str = "choose another encoder") -> nn.Linear:
    """The linear layer of ``encoder`` that gives the logits; where there is none, or several, a `UserError`
    with ``remedy``."""
    found = find_classifiers(encoder, remedy)
    if len(found) > 1:
        raise UserError(f"{type(encoder).__name__} has {len(found)} linear classifiers; {remedy}")
    return found[0]
