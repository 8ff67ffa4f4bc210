"""What a detector of a config holds in memory at the least, known before anything of it is allocated."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from automix_transfer.detection.config_checks import model_errors
from automix_transfer.detection.config_files import show
from automix_transfer.device import device_memory
from automix_transfer.errors import UserError

MOST_PARAMETERS = 2 * 10**9
MOST_ANCHORS = 256  # at one place
#: of one pixel: the image's own, and those of a stem of 64 channels at a quarter of the resolution
PIXEL_BYTES = 3 * 4 + 64 * 4 // 4
STRIDE = 16  # of features with anchors; FPN has finer ones as well


def check_size(cfg: CfgNode, training: bool = False, processes: int = 1) -> int:
    """Refuse a network of more than `MOST_PARAMETERS`, and one whose parameters, images or regions alone are
    more than the memory of ``MODEL.DEVICE``; returns how many parameters it has.

    Args:
        training: gradients, momentum and a whole batch are held; otherwise one image.
        processes: how many share the batch.

    Raises:
        UserError: it names the keys.
    """
    anchors = _anchors(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    device, cfg.MODEL.DEVICE = torch.device(cfg.MODEL.DEVICE), "meta"
    with torch.device("meta"), model_errors():
        model = build_model(cfg)
    sizes = {name: part.numel() for name, part in model.named_parameters()}
    if empty := [name for name, size in sizes.items() if not size]:
        raise UserError(
            f"{empty[0]} of this config's network has no values; give channels of 1 or more in MODEL"
        )
    count = sum(sizes.values())
    if count > MOST_PARAMETERS:
        raise UserError(
            f"the network of this config has {count:,} parameters, more than {MOST_PARAMETERS:,}; give "
            "smaller numbers of channels, classes or layers in MODEL"
        )
    needed = {
        ("MODEL.RESNETS", "MODEL.FPN"): count * 4 * (3 if training else 1),
        **_of_images(cfg, model, anchors, training, processes),
    }
    total = device_memory(device)
    if total is not None and sum(needed.values()) > total:
        keys = max(needed, key=lambda keys: needed[keys])
        values = ", ".join(f"{key} {show(_value(cfg, key))}" for key in keys)
        raise UserError(
            f"this config needs more than {sum(needed.values()) / 1e9:,.0f} GB of memory and {device} has "
            f"{total / 1e9:,.0f}; lower what needs most: {values}"
        )
    return count


def _of_images(
    cfg: CfgNode, model: nn.Module, anchors: int, training: bool, processes: int
) -> dict[tuple[str, ...], int]:
    """Bytes of the images and of the regions that are cut out of them, with the keys that decide them."""
    split = "TRAIN" if training else "TEST"
    images = max(1, cfg.SOLVER.IMS_PER_BATCH // processes) if training else 1
    shortest, longest = cfg.INPUT[f"MIN_SIZE_{split}"], cfg.INPUT[f"MAX_SIZE_{split}"]
    side = min(max(shortest, default=0) if training else shortest, longest)
    batch = ("SOLVER.IMS_PER_BATCH",) if training else ()
    found = {(*batch, f"INPUT.MIN_SIZE_{split}", f"INPUT.MAX_SIZE_{split}"): images * side**2 * PIXEL_BYTES}
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        heads, pooled = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        proposals = cfg.MODEL.RPN[f"POST_NMS_TOPK_{split}"]
        regions = min(heads.BATCH_SIZE_PER_IMAGE, proposals) if training else proposals
        regions = min(regions, (side // STRIDE) ** 2 * anchors)
        backbone: Any = model.backbone
        channels = max(shape.channels for shape in backbone.output_shape().values())
        counts = "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE" if training else f"MODEL.RPN.POST_NMS_TOPK_{split}"
        keys = (*batch, counts, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION")
        found[keys] = images * regions * pooled**2 * channels * 4
    return found


def _anchors(cfg: CfgNode) -> int:
    """How many anchors there are at each place of a feature."""
    keys = ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
    sizes, ratios = (
        max((len(level) if isinstance(level, list | tuple) else len(values) for level in values), default=0)
        for values in (_value(cfg, key) for key in keys)
    )
    if not 0 < sizes * ratios <= MOST_ANCHORS:
        raise UserError(
            f"{' and '.join(keys)} make {sizes * ratios:,} anchors at each place; make 1 to {MOST_ANCHORS}"
        )
    return sizes * ratios


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
