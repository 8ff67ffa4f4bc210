"""Recipes of a comparison: a network's usual detector, and what a recipe is based on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from automix_transfer.config import flatten, read_layers, read_yaml
from automix_transfer.data.detection.find_splits import voc_folders
from automix_transfer.errors import UserError
from automix_transfer.io import expand_home, sha256_of
from automix_transfer.recipes.find import RECIPES, find_recipe
from automix_transfer.transfer.backbones import Backbone
from automix_transfer.transfer.transfer_settings import DETECTION, Data

#: network -> the recipes of detection that are taken where none is named
USUAL_DETECTORS = {
    "resnet10_32": "embedded_R10_FPN",
    "resnet18": "voc_R18_FPN_24k coco_R18_FPN_2x",
    "resnet34": "voc_R34_FPN_24k coco_R34_FPN_2x",
    "resnet50": "voc_R50_C4_24k coco_R50_C4_2x",
    "resnet101": "voc_R101_C4_24k coco_R101_C4_2x",
    "resnext50_32x4d": "voc_RX50_C4_24k coco_RX50_C4_2x",
    "resnext101_32x4d": "voc_RX101_C4_24k coco_RX101_C4_2x",
    "wide_resnet50_2": "voc_WRN50_C4_24k",
    "deit_small_patch16_224": "voc_DeiTS_FPN_24k coco_DeiTS_FPN_1x",
    "swin_tiny_patch4_window7_224": "voc_SwinT_FPN_24k coco_SwinT_FPN_1x",
    "convnext_tiny": "voc_ConvNeXtT_FPN_24k coco_ConvNeXtT_FPN_1x",
}

BACKBONE, OPTIMIZER = "MODEL.BACKBONE.NAME", "MODEL.TIMM.OPTIMIZER"
#: before one of timm's networks there, which is started from a checkpoint; others are from an export
PYRAMID = "timm_fpn/"


def usual_detector(backbones: Iterable[Backbone], data: Iterable[Data]) -> str:
    """The recipe of the backbones' network for the data, where all of a kind have one.

    Raises:
        UserError: several networks or kinds of data, or a network without a recipe.
    """
    networks = sorted({one.info.name.removeprefix("torchvision/").split(".")[0] for one in backbones})
    kinds = {"voc" if voc_folders(one.root) else "coco" for one in data if one.layout == DETECTION}
    names = USUAL_DETECTORS.get(networks[0], "").split() if len(networks) == len(kinds) == 1 else []
    for name in names:
        if name.startswith((*kinds, "embedded")):
            return name
    raise UserError(
        f"task detection needs --detector RECIPE, one for all backbones ({', '.join(networks)}), e.g. "
        "voc_R50_C4_24k; for several of timm's networks voc_ConvNeXtT_FPN_24k, which takes them all"
    )


def settings_of(recipe: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What a detector's recipe and its overrides ``KEY VALUE KEY VALUE ...`` say, by dotted keys."""
    said: dict[str, Any] = {}
    for file in files_of(recipe):
        said = flatten(read_yaml(file)) | said
    return said | dict(zip(overrides[::2], overrides[1::2], strict=False))


def files_of(recipe: Path) -> list[Path]:
    """A detection config and those that it is based on, each before what it overrides."""
    found: list[Path] = []
    left = [recipe]
    while left:
        file = left.pop()
        if file in found:  # one that is based on itself is refused by its command
            continue
        found.append(file)
        base = read_yaml(file).get("_BASE_")
        names = [name for name in (base if isinstance(base, list) else [base]) if isinstance(name, str)]
        left += [find_recipe(expand_home(name), "detection", beside=file.parent) for name in names]
    return found


def recipe_digest(program: str, name: str) -> str:
    """SHA-256 of the recipe that a command is given ('': none) and of those that it is based on, but for the
    library's own."""
    if not name:
        return ""
    files = (
        files_of(find_recipe(name, "detection"))
        if program == "detect"
        else [file for file, _ in read_layers(find_recipe(name, "finegrained", "pretrain"))]
    )
    return " ".join(sha256_of(file) for file in files if not file.resolve().is_relative_to(RECIPES))
