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

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

from automix_transfer.compared.named import MAX_SEED
from automix_transfer.config import flatten
from automix_transfer.detection.config_files import show
from automix_transfer.detection.loader import SAMPLERS
from automix_transfer.detection.networks.adamw import takes_adamw
from automix_transfer.detection.networks.backbone import BASIC_BLOCKS
from automix_transfer.detection.networks.fitting import recipes_for
from automix_transfer.detection.networks.timm_backbone import encoder_name, is_transformer
from automix_transfer.errors import UserError, did_you_mean
from automix_transfer.host.causes import cause_of

MOST_REGIONS = 10**5  # of an image, all anchors of a large one
SHARE, POSITIVE, NO_LESS = (0, 1), (1e-6, 1e6), (0, 1e6)
#: Lowest and highest number of keys by a pattern, the first that is met.
BOUNDS: dict[str, tuple[float, float]] = {
    r"^SOLVER\.IMS_PER_BATCH$": (1, 4096),
    # at 50 ms an iteration two months; 0 is for an evaluation alone, and `trainer` refuses the rest
    r"^SOLVER\.(MAX_ITER|WARMUP_ITERS)$": (0, 10**8),
    r"^SOLVER\.CHECKPOINT_PERIOD$": (1, 2**31 - 1),
    r"^SOLVER\.BASE_LR$": (0, 1e30),  # a loss that becomes infinite is told when it does
    r"^SOLVER\.(GAMMA|WEIGHT_DECAY\w*|WARMUP_FACTOR|BIAS_LR_FACTOR)$": (0, 10**4),
    r"^SOLVER\.MOMENTUM$|REPEAT_THRESHOLD$": SHARE,
    r"(NMS_THRESH|NMS_THRESH_TEST|SCORE_THRESH_TEST|IOU_THRESHOLDS|IOUS|POSITIVE_FRACTION)$": SHARE,
    r"\.CLIP_VALUE$|PIXEL_STD$|BBOX_REG_WEIGHTS$": POSITIVE,
    r"\.NORM_TYPE$": (0, math.inf),
    r"_BETA$|LOSS_WEIGHT$|GENERATOR\.MIN_SIZE$": NO_LESS,
    r"^DATALOADER\.NUM_WORKERS$": (0, 2**31 - 1),  # `trainer` knows how many this machine takes
    r"^SOLVER\.PATIENCE$": NO_LESS,
    r"^SEED$": (0, MAX_SEED),  # -1 draws a seed that no resumed run could know
    r"^TEST\.PRECISE_BN\.NUM_ITER$": (1, 10**4),
    r"TOPK|\.(BATCH_SIZE|DETECTIONS)_PER_IMAGE$": (1, MOST_REGIONS),
    r"^INPUT\.MIN_SIZE_T|^TEST\.AUG\.": (0, 8192),  # pixels; 0 leaves images as they are
    r"^INPUT\.MAX_SIZE_T": (16, 8192),
    r"^INPUT\.CROP\.SIZE$": (1e-6, 8192),
    r"RESOLUTION$": (1, 256),
    r"\.NUM_(CONV|CONVS|FC|STACKED_CONVS)$": (0, 64),
    r"RPN\.CONV_DIMS$": (-1, 10**5),  # -1: as many as there are
    r"\.NUM_CLASSES$|_DIM$|_DIMS$|CHANNELS$|\.NUM_GROUPS$|\.WIDTH_PER_GROUP$": (1, 10**5),
    r"SAMPLING_RATIO$": (0, 64),
    r"FREEZE_AT$": (-1, 5),
    r"TIMM\.LAYER_DECAY$": (1e-3, 1),
    r"TIMM\.": (0, 8192),
    r"ANCHOR_GENERATOR\.SIZES$": (1, 10**6),
    r"ANCHOR_GENERATOR\.ASPECT_RATIOS$": (1e-3, 1e3),
    r"": (1 - 2**31, 2**31 - 1),
}
#: How many values keys hold that Detectron2 unpacks.
LENGTHS = {
    "INPUT.CROP.SIZE": 2,
    **{f"MODEL.{part}.BBOX_REG_WEIGHTS": 4 for part in ("RPN", "ROI_BOX_HEAD", "RETINANET")},
}
MOST_LISTED = 256  # values of a key, unless it names data sets
LOSSES = ("smooth_l1", "giou", "diou", "ciou")
CHOICES = {
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.FORMAT": ("RGB", "BGR"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
    # the boxes here are upright
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": LOSSES,
    "MODEL.TIMM.OPTIMIZER": ("auto", "AdamW", "SGD"),
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
        lambda c: c.meta == "ProposalNetwork",
        "MODEL.META_ARCHITECTURE ProposalNetwork finds regions without classes, which nothing here measures; "
        "use GeneralizedRCNN",
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
        f"{HEADS} has ResNet's res5 in it, which {BACKBONE} has not; use recipe {{recipes}}",
    ),
    (
        lambda c: c.settings.IMAGE_SIZE != 0 and not c.timm,
        f"MODEL.TIMM.IMAGE_SIZE {{settings.IMAGE_SIZE}} is for timm's networks (timm_fpn/NAME), not "
        f"{BACKBONE}; leave it out",
    ),
    (
        lambda c: c.settings.WINDOW != 0 and not c.transformer,
        f"MODEL.TIMM.WINDOW {{settings.WINDOW}} is for plain transformers (timm_fpn/deit_small_patch16_224), "
        f"not {BACKBONE}; leave it out",
    ),
    (
        lambda c: c.settings.LAYER_DECAY != 1 and not c.adamw,
        "MODEL.TIMM.LAYER_DECAY {settings.LAYER_DECAY} is for networks that AdamW trains (ViT, DeiT, Swin, "
        f"ConvNeXt of timm), not {BACKBONE}; leave it out",
    ),
    (
        lambda c: c.settings.OPTIMIZER != "auto" and not c.timm,
        "MODEL.TIMM.OPTIMIZER {settings.OPTIMIZER} is for timm's networks (timm_fpn/NAME), not "
        f"{BACKBONE}; leave it out",
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
        if not key.startswith("DATASETS.") and len(leaves) > MOST_LISTED:
            raise UserError(f"{key} has {len(leaves)} values; give at most {MOST_LISTED}")


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
    except (LookupError, AssertionError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        if cause_of(error):
            raise
        reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:200])))
        raise UserError(
            f"Detectron2 cannot build the model of this config ({reason}); let the keys IN_FEATURES, "
            "OUT_FEATURES and NAME of MODEL fit each other, or leave them out"
        ) from error


def check_values(cfg: CfgNode) -> None:
    """Refuse values that Detectron2 fails on in the middle of its work, or trains nothing with."""
    usual = flatten(get_cfg())
    for key, value in flatten(cfg).items():
        if not isinstance(value, bool):
            _check_numbers(key, value, usual.get(key))
    for key, length in LENGTHS.items():
        if len(value := attrgetter(key)(cfg)) != length:
            raise UserError(f"{key} is {show(value)}; give {length} numbers")
    for key, names in CHOICES.items():
        if (value := attrgetter(key)(cfg)) not in names:
            raise UserError(f"{key} {value} is unknown; use one of {', '.join(names)}")
    steps = cfg.SOLVER.STEPS
    if not all(type(step) is int and step >= 0 for step in steps) or list(steps) != sorted(steps):
        raise UserError(
            f"SOLVER.STEPS is {list(steps)}; give iterations in ascending order, e.g. (18000,22000)"
        )

    crop, sizes = cfg.INPUT.CROP, cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(sizes) != 2 or not sizes:
        raise UserError(f"INPUT.MIN_SIZE_TRAIN is {show(sizes)}; give pixels, or two for a range")
    lowest, highest = (0, 1) if crop.TYPE.startswith("relative") else (1, math.inf)
    if not all(lowest <= side <= highest for side in crop.SIZE) and crop.ENABLED:
        raise UserError(f"INPUT.CROP.SIZE is {show(crop.SIZE)}, which is no size of type {crop.TYPE}")


def _check_numbers(key: str, value: Any, usual: Any) -> None:
    """Refuse numbers beyond those of `BOUNDS`, and other things in lists of numbers."""
    numbers = isinstance(value, list | tuple) and any(type(leaf) in (int, float) for leaf in _leaves(usual))
    lowest, highest = next(bounds for pattern, bounds in BOUNDS.items() if re.search(pattern, key))
    for leaf in _leaves(value):
        if type(leaf) in (int, float) and not lowest <= leaf <= highest:  # NaN, too
            raise UserError(f"{key} is {show(value)}; give a number from {lowest:,} to {highest:,}")
        if numbers and isinstance(leaf, str | None):
            raise UserError(f"{key} is {show(value)}; give numbers")


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
    encoder = encoder_name(backbone.NAME)
    found = SimpleNamespace(
        backbone=backbone.NAME,
        freeze_at=backbone.FREEZE_AT,
        timm=encoder is not None,
        transformer=is_transformer(encoder or ""),
        adamw=takes_adamw(cfg),
        settings=cfg.MODEL.TIMM,
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
            raise UserError(problem.format(**vars(found), recipes=recipes_for(backbone.NAME)))
