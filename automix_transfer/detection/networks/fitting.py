"""Which recipe fits a backbone of timm, for messages."""

from __future__ import annotations

from automix_transfer.config import read_yaml
from automix_transfer.detection.networks.timm_backbone import PYRAMID, encoder_name, is_transformer
from automix_transfer.recipes.find import RECIPES


def recipes_for(backbone: str) -> str:
    """The recipes whose ``MODEL.BACKBONE.NAME`` it is, or one for its kind and what to set in it."""
    name = f"{PYRAMID}{encoder_name(backbone) or ''}"
    files = sorted((RECIPES / "detection").glob("[a-z]*.yaml"))
    settings = {file.stem: read_yaml(file).get("MODEL", {}).get("BACKBONE", {}) for file in files}
    own = [recipe for recipe, held in settings.items() if held.get("NAME") == name]
    other = "voc_DeiTS_FPN_24k" if is_transformer(name.removeprefix(PYRAMID)) else "voc_ConvNeXtT_FPN_24k"
    return " or ".join(own) or f"{other} with MODEL.BACKBONE.NAME {name}"
