"""A Detectron2 config from file, weights overlay and command line, checked for what goes wrong in silence.

The weights decide how they want to be fed and built: pixel mean and std, channel order, stride placement,
depth, groups and width. An export of ours says so in the YAML beside it (``x.pkl`` -> ``x.yaml``, the
overlay). The overlay is applied by itself; a key that the config file or the command line sets to another
value is an error that names both. The keys of `OURS`, and ``MODEL.TIMM``, are added to Detectron2's own, and
written only where they are set. So plain Detectron2 reads the ``config.yaml`` of a run; that of one on timm's
networks, once this package is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg

from automix_transfer.config import flatten, read_yaml
from automix_transfer.detection.config_checks import (
    NORM_KEYS,
    check_architecture,
    check_danger,
    check_names,
    check_values,
)
from automix_transfer.detection.config_files import logger, merge_file, merge_overrides
from automix_transfer.detection.linear_scaling import scale_schedule, take_saved
from automix_transfer.detection.networks.timm_backbone import TIMM, check_name, encoder_name
from automix_transfer.detection.resuming.began import has_checkpoint
from automix_transfer.detection.weights.encoder_weights import input_settings, is_encoder_file
from automix_transfer.detection.weights.overlay import apply_overlay, apply_settings, find_overlay
from automix_transfer.detection.weights.weights_check import implied_settings
from automix_transfer.errors import UserError
from automix_transfer.models.encoders import IMAGENET_MEAN, IMAGENET_STD

#: Keys that are added to Detectron2's, with the value at which they do nothing.
OURS = {
    ("DATALOADER", "ON_BAD_IMAGE"): "stop",
    ("DATASETS", "HOLD_OUT"): 0,
    ("SOLVER", "PATIENCE"): 0,
    ("TEST", "LOSS"): False,
}


def default_config() -> CfgNode:
    """Detectron2's defaults with the pixels and strides of torchvision's and timm's networks, and a seed.

    Its own are those of its MSRA weights (BGR, std 1, the stride in the 1×1 convolution), with which other
    weights are about 15 AP worse.
    """
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [round(255 * value, 3) for value in IMAGENET_MEAN]
    cfg.MODEL.PIXEL_STD = [round(255 * value, 3) for value in IMAGENET_STD]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.WEIGHTS = ""
    cfg.SEED = 0
    for (section, name), value in OURS.items():
        cfg[section][name] = value
    return cfg


def load_config(
    config_file: str | Path,
    overrides: Sequence[str] = (),
    num_gpus: int = 1,
    num_machines: int = 1,
    resume: bool = False,
) -> tuple[CfgNode, set[str]]:
    """The config of a run, not frozen, and the keys that the file or the command line set.

    Args:
        overrides: Detectron2's ``KEY VALUE KEY VALUE ...``.
        num_gpus: per machine; 0 trains on the CPU.
        resume: go on with the run in OUTPUT_DIR, whose settings hold where nothing is said; where it has no
            checkpoint, start.

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, a value out of its range, a
            contradiction between config and weights, or a combination that would train something else than it
            says.
    """
    cfg = default_config()
    explicit = merge_file(cfg, Path(config_file))
    recipe = cfg.clone()
    typed = merge_overrides(cfg, overrides)
    explicit |= typed
    check_values(cfg)
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = map(os.path.expanduser, (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS))
    saved = saved_config(cfg.OUTPUT_DIR) if resume else None
    check_danger(cfg, resumed=saved is not None)
    if "MODEL.WEIGHTS" not in explicit and saved is None:
        raise UserError(
            f"{config_file} does not set MODEL.WEIGHTS; add MODEL.WEIGHTS FILE.pkl (of automix-transfer "
            'export --to detectron2), or MODEL.WEIGHTS "" to train from scratch'
        )
    _feed_as_trained(cfg, explicit, resumed=saved is not None)
    world = max(1, num_gpus * num_machines)
    if saved is not None:
        _go_on_with(cfg, saved, explicit, typed, config_file)
        check_danger(cfg, resumed=True)
        check_values(cfg)
    elif scaled := scale_schedule(cfg, recipe, typed, world):
        logger.info(scaled)
    _set_device(cfg, explicit, num_gpus, num_machines)
    if cfg.SOLVER.IMS_PER_BATCH % world:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {world} GPUs cannot share evenly; "
            "give a multiple of their number"
        )
    check_names(cfg)
    check_architecture(cfg, from_scratch=not (cfg.MODEL.WEIGHTS or saved))
    return cfg, explicit


def _feed_as_trained(cfg: CfgNode, explicit: set[str], resumed: bool) -> None:
    """Set what the weights ask for; a resumed run has it in its own config."""
    weights, backbone = cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.NAME
    if encoder_name(backbone) is not None:
        check_name(backbone)
    if encoder_name(backbone) is not None and is_encoder_file(weights):
        if not resumed:
            apply_settings(cfg, input_settings(weights, backbone), explicit, Path(weights))
    elif overlay := find_overlay(weights):
        apply_overlay(cfg, overlay, explicit)
    elif not resumed:
        apply_settings(cfg, implied_settings(weights), explicit, Path(weights))


def _go_on_with(
    cfg: CfgNode, saved: Mapping[str, Any], explicit: set[str], typed: set[str], config_file: str | Path
) -> None:
    """Take the settings of the run to be resumed, and say which the config file has otherwise."""
    of_data = ("MODEL.ROI_HEADS.NUM_CLASSES", "DATASETS.TRAIN", "DATASETS.TEST")
    kept = [key for key in take_saved(cfg, saved, typed) if key in explicit and key not in of_data]
    # scaled when it was begun; the batch stays, however many GPUs share it now
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 0
    if kept:
        logger.info(f"resumed: {', '.join(kept)} as in {cfg.OUTPUT_DIR}/config.yaml, not as in {config_file}")


def plain(cfg: CfgNode) -> str:
    """A config as YAML that plain Detectron2 reads, unless it has a value of ours."""
    return stated(cfg).dump()


def stated(cfg: CfgNode) -> CfgNode:
    """A config without keys of ours that are not set."""
    written = cfg.clone()
    written.defrost()
    for (section, name), value in OURS.items():
        if written[section][name] == value:
            del written[section][name]
    if written.MODEL.TIMM == TIMM:
        del written.MODEL["TIMM"]
    return written


def saved_config(output: str) -> dict[str, Any] | None:
    """The settings by dotted keys of the run in ``output``; None where it has no checkpoint to go on from."""
    folder = Path(output)
    if not has_checkpoint(folder):
        return None
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} holds a checkpoint but no config.yaml, so what it trained is unknown; restore the "
            "file, or choose another OUTPUT_DIR to start afresh"
        )
    return {**flatten({"MODEL": {"TIMM": TIMM}}), **flatten(read_yaml(folder / "config.yaml"))}


def _set_device(cfg: CfgNode, explicit: set[str], num_gpus: int, num_machines: int) -> None:
    if num_gpus < 0 or num_machines < 1:
        raise UserError(
            f"--num-gpus {num_gpus} and --num-machines {num_machines} make no training; give --num-gpus 0 "
            "(the CPU) or more, and --num-machines 1 or more"
        )
    if num_gpus == 0 and num_machines > 1:
        raise UserError(f"--num-machines {num_machines} needs GPUs, but --num-gpus is 0")
    found = torch.cuda.device_count()
    if num_gpus == 0:
        if "MODEL.DEVICE" in explicit and cfg.MODEL.DEVICE != "cpu":
            raise UserError(
                f"--num-gpus 0 trains on the CPU, but MODEL.DEVICE is {cfg.MODEL.DEVICE}; leave one out"
            )
        cfg.MODEL.DEVICE = "cpu"
        if cfg.SOLVER.AMP.ENABLED:
            raise UserError("SOLVER.AMP.ENABLED True needs a GPU; leave it out with --num-gpus 0")
    elif cfg.MODEL.DEVICE == "cpu" and num_gpus * num_machines > 1:
        raise UserError("MODEL.DEVICE cpu is one process, as Detectron2 has it; give --num-gpus 0")
    elif num_gpus > found and cfg.MODEL.DEVICE != "cpu":
        raise UserError(
            f"--num-gpus {num_gpus}, but this machine has {found}; give --num-gpus {found}"
            + ("" if found else " to train on the CPU")
        )
    if num_gpus * num_machines <= 1:
        for key in NORM_KEYS:
            # with one process the same arithmetic, and SyncBN does not run on the CPU
            if attrgetter(key)(cfg) == "SyncBN":
                cfg.merge_from_list([key, "BN"])
                logger.info(f"one process: {key} SyncBN is BN")
