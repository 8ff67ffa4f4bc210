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
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY
from omegaconf import OmegaConf

from automix_transfer.config import flatten, read_yaml
from automix_transfer.detection.linear_scaling import same, scale_schedule, take_saved
from automix_transfer.detection.loader import SAMPLERS
from automix_transfer.detection.networks.backbone import BASIC_BLOCKS
from automix_transfer.detection.networks.timm_backbone import check_name, encoder_name
from automix_transfer.detection.weights.encoder_weights import input_settings, is_encoder_file
from automix_transfer.detection.weights.weights_check import implied_settings
from automix_transfer.errors import UserError, first_line
from automix_transfer.models.encoders import IMAGENET_MEAN, IMAGENET_STD

# a child of Detectron2's logger, so that it shares its files and format
logger = logging.getLogger("detectron2.automix_transfer")

OUR_BACKBONES = ("build_automix_resnet_backbone", "build_automix_resnet_fpn_backbone")
BOTTLENECK_RES5 = ("Res5ROIHeads", "Res5ROIHeadsExtraNorm")
MAX_SEED = 2**31 - 1  # NumPy takes 32 bits, and every process adds its rank
#: key -> lowest and highest value that train what they say; MAX_ITER 0 is for an evaluation alone, and
#: `trainer.prepare` refuses the rest
RANGES: dict[str, tuple[int, float]] = {
    "SOLVER.IMS_PER_BATCH": (1, math.inf),
    "SOLVER.MAX_ITER": (0, math.inf),
    "SOLVER.CHECKPOINT_PERIOD": (1, math.inf),
    "SOLVER.WARMUP_ITERS": (0, math.inf),
    "SOLVER.BASE_LR": (0, math.inf),
    "SOLVER.MOMENTUM": (0, math.inf),
    "SOLVER.WEIGHT_DECAY": (0, math.inf),
    "DATALOADER.NUM_WORKERS": (0, math.inf),
    "SEED": (0, MAX_SEED),  # -1 draws a seed that no resumed run could know
}
CHOICES = {
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "DATALOADER.SAMPLER_TRAIN": SAMPLERS,
}
REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
}
NORM_KEYS = (
    "MODEL.RESNETS.NORM",
    "MODEL.FPN.NORM",
    "MODEL.ROI_BOX_HEAD.NORM",
    "MODEL.ROI_MASK_HEAD.NORM",
    "MODEL.SEM_SEG_HEAD.NORM",
)


def default_config() -> CfgNode:
    """Detectron2's defaults, but for the input and stride placement of networks trained with torchvision's or
    timm's conventions, and a seed.

    (Detectron2's own are those of its MSRA weights: BGR, std 1, the stride in the 1×1 convolution; about 15
    AP worse with other weights.)
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
    resume = saved is not None
    if "MODEL.WEIGHTS" not in explicit and not resume:
        raise UserError(
            f"{config_file} does not set MODEL.WEIGHTS; add MODEL.WEIGHTS FILE.pkl (of automix-transfer "
            "export --to detectron2), "
            'or MODEL.WEIGHTS "" to train from scratch'
        )
    if encoder_name(cfg.MODEL.BACKBONE.NAME) is not None:
        check_name(cfg.MODEL.BACKBONE.NAME)
        if not resume and is_encoder_file(cfg.MODEL.WEIGHTS):
            apply_settings(
                cfg,
                input_settings(cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.NAME),
                explicit,
                Path(cfg.MODEL.WEIGHTS),
            )
    else:
        overlay = find_overlay(cfg.MODEL.WEIGHTS)
        if overlay is not None:
            apply_overlay(cfg, overlay, explicit)
        elif not resume:
            apply_settings(cfg, implied_settings(cfg.MODEL.WEIGHTS), explicit, Path(cfg.MODEL.WEIGHTS))
    scaled = scale_schedule(cfg, recipe, typed, max(1, num_gpus * num_machines)) if saved is None else ""
    if scaled:
        logger.info(scaled)
    if saved is not None:
        of_data = ("MODEL.ROI_HEADS.NUM_CLASSES", "DATASETS.TRAIN", "DATASETS.TEST")
        kept = [key for key in take_saved(cfg, saved, typed) if key in explicit and key not in of_data]
        # scaled when it was begun; the batch stays, however many GPUs share it now
        cfg.SOLVER.REFERENCE_WORLD_SIZE = 0
        if kept:
            logger.info(
                f"resumed: {', '.join(kept)} as in {cfg.OUTPUT_DIR}/config.yaml, not as in {config_file}"
            )
    _set_device(cfg, explicit, num_gpus, num_machines)
    if cfg.SOLVER.IMS_PER_BATCH < 1 or cfg.SOLVER.IMS_PER_BATCH % max(1, num_gpus * num_machines):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {num_gpus * num_machines} GPUs "
            "cannot share evenly; "
            "give a multiple of their number"
        )
    check_names(cfg)
    check_architecture(cfg, from_scratch=not cfg.MODEL.WEIGHTS and not resume)
    return cfg, explicit


def find_overlay(weights: str) -> Path | None:
    """The YAML beside a weights file of our export; None where there is none."""
    if not weights.endswith(".pkl"):
        return None
    overlay = Path(weights).with_suffix(".yaml")
    return overlay if overlay.is_file() else None


def apply_overlay(cfg: CfgNode, overlay: Path, explicit: set[str]) -> None:
    """Set what the weights ask for; a key of ``explicit`` with another value is an error that names both
    values."""
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
                f"with {_show(value)} "
                f"({source.name}); remove the key from the config and the command line, or take other weights"
            )
        _set(cfg, key, value, str(source))
    if wanted:
        logger.info(
            f"weights overlay {source}: "
            + ", ".join(f"{key} {_show(value)}" for key, value in wanted.items())
        )


def check_values(cfg: CfgNode) -> None:
    """Refuse values that Detectron2 fails on in the middle of its work, or trains nothing with."""
    for key, (lowest, highest) in RANGES.items():
        value = _get(cfg, key, key)
        if not lowest <= value <= highest:  # NaN, too
            raise UserError(
                f"{key} is {value}; give a number "
                + (f"of {lowest} or more" if highest == math.inf else f"from {lowest} to {highest}")
            )
    for key, names in CHOICES.items():
        value = _get(cfg, key, key)
        if value not in names:
            raise UserError(f"{key} {value} is unknown; use one of {', '.join(names)}")
    steps = cfg.SOLVER.STEPS
    if not all(type(step) is int and step >= 0 for step in steps) or list(steps) != sorted(steps):
        raise UserError(
            f"SOLVER.STEPS is {_show(steps)}; give iterations in ascending order, e.g. SOLVER.STEPS "
            "(18000,22000)"
        )


def check_names(cfg: CfgNode) -> None:
    """Refuse names of parts and norms that Detectron2 does not know; those of timm's networks, `check_name`
    has seen."""
    for key, registry in REGISTRIES.items():
        name = _get(cfg, key, key)
        if name not in registry:
            close = difflib.get_close_matches(name, [known for known, _ in registry], n=3)
            raise UserError(
                f"{key} {name} is unknown; "
                + (f"did you mean {', '.join(close)}?" if close else "leave it out for that of the recipe")
            )
    for key in NORM_KEYS:
        name = _get(cfg, key, key)
        try:
            get_norm(name, 32)
        except KeyError as error:
            raise UserError(
                f"{key} {name} is unknown; use one of BN, SyncBN, FrozenBN, GN, or '' for none"
            ) from error


@contextmanager
def model_errors() -> Iterator[None]:
    """What Detectron2 raises while it builds a model from settings that do not go together, as one
    `UserError`."""
    try:
        yield
    except (LookupError, AssertionError, ValueError) as error:
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:200])))
        raise UserError(
            f"Detectron2 cannot build the model of this config ({reason}); let the keys IN_FEATURES, "
            "OUT_FEATURES and NAME "
            "of MODEL fit each other, or leave them out"
        ) from error


def check_architecture(cfg: CfgNode, from_scratch: bool) -> None:
    """Refuse what Detectron2 would build without complaint, or with an assertion, and what nobody means."""
    depths = ", ".join(map(str, BASIC_BLOCKS))
    resnets, backbone, heads = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_HEADS.NAME
    if resnets.DEPTH in BASIC_BLOCKS and heads in BOTTLENECK_RES5:
        raise UserError(
            f"MODEL.RESNETS.DEPTH {resnets.DEPTH} is a network of basic blocks, but MODEL.ROI_HEADS.NAME "
            f"{heads} builds "
            "bottlenecks, into which its weights would load by shape and in part; use an FPN config, or "
            "MODEL.ROI_HEADS.NAME BasicRes5ROIHeadsExtraNorm"
        )
    if resnets.DEPTH not in BASIC_BLOCKS and heads == "BasicRes5ROIHeadsExtraNorm":
        raise UserError(
            f"MODEL.ROI_HEADS.NAME {heads} is for depths {depths}, but MODEL.RESNETS.DEPTH is "
            f"{resnets.DEPTH}; use "
            " MODEL.ROI_HEADS.NAME Res5ROIHeadsExtraNorm"
        )
    if backbone in OUR_BACKBONES and resnets.DEPTH not in BASIC_BLOCKS:
        raise UserError(
            f"MODEL.BACKBONE.NAME {backbone} is for depths {depths}, but MODEL.RESNETS.DEPTH is "
            f"{resnets.DEPTH}; use "
            " a recipe of this depth, or MODEL.BACKBONE.NAME build_resnet_fpn_backbone"
        )
    detectron2s = backbone in ("build_resnet_backbone", "build_resnet_fpn_backbone")
    if detectron2s and resnets.DEPTH not in (18, 34, 50, 101, 152):
        raise UserError(
            f"MODEL.BACKBONE.NAME {backbone} has no depth {resnets.DEPTH}; use MODEL.BACKBONE.NAME "
            f"{OUR_BACKBONES['fpn' in backbone]} for depth 10, or a depth of 18, 34, 50, 101 or 152"
        )
    if resnets.DEPTH in (18, 34) and backbone not in OUR_BACKBONES and resnets.RES2_OUT_CHANNELS != 64:
        raise UserError(
            f"MODEL.RESNETS.RES2_OUT_CHANNELS is {resnets.RES2_OUT_CHANNELS}, but depth {resnets.DEPTH} has "
            "64; set it to 64"
        )
    if encoder_name(backbone) is not None and heads in (*BOTTLENECK_RES5, "BasicRes5ROIHeadsExtraNorm"):
        raise UserError(
            f"MODEL.ROI_HEADS.NAME {heads} has ResNet's res5 in it, which MODEL.BACKBONE.NAME {backbone} has "
            "not; "
            "use a FPN recipe, e.g. coco_ConvNeXtT_FPN_1x"
        )
    if encoder_name(backbone) is not None and cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        raise UserError(
            f"MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT}, but timm backbones are trained "
            "whole; set it to 0"
        )
    if from_scratch and cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        raise UserError(
            f"MODEL.WEIGHTS is empty, but MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT} would "
            "freeze random layers; "
            "set MODEL.BACKBONE.FREEZE_AT 0"
        )
    if from_scratch and resnets.NORM == "FrozenBN":
        raise UserError(
            "MODEL.WEIGHTS is empty, but MODEL.RESNETS.NORM FrozenBN has no statistics to freeze; "
            "set MODEL.RESNETS.NORM SyncBN or BN"
        )


def saved_config(output: str) -> dict[str, Any] | None:
    """The settings of the run in ``output`` by dotted keys, where it has a checkpoint to go on from;
    otherwise None."""
    folder = Path(output)
    if not (folder / "last_checkpoint").is_file():
        return None
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder} holds a checkpoint but no config.yaml, so what it trained is unknown; restore the "
            "file, or choose "
            "another OUTPUT_DIR to start afresh"
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
            f"config file {file}: {error.filename} could not be read ({error.strerror}); give a file, as its "
            "_BASE_, "
            "too, that can be read"
        ) from error
    except (
        yaml.YAMLError,
        AttributeError,
        TypeError,
        ValueError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(
            f"config file {file} is not a valid Detectron2 "
            f"config{f' at line {mark.line + 1}' if mark else ''} "
            f"({getattr(error, 'problem', None) or first_line(error)})"
        ) from error
    for key, value in flat.items():
        _set(cfg, key, value, f"config file {file}")
    return set(flat) - {"VERSION"}


def _merge_overrides(cfg: CfgNode, overrides: Sequence[str]) -> set[str]:
    overrides = [part for part in overrides if part != "--"]
    late = next((part for part in overrides if part.startswith("--")), None)
    if late:
        raise UserError(
            f"option {late} stands behind a KEY VALUE override; put all options before the first KEY VALUE"
        )
    if len(overrides) % 2:
        raise UserError(
            f"overrides must be pairs of KEY VALUE, e.g. SOLVER.BASE_LR 0.01; '{overrides[-1]}' has no value"
        )
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _set(cfg, key, CfgNode._decode_cfg_value(value), f"override '{key} {value}'")
    return set(overrides[::2])


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    _get(cfg, key, source)
    try:
        if value is None and _get(default_config(), key, source) is not None:  # yacs takes None for any type
            raise TypeError("None")
        cfg.merge_from_list([key, value])
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        wanted = type(_get(cfg, key, source)).__name__
        raise UserError(
            f"{source}: config key {key} must be of type {wanted}, not {type(value).__name__} "
            f"({_show(value)})"
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
            "(the CPU) or more, "
            "and --num-machines 1 or more"
        )
    if num_gpus == 0 and num_machines > 1:
        raise UserError(
            f"--num-machines {num_machines} needs GPUs, but --num-gpus is 0; the CPU trains in one process"
        )
    found = torch.cuda.device_count()
    if num_gpus == 0:
        if "MODEL.DEVICE" in explicit and cfg.MODEL.DEVICE != "cpu":
            raise UserError(
                f"--num-gpus 0 trains on the CPU, but MODEL.DEVICE is {cfg.MODEL.DEVICE}; leave one of them "
                "out"
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
            node, name = cfg, key.split(".")[-1]
            for part in key.split(".")[:-1]:
                node = node[part]
            # with one process the same arithmetic, and SyncBN does not run on the CPU
            if node[name] == "SyncBN":
                node[name] = "BN"
                logger.info(f"one process: {key} SyncBN is BN")


def _show(value: Any) -> str:
    return (
        str(list(value))
        if isinstance(value, tuple)
        else repr(value)
        if isinstance(value, str)
        else str(value)
    )
