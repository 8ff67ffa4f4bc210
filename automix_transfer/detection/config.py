"""A Detectron2 config from file, weights overlay and command line, checked for what goes wrong in silence.

The weights decide how they want to be fed and built: pixel mean and std, channel order, stride placement,
depth, groups and width. An export of ours says so in the YAML beside it (``x.pkl`` -> ``x.yaml``, the
overlay). The overlay is applied by itself; a key that the config file or the command line sets to another
value is an error that names both. Nothing is added to Detectron2's own keys, so the ``config.yaml`` of a run
can be read by plain Detectron2.
"""

from __future__ import annotations

import difflib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from omegaconf import OmegaConf

from automix_transfer.config import flatten, read_yaml
from automix_transfer.detection.config_checks import NORM_KEYS, check_architecture, check_names, check_values
from automix_transfer.detection.linear_scaling import same, scale_schedule, take_saved
from automix_transfer.detection.networks.timm_backbone import check_name, encoder_name
from automix_transfer.detection.weights.encoder_weights import input_settings, is_encoder_file
from automix_transfer.detection.weights.weights_check import implied_settings
from automix_transfer.errors import UserError, first_line
from automix_transfer.models.encoders import IMAGENET_MEAN, IMAGENET_STD

# a child of Detectron2's logger, so that it shares its files and format
logger = logging.getLogger("detectron2.automix_transfer")


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
    explicit = _merge_file(cfg, Path(config_file))
    recipe = cfg.clone()
    typed = _merge_overrides(cfg, overrides)
    explicit |= typed
    check_values(cfg)
    saved = saved_config(cfg.OUTPUT_DIR) if resume else None
    if "MODEL.WEIGHTS" not in explicit and saved is None:
        raise UserError(
            f"{config_file} does not set MODEL.WEIGHTS; add MODEL.WEIGHTS FILE.pkl (of automix-transfer "
            'export --to detectron2), or MODEL.WEIGHTS "" to train from scratch'
        )
    _feed_as_trained(cfg, explicit, resumed=saved is not None)
    world = max(1, num_gpus * num_machines)
    if saved is not None:
        _go_on_with(cfg, saved, explicit, typed, config_file)
    elif scaled := scale_schedule(cfg, recipe, typed, world):
        logger.info(scaled)
    _set_device(cfg, explicit, num_gpus, num_machines)
    if cfg.SOLVER.IMS_PER_BATCH % world:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {world} GPUs cannot share evenly; "
            "give a multiple of their number"
        )
    check_names(cfg)
    check_architecture(cfg, from_scratch=not cfg.MODEL.WEIGHTS and saved is None)
    return cfg, explicit


def _feed_as_trained(cfg: CfgNode, explicit: set[str], resumed: bool) -> None:
    """Set what the weights ask for; a resumed run has it in its own config."""
    weights, backbone = cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.NAME
    if encoder_name(backbone) is not None:
        check_name(backbone)
        if not resumed and is_encoder_file(weights):
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
    # C4 or FPN is the detector's choice; depth and width, checked below, are the weights'
    if "MODEL.BACKBONE.NAME" in explicit:
        wanted.pop("MODEL.BACKBONE.NAME", None)
    apply_settings(cfg, wanted, explicit, overlay)


def apply_settings(cfg: CfgNode, wanted: Mapping[str, Any], explicit: set[str], source: Path) -> None:
    """`apply_overlay` for settings by dotted keys, from the file ``source``."""
    for key, value in wanted.items():
        present = _get(cfg, key, str(source))
        if same(present, value):
            continue
        if key in explicit:
            raise UserError(
                f"config key {key} is {_show(present)}, but the weights {cfg.MODEL.WEIGHTS} were trained "
                f"with {_show(value)} ({source.name}); leave the key out, or take other weights"
            )
        _set(cfg, key, value, str(source))
    if wanted:
        shown = ", ".join(f"{key} {_show(value)}" for key, value in wanted.items())
        logger.info(f"weights overlay {source}: {shown}")


@contextmanager
def model_errors() -> Iterator[None]:
    """Say what Detectron2 raises while it builds a model of settings that do not fit as one `UserError`."""
    try:
        yield
    except (LookupError, AssertionError, ValueError) as error:
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:200])))
        raise UserError(
            f"Detectron2 cannot build the model of this config ({reason}); let the keys IN_FEATURES, "
            "OUT_FEATURES and NAME of MODEL fit each other, or leave them out"
        ) from error


def saved_config(output: str) -> dict[str, Any] | None:
    """The settings by dotted keys of the run in ``output``; None where it has no checkpoint to go on from."""
    folder = Path(output)
    if not (folder / "last_checkpoint").is_file():
        return None
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} holds a checkpoint but no config.yaml, so what it trained is unknown; restore the "
            "file, or choose another OUTPUT_DIR to start afresh"
        )
    return flatten(read_yaml(folder / "config.yaml"))


class _UniqueKeys(CfgNode):
    """Reads config files and their ``_BASE_`` as `CfgNode` does, but a key that stands twice in a mapping is
    an error."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        with super()._open_cfg(filename) as file:
            text = file.read()
        OmegaConf.create(text)  # raises a YAMLError for a key that stands twice
        return io.StringIO(text)


def _merge_file(cfg: CfgNode, file: Path) -> set[str]:
    if not str(file) or not file.is_file():
        raise UserError(f"config file {file} does not exist; give --config-file, e.g. voc_R50_C4_24k")
    try:
        # follows _BASE_; refuses YAML tags that run code
        flat = flatten(_UniqueKeys.load_yaml_with_base(str(file)))
    except FileNotFoundError as error:
        raise UserError(f"config file {file}: its _BASE_ {error.filename} does not exist") from error
    except OSError as error:
        raise UserError(
            f"config file {file}: {error.filename} could not be read ({error.strerror}); give a file that can"
        ) from error
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place, reason = f" at line {mark.line + 1}" if mark else "", getattr(error, "problem", None)
        raise UserError(
            f"config file {file} is not a valid Detectron2 config{place} ({reason or first_line(error)})"
        ) from error
    for key, value in flat.items():
        _set(cfg, key, value, f"config file {file}")
    return set(flat) - {"VERSION"}


def _merge_overrides(cfg: CfgNode, overrides: Sequence[str]) -> set[str]:
    overrides = [part for part in overrides if part != "--"]
    if late := [part for part in overrides if part.startswith("--")]:
        raise UserError(f"option {late[0]} stands behind a KEY VALUE override; put all options before them")
    if len(overrides) % 2:
        raise UserError(
            f"overrides must be pairs of KEY VALUE, e.g. SOLVER.BASE_LR 0.01; '{overrides[-1]}' has no value"
        )
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _set(cfg, key, CfgNode._decode_cfg_value(value), f"override '{key} {value}'")
    return set(overrides[::2])


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    wanted = type(_get(cfg, key, source)).__name__
    try:
        if value is None and _get(default_config(), key, source) is not None:  # yacs takes None for any type
            raise TypeError("None")
        cfg.merge_from_list([key, value])
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source}: {key} must be of type {wanted}, not {type(value).__name__} ({_show(value)})"
        ) from error


def _get(cfg: CfgNode, key: str, source: str) -> Any:
    node: Any = cfg
    for number, part in enumerate(key.split(".")):
        if not isinstance(node, CfgNode) or part not in node:
            known = [str(name) for name in node] if isinstance(node, CfgNode) else []
            close = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
            above = "".join(f"{name}." for name in key.split(".")[:number])
            hint = f"did you mean {above}{close[0]}?" if close else f"known there: {', '.join(known)}"
            raise UserError(f"{source}: unknown config key {key}; {hint}")
        node = node[part]
    return node


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


def _show(value: Any) -> str:
    return (
        str(list(value))
        if isinstance(value, tuple)
        else repr(value)
        if isinstance(value, str)
        else str(value)
    )
