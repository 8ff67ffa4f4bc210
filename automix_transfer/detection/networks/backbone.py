"""ResNets of basic blocks at any width, as Detectron2 backbones: what R-18 and R-34 are there, and our narrow
networks.

Detectron2's own builder knows depths 18 to 152 and, below 50, a width of 64. These builders take depth 10
(one block a stage) and any width from the standard keys, so a weights overlay of ours is the same for C4 and
FPN: ``MODEL.RESNETS.DEPTH``, ``STEM_OUT_CHANNELS``, ``RES2_OUT_CHANNELS``, ``NORM``, ``OUT_FEATURES`` and
``MODEL.BACKBONE.FREEZE_AT``. They are made of Detectron2's `BasicStem` and `BasicBlock`, whose arithmetic is
timm's and torchvision's (7×7 stride 2, norm, ReLU, 3×3 max-pool stride 2 with padding 1; the stride of a
stage in its first 3×3 convolution and in its 1×1 shortcut).
"""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

BASIC_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # depth -> blocks of res2 to res5


@BACKBONE_REGISTRY.register()
def build_automix_resnet_backbone(cfg, input_shape: ShapeSpec) -> ResNet:
    """A plain ResNet of basic blocks; its features are ``MODEL.RESNETS.OUT_FEATURES`` (``res4`` for a C4
    detector)."""
    options = cfg.MODEL.RESNETS
    stem = BasicStem(
        in_channels=input_shape.channels, out_channels=options.STEM_OUT_CHANNELS, norm=options.NORM
    )
    stages = [basic_stage(cfg, stage) for stage in range(2, 6)]
    return ResNet(stem, stages, out_features=options.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


@BACKBONE_REGISTRY.register()
def build_automix_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """The same under a feature pyramid of ``MODEL.FPN.OUT_CHANNELS``, with p6 by max-pooling, as Detectron2's
    R-50 FPN has it."""
    return FPN(
        bottom_up=build_automix_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def basic_stage(cfg, stage: int) -> list[BasicBlock]:
    """The blocks of res``stage``, 2 to 5; width doubles from stage to stage, every stage but res2 halves the
    resolution."""
    blocks = BASIC_BLOCKS[cfg.MODEL.RESNETS.DEPTH][stage - 2]
    width = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 2 ** (stage - 2)
    return ResNet.make_stage(
        BasicBlock,
        blocks,
        stride_per_block=[1 if stage == 2 else 2] + [1] * (blocks - 1),
        in_channels=cfg.MODEL.RESNETS.STEM_OUT_CHANNELS if stage == 2 else width // 2,
        out_channels=width,
        norm=cfg.MODEL.RESNETS.NORM,
    )
