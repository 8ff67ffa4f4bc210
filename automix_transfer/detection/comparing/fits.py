"""Whether a detector can be trained from a backbone that is still to be exported."""

from __future__ import annotations

import copy
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode

from automix_transfer.config import flatten
from automix_transfer.detection.config import default_config, load_config
from automix_transfer.detection.config_files import merge_file, merge_overrides
from automix_transfer.detection.networks.backbone import BASIC_BLOCKS
from automix_transfer.detection.networks.timm_backbone import encoder_name
from automix_transfer.detection.trainer import prepare
from automix_transfer.detection.weights.exporter import overlay_of, timm_overlay
from automix_transfer.errors import UserError
from automix_transfer.export.source import Source
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.weights import LoadReport


def check_detector(arguments: Namespace, source: str, info: EncoderInfo, whole: bool) -> CfgNode:
    """Do all that `trainer.prepare` does before it trains, in another folder, and return its config, whose
    MODEL.WEIGHTS and OUTPUT_DIR are none.

    Args:
        arguments: of ``automix-transfer detect``, whose MODEL.WEIGHTS may not be there yet.
        source, info: what the weights come from ('': they are random), and its network, which random weights
            have, too.
        whole: read the data, too; otherwise they are not registered for the config that is returned.

    Raises:
        UserError: what is wrong with the config, the network or the data.
    """
    arguments = copy.copy(arguments)
    opts = dict(zip(arguments.opts[::2], arguments.opts[1::2], strict=False))
    gpus = min(arguments.num_gpus, torch.cuda.device_count())
    if gpus < arguments.num_gpus:  # those of a cluster
        opts["SOLVER.AMP.ENABLED"] = "False"
    weights = opts["MODEL.WEIGHTS"]
    with tempfile.TemporaryDirectory(prefix="automix_transfer_") as folder:
        file = Path(folder) / f"{Path(source).stem or 'random'}.pkl"
        opts |= {"MODEL.WEIGHTS": str(file), "OUTPUT_DIR": str(Path(folder) / "run")}
        try:
            settings = _settings(arguments.config_file, _words(opts), source, info)
            file.touch()
            file.with_suffix(".yaml").write_text(yaml.safe_dump(settings))
            cfg, _ = load_config(arguments.config_file, _words(opts), gpus)
            if not weights:
                opts["MODEL.WEIGHTS"] = ""
                random, _ = load_config(arguments.config_file, _words(opts), gpus)
                _refuse_another_network(cfg, random, settings)
            if whole:
                arguments.opts, arguments.num_gpus, arguments.resume = _words(opts), gpus, False
                cfg = prepare(arguments)
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/", "")) from error
    return cfg


def _words(opts: Mapping[str, str]) -> list[str]:
    return [word for pair in opts.items() for word in pair]


def _settings(config_file: str, opts: Sequence[str], source: str, info: EncoderInfo) -> dict[str, Any]:
    """What the weights will ask for, exported as the backbone of the config reads them."""
    cfg = default_config()
    merge_file(cfg, Path(config_file))
    merge_overrides(cfg, opts)
    if encoder_name(cfg.MODEL.BACKBONE.NAME) is not None:
        return timm_overlay(info)
    return overlay_of(Source(info.build(), info, Path(source), "", None, None, LoadReport(0, 0)))


def _refuse_another_network(cfg: CfgNode, random: CfgNode, settings: Mapping[str, Any]) -> None:
    """Random weights, which say nothing, must get the network that those of the others ask for."""
    basic = cfg.MODEL.RESNETS.DEPTH in BASIC_BLOCKS  # which have no groups
    free = ("MODEL.PIXEL", *(("MODEL.RESNETS.NUM_GROUPS", "MODEL.RESNETS.WIDTH_PER") if basic else ()))
    for key in flatten(settings):
        asked, found = (attrgetter(key)(one) for one in (cfg, random))
        if asked != found and not key.startswith(free):
            raise UserError(
                f"{key} is {found} for random weights and {asked} for the others; add it to the recipe"
            )
