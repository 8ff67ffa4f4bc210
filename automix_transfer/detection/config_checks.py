"""What a detector's config must not say: values that train nothing, names that nobody knows, and combinations
that train something else than they say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, build_model

from automix_transfer.config import flatten
from automix_transfer.detection.config_files import show
from automix_transfer.detection.loader import SAMPLERS
from automix_transfer.detection.networks.backbone import BASIC_BLOCKS
from automix_transfer.detection.networks.timm_backbone import encoder_name
from automix_transfer.errors import UserError, did_you_mean

MAX_SEED = 2**31 - 1  # NumPy takes 32 bits, and every process adds its rank
#: key -> lowest and highest value; MAX_ITER 0 is for an evaluation alone, and `trainer` refuses the rest
RANGES: dict[str, tuple[int, float]] = {
    "SOLVER.IMS_PER_BATCH": (1, 2**16),
    "SOLVER.MAX_ITER": (0, math.inf),
    "SOLVER.CHECKPOINT_PERIOD": (1, math.inf),
    "SOLVER.WARMUP_ITERS": (0, math.inf),
    "SOLVER.BASE_LR": (0, math.inf),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, math.inf),
    "DATALOADER.NUM_WORKERS": (0, math.inf),
    "MODEL.ROI_HEADS.NUM_CLASSES": (1, math.inf),
    **{
        f"MODEL.RPN.{when}_NMS_TOPK_{split}": (1, math.inf)
        for when in ("PRE", "POST")
        for split in ("TRAIN", "TEST")
    },
    "SEED": (0, MAX_SEED),  # -1 draws a seed that no resumed run could know
}
#: The largest integers of keys by a pattern, the first that is met; of all others 2^31 - 1.
LARGEST = {
    r"^INPUT\..*SIZE": 8192,  # pixels
    r"RESOLUTION$": 256,
    r"\.NUM_(CONV|FC|STACKED_CONVS)$|CONVS_DIM|\.NUM_CONVS$": 1024,
    r"\.NUM_CLASSES$|_DIM$|_DIMS$|CHANNELS$|\.NUM_GROUPS$|\.WIDTH_PER_GROUP$": 10**5,
}
MOST_LISTED = 256  # values of a key of MODEL
MOST_PARAMETERS = 2 * 10**9
LOSSES = ("smooth_l1", "giou", "diou", "ciou")
CHOICES = {
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": LOSSES,
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "DATALOADER.SAMPLER_TRAIN": SAMPLERS,
    "DATALOADER.ON_BAD_IMAGE": ("stop", "skip"),
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

OURS = ("build_automix_resnet_backbone", "build_automix_resnet_fpn_backbone")
DETECTRON2S = ("build_resnet_backbone", "build_resnet_fpn_backbone")
BOTTLENECK_RES5, BASIC_RES5 = ("Res5ROIHeads", "Res5ROIHeadsExtraNorm"), "BasicRes5ROIHeadsExtraNorm"
DEPTH, BACKBONE = "MODEL.RESNETS.DEPTH {depth}", "MODEL.BACKBONE.NAME {backbone}"
HEADS, FREEZE_AT = "MODEL.ROI_HEADS.NAME {heads}", "MODEL.BACKBONE.FREEZE_AT {freeze_at}"
#: Combinations that nobody means, though Detectron2 builds them, or fails on an assertion: when they are met
#: (by the names that `check_architecture` gives), and what is wrong.
CONTRADICTIONS: tuple[tuple[Callable[[SimpleNamespace], bool], str], ...] = (
    (
        lambda c: c.more or c.meta in ("PanopticFPN", "SemanticSegmentor"),
        "MODEL.KEYPOINT_ON, and MODEL.META_ARCHITECTURE PanopticFPN and SemanticSegmentor, need keypoints or "
        "masks of whole images, which the data here do not have; leave them out",
    ),
    (
        lambda c: c.basic and c.heads in BOTTLENECK_RES5,
        f"{DEPTH} is a network of basic blocks, but {HEADS} builds bottlenecks, into which its weights would "
        f"load in part; use an FPN config, or MODEL.ROI_HEADS.NAME {BASIC_RES5}",
    ),
    (
        lambda c: not c.basic and c.heads == BASIC_RES5,
        f"{HEADS} is for depths {{depths}}, not {DEPTH}; use MODEL.ROI_HEADS.NAME Res5ROIHeadsExtraNorm",
    ),
    (
        lambda c: not c.basic and c.backbone in OURS,
        f"{BACKBONE} is for depths {{depths}}, not {DEPTH}; use a recipe of this depth, or "
        "MODEL.BACKBONE.NAME build_resnet_fpn_backbone",
    ),
    (
        lambda c: c.backbone in DETECTRON2S and c.depth not in (18, 34, 50, 101, 152),
        f"{BACKBONE} has no depth {{depth}}; set MODEL.RESNETS.DEPTH to 18, 34, 50, 101 or 152; for depth 10 "
        f"there are {' and '.join(OURS)}",
    ),
    (
        lambda c: c.depth in (18, 34) and c.backbone not in OURS and c.width != 64,
        f"MODEL.RESNETS.RES2_OUT_CHANNELS is {{width}}, but {DEPTH} has 64; set it to 64",
    ),
    (
        lambda c: c.timm and c.heads in (*BOTTLENECK_RES5, BASIC_RES5),
        f"{HEADS} has ResNet's res5 in it, which {BACKBONE} has not; use an FPN recipe, "
        "e.g. coco_ConvNeXtT_FPN_1x",
    ),
    (
        lambda c: c.timm and c.freeze_at > 0,
        f"{FREEZE_AT} freezes layers, but timm backbones are trained whole; set it to 0",
    ),
    (
        lambda c: c.from_scratch and c.freeze_at > 0,
        f"MODEL.WEIGHTS is empty, but {FREEZE_AT} would freeze random layers; set it to 0",
    ),
    (
        lambda c: c.from_scratch and c.norm == "FrozenBN",
        "MODEL.WEIGHTS is empty, but MODEL.RESNETS.NORM FrozenBN has no statistics to freeze; "
        "set it to SyncBN or BN",
    ),
)


def check_danger(cfg: CfgNode, resumed: bool) -> None:
    """Refuse what would run code, fetch something, or take more memory than any detector.

    Args:
        resumed: MODEL.WEIGHTS is not read, since there is a checkpoint.
    """
    if cfg.MODEL.LOAD_PROPOSALS or cfg.DATASETS.PROPOSAL_FILES_TRAIN or cfg.DATASETS.PROPOSAL_FILES_TEST:
        raise UserError(
            "MODEL.LOAD_PROPOSALS and DATASETS.PROPOSAL_FILES_* read pickles, which may run "
            "code; leave them out"
        )
    for key, value in flatten(cfg).items():
        leaves = list(_leaves(value))
        if any("://" in str(leaf) for leaf in leaves) and not (resumed and key == "MODEL.WEIGHTS"):
            raise UserError(
                f"{key} {value!s:.200} is an address, and nothing is downloaded here; download the file and "
                "give its path"
            )
        if any("\0" in str(leaf) for leaf in leaves):
            raise UserError(f"{key} holds a null character; leave it out")
        if key.startswith("MODEL.") and len(leaves) > MOST_LISTED:
            raise UserError(f"{key} has {len(leaves)} values; give at most {MOST_LISTED}")
        most = next((most for pattern, most in LARGEST.items() if re.search(pattern, key)), 2**31 - 1)
        if any(type(leaf) is int and abs(leaf) > most for leaf in leaves):
            raise UserError(f"{key} is {show(value)}; give integers of at most {most:,}")
        infinite = any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in leaves)
        if infinite and not key.endswith("NORM_TYPE"):
            raise UserError(f"{key} is {show(value)}; give finite numbers")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


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


def check_size(cfg: CfgNode) -> None:
    """Refuse a network of more than `MOST_PARAMETERS`, before anything of it is allocated."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"), model_errors():
        count = sum(part.numel() for part in build_model(cfg).parameters())
    if count > MOST_PARAMETERS:
        raise UserError(
            f"the network of this config has {count:,} parameters, more than {MOST_PARAMETERS:,}; give "
            "smaller numbers of channels, classes or layers in MODEL"
        )


def check_values(cfg: CfgNode) -> None:
    """Refuse values that Detectron2 fails on in the middle of its work, or trains nothing with."""
    for key, (lowest, highest) in RANGES.items():
        value = attrgetter(key)(cfg)
        if not lowest <= value <= highest:  # NaN, too
            wanted = f"of {lowest} or more" if highest == math.inf else f"from {lowest} to {highest}"
            raise UserError(f"{key} is {value}; give a number {wanted}")
    for key, names in CHOICES.items():
        if (value := attrgetter(key)(cfg)) not in names:
            raise UserError(f"{key} {value} is unknown; use one of {', '.join(names)}")
    steps = cfg.SOLVER.STEPS
    if not all(type(step) is int and step >= 0 for step in steps) or list(steps) != sorted(steps):
        raise UserError(
            f"SOLVER.STEPS is {list(steps)}; give iterations in ascending order, e.g. (18000,22000)"
        )


def check_names(cfg: CfgNode) -> None:
    """Refuse names of parts and norms that Detectron2 does not know."""
    for key, registry in REGISTRIES.items():
        name = attrgetter(key)(cfg)
        if name not in registry:
            parts = [part for part, _ in registry]
            hint = did_you_mean(name, parts, "leave it out for that of the recipe", most=3)
            raise UserError(f"{key} {name} is unknown; {hint}")
    for key in NORM_KEYS:
        name = attrgetter(key)(cfg)
        try:
            get_norm(name, 32)
        except KeyError as error:
            known = "BN, SyncBN, FrozenBN, GN, or '' for none"
            raise UserError(f"{key} {name} is unknown; use one of {known}") from error


def check_architecture(cfg: CfgNode, from_scratch: bool) -> None:
    """Refuse the first of `CONTRADICTIONS` that the config has; ``from_scratch`` trains without weights."""
    backbone, resnets = cfg.MODEL.BACKBONE, cfg.MODEL.RESNETS
    found = SimpleNamespace(
        backbone=backbone.NAME,
        freeze_at=backbone.FREEZE_AT,
        timm=encoder_name(backbone.NAME) is not None,
        depth=resnets.DEPTH,
        depths=", ".join(map(str, BASIC_BLOCKS)),
        basic=resnets.DEPTH in BASIC_BLOCKS,
        width=resnets.RES2_OUT_CHANNELS,
        norm=resnets.NORM,
        heads=cfg.MODEL.ROI_HEADS.NAME,
        meta=cfg.MODEL.META_ARCHITECTURE,
        more=cfg.MODEL.KEYPOINT_ON,
        from_scratch=from_scratch,
    )
    for is_met, problem in CONTRADICTIONS:
        if is_met(found):
            raise UserError(problem.format(**vars(found)))
