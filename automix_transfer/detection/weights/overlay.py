"""The YAML beside a weights file of our export: how its weights want to be fed and built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from automix_transfer.config import flatten, read_yaml
from automix_transfer.detection.config_files import get_value, logger, same, set_value, show
from automix_transfer.detection.networks.fitting import recipes_for
from automix_transfer.detection.networks.timm_backbone import encoder_name
from automix_transfer.errors import UserError


def _numbers(value: Any, least: float) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(item) in (int, float) and least < item < math.inf for item in value)
    )


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 10_000


#: All that an export writes into an overlay, and what its values may be.
OVERLAY_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "VERSION": (_count, "a number"),
    "MODEL.PIXEL_MEAN": (lambda value: _numbers(value, -math.inf), "three numbers"),
    "MODEL.PIXEL_STD": (lambda value: _numbers(value, 0), "three positive numbers"),
    "MODEL.BACKBONE.NAME": (lambda value: isinstance(value, str), "a name"),
    "MODEL.TIMM.IMAGE_SIZE": (_count, "a number from 1 to 10,000"),
    **{
        f"MODEL.RESNETS.{key}": (_count, "a number from 1 to 10,000")
        for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "STEM_OUT_CHANNELS", "RES2_OUT_CHANNELS")
    },
    "MODEL.RESNETS.STRIDE_IN_1X1": (lambda value: isinstance(value, bool), "true or false"),
    "INPUT.FORMAT": (lambda value: value in ("RGB", "BGR"), "RGB or BGR"),
}


def find_overlay(weights: str) -> Path | None:
    """The YAML beside a weights file of our export; None where there is none."""
    if not weights.endswith(".pkl"):
        return None
    overlay = Path(weights).with_suffix(".yaml")
    return overlay if overlay.is_file() else None


def apply_overlay(cfg: CfgNode, overlay: Path, explicit: set[str]) -> None:
    """Set what the weights ask for; a key of ``explicit`` with another value is an error with both values."""
    wanted = flatten(read_yaml(overlay))
    wanted.pop("MODEL.WEIGHTS", None)  # the file may have been renamed since; the command line names it
    for key, value in wanted.items():
        fits, kind = OVERLAY_KEYS.get(key, (None, ""))
        if fits is None:
            raise UserError(
                f"weights overlay {overlay}: {key} is no key of an export ({', '.join(OVERLAY_KEYS)}); "
                "remove it, and give it in --config-file or on the command line"
            )
        if not fits(value):
            raise UserError(f"weights overlay {overlay}: {key} is {show(value)}; it must be {kind}")
    if "MODEL.BACKBONE.NAME" in explicit:
        # C4 or FPN is the detector's choice; depth and width, checked below, are the weights'
        _refuse_other_network(cfg, str(wanted.pop("MODEL.BACKBONE.NAME", "")), overlay)
    apply_settings(cfg, wanted, explicit, overlay)


def _refuse_other_network(cfg: CfgNode, held: str, overlay: Path) -> None:
    """An encoder of timm fits a backbone of its own name only, and a ResNet in Detectron2's names none of
    timm's."""
    asked, weights = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.WEIGHTS
    if (name := encoder_name(held)) != (wanted := encoder_name(asked)) and name is not None:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {asked}, but {weights} holds encoder '{name}' ({overlay.name}); take "
            f"recipe {recipes_for(held)}, or other weights"
        )
    if name is None and wanted is not None:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {asked}, but {weights} holds a ResNet in Detectron2's names "
            f"({overlay.name}); take a recipe of its depth, e.g. voc_R50_FPN_24k, or weights of '{wanted}'"
        )


def apply_settings(cfg: CfgNode, wanted: Mapping[str, Any], explicit: set[str], source: Path) -> None:
    """`apply_overlay` for settings by dotted keys, from the file ``source``."""
    for key, value in wanted.items():
        present = get_value(cfg, key, str(source))
        if same(present, value):
            continue
        if key in explicit:
            raise UserError(
                f"config key {key} is {show(present)}, but the weights {cfg.MODEL.WEIGHTS} were trained "
                f"with {show(value)} ({source.name}); leave the key out, or take other weights"
            )
        set_value(cfg, key, value, str(source))
    if wanted:
        shown = ", ".join(f"{key} {show(value)}" for key, value in wanted.items())
        logger.info(f"weights overlay {source}: {shown}")
