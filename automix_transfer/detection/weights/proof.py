"""The proof behind an export to Detectron2: its own builders, its own checkpointer, the features of both
detector layouts.

The file of a ResNet is loaded twice, as it will be used: into a backbone under a feature pyramid (FPN), and
into a backbone that ends at res4 with res5 in the ROI head (C4). That of another encoder is loaded into
timm's backbone. Everything is NaN before loading, so what the checkpointer skips with a warning cannot pass.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.detection import compatibility
from automix_transfer.errors import UserError, few
from automix_transfer.export.proof import Taps, module_taps, same_values

compatibility.require()

from detectron2.checkpoint import DetectionCheckpointer  # noqa: E402  (importable only after `compatibility`)
from detectron2.config import CfgNode, get_cfg  # noqa: E402
from detectron2.layers import CNNBlockBase  # noqa: E402
from detectron2.modeling import build_backbone  # noqa: E402
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY  # noqa: E402

from automix_transfer.detection.networks.backbone import BASIC_BLOCKS  # noqa: E402
from automix_transfer.detection.weights.weights_check import backbone_keys  # noqa: E402

STAGES = ("stem", "res2", "res3", "res4", "res5")
LAYERS = (*STAGES, "res4 (C4)", "res5 (C4)")  # with the detector's layout where it matters
#: of C4, by whether the blocks are basic ones
BACKBONES = {False: "build_resnet_backbone", True: "build_automix_resnet_backbone"}
HEADS = {False: "Res5ROIHeads", True: "BasicRes5ROIHeadsExtraNorm"}


def load_back(file: Path, overlay: Path, tensors: Mapping[str, Tensor]) -> tuple[str, int, int, Taps]:
    """Load ``file`` under ``overlay`` into Detectron2's networks.

    Args:
        tensors: what the file has to hold, by Detectron2's names.

    Returns:
        The networks in words; how many of how many keys came from the file; images -> `LAYERS` and pixels.

    Raises:
        UserError: a tensor of the file that no layer takes.
    """
    basic = _config(overlay).MODEL.RESNETS.DEPTH in BASIC_BLOCKS
    fpn, c4 = _fpn(overlay, basic), _c4(overlay, basic)
    matched = [_matched(fpn, file, tensors, "FPN"), _matched(c4, file, tensors, "C4")]
    pyramid = _config(overlay, basic).MODEL.BACKBONE.NAME
    words = (
        f"Detectron2's DetectionCheckpointer with {overlay.name}, into {pyramid} "
        f"(FPN) and into {BACKBONES[basic]} + {HEADS[basic]} (C4)"
    )
    return words, min(matched), len(backbone_keys(fpn)), _taps(fpn, c4, _config(overlay))


def load_encoder_back(file: Path, overlay: Path, tensors: Mapping[str, Tensor]) -> tuple[str, int, int, Taps]:
    """`load_back` for an encoder of timm, into its backbone under a pyramid; the taps are pixels and its
    features."""
    cfg = _config(overlay)
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = list(STAGES[1:])
    network = _Part(backbone=build_backbone(cfg)).eval()
    matched = _matched(network, file, tensors, "timm")
    bottom_up: Any = network.get_submodule("backbone.bottom_up")
    words = f"Detectron2's DetectionCheckpointer with {overlay.name}, into {cfg.MODEL.BACKBONE.NAME}"
    return (
        words,
        matched,
        len(backbone_keys(network)),
        lambda images: {"pixels": _pixels(images, cfg), **bottom_up.features(images)},
    )


def _matched(network: nn.Module, file: Path, tensors: Mapping[str, Tensor], layout: str) -> int:
    """How many keys of ``network`` come from ``file``, which is loaded into it."""
    _load(network, file)
    keys = backbone_keys(network)
    if unused := [name for name in tensors if name not in keys]:
        raise UserError(
            f"{file}: Detectron2's {layout} backbone has no place for {len(unused)} tensors of the "
            f"encoder ({few(unused)}), so nothing was written"
        )
    state = network.state_dict()
    return same_values(tensors, {name: state[key] for name, key in keys.items()})


class _Part(nn.Module):
    """Carries submodules under the names that they have in a detector."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def _config(overlay: Path, basic: bool = False) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_automix_resnet_fpn_backbone" if basic else "build_resnet_fpn_backbone"
    cfg.merge_from_file(str(overlay))
    return cfg


def _fpn(overlay: Path, basic: bool) -> nn.Module:
    cfg = _config(overlay, basic)
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    return _Part(backbone=build_backbone(cfg)).eval()


def _c4(overlay: Path, basic: bool) -> nn.Module:
    cfg = _config(overlay, basic)
    cfg.MODEL.BACKBONE.NAME = BACKBONES[basic]
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    res5, _ = ROI_HEADS_REGISTRY.get(HEADS[basic])._build_res5_block(cfg)
    return _Part(backbone=build_backbone(cfg), roi_heads=_Part(res5=res5)).eval()


def _load(network: nn.Module, file: Path) -> None:
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.fill_(float("nan"))
    with _quiet("detectron2", "fvcore"):
        DetectionCheckpointer(network).load(str(file))


def _taps(fpn: nn.Module, c4: nn.Module, cfg: CfgNode) -> Taps:
    stages = module_taps(fpn.get_submodule("backbone.bottom_up"), [(name, name) for name in STAGES])
    head = c4.get_submodule("roi_heads.res5")
    # an extra norm is left out
    res5 = nn.Sequential(*(block for block in head.children() if isinstance(block, CNNBlockBase)))

    def run(images: Tensor) -> dict[str, Tensor]:
        res4 = c4.get_submodule("backbone")(images)["res4"]
        return {"pixels": _pixels(images, cfg), **stages(images), "res4 (C4)": res4, "res5 (C4)": res5(res4)}

    return run


def _pixels(images: Tensor, cfg: CfgNode) -> Tensor:
    """Random images as a detector of ``cfg`` feeds them."""
    mean, std = (
        torch.tensor([*value]).view(3, 1, 1) for value in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    order = [0, 1, 2] if cfg.INPUT.FORMAT == "RGB" else [2, 1, 0]
    return (as_pixels(images)[:, order] - mean) / std


def as_pixels(images: Tensor) -> Tensor:
    """Random images as whole numbers in [0, 255], to compare how both sides normalise."""
    return (images * 64 + 128).clamp(0, 255).round()


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Their tables of matched keys and warnings about the pyramid's new layers would bury the proof."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
