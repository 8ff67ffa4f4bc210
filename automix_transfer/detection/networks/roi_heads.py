"""ROI heads of C4 detectors whose res5 ends in a norm: the field's protocol for comparing backbones (MoCo and
everyone after it)."""

from __future__ import annotations

from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn

from automix_transfer.detection.networks.backbone import basic_stage


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """`Res5ROIHeads` of bottleneck blocks (R-50 and deeper), followed by a norm of ``MODEL.RESNETS.NORM``.

    The norm is new at transfer: pretrained features meet a detector that is not frozen, and their scale
    differs between methods.
    """

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:
        res5, channels = super()._build_res5_block(cfg)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels


@ROI_HEADS_REGISTRY.register()
class BasicRes5ROIHeadsExtraNorm(Res5ROIHeads):
    """The same for backbones of basic blocks: res5 is the network's own last stage.

    Detectron2's `Res5ROIHeads` always builds bottlenecks, into which basic-block weights load in part and by
    shape, in silence.
    """

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:
        blocks = basic_stage(cfg, 5)
        res5, channels = nn.Sequential(*blocks), blocks[-1].out_channels
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels
