"""What a detector's config must not say: values that train nothing, names that nobody knows, and combinations
that train something else than they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from types import SimpleNamespace

from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

from automix_transfer.detection.loader import SAMPLERS
from automix_transfer.detection.networks.backbone import BASIC_BLOCKS
from automix_transfer.detection.networks.timm_backbone import encoder_name
from automix_transfer.errors import UserError, did_you_mean

MAX_SEED = 2**31 - 1  # NumPy takes 32 bits, and every process adds its rank
#: key -> lowest and highest value; MAX_ITER 0 is for an evaluation alone, and `trainer` refuses the rest
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

OURS = ("build_automix_resnet_backbone", "build_automix_resnet_fpn_backbone")
DETECTRON2S = ("build_resnet_backbone", "build_resnet_fpn_backbone")
BOTTLENECK_RES5, BASIC_RES5 = ("Res5ROIHeads", "Res5ROIHeadsExtraNorm"), "BasicRes5ROIHeadsExtraNorm"
DEPTH, BACKBONE = "MODEL.RESNETS.DEPTH {depth}", "MODEL.BACKBONE.NAME {backbone}"
HEADS, FREEZE_AT = "MODEL.ROI_HEADS.NAME {heads}", "MODEL.BACKBONE.FREEZE_AT {freeze_at}"
#: Combinations that nobody means, though Detectron2 builds them, or fails on an assertion: when they are met
#: (by the names that `check_architecture` gives), and what is wrong.
CONTRADICTIONS: tuple[tuple[Callable[[SimpleNamespace], bool], str], ...] = (
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
        from_scratch=from_scratch,
    )
    for is_met, problem in CONTRADICTIONS:
        if is_met(found):
            raise UserError(problem.format(**vars(found)))
