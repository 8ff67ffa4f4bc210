"""Any timm encoder with feature maps of stride 4 to 32 as a Detectron2 backbone (ConvNeXt, Swin,
EfficientNet, ResNet, ...), and plain vision transformers with patches of 16 pixels (ViT, DeiT).

``MODEL.BACKBONE.NAME timm_fpn/convnext_tiny`` puts it under a feature pyramid, ``timm/convnext_tiny`` leaves
it plain. The encoder's name is part of the builder's, and what else there is to say of it stands in keys of
its own, `TIMM`; so a run's ``config.yaml`` rebuilds the model wherever this package is imported. Features are
called by their stride, as a ResNet's are: ``res2`` (4) to ``res5`` (32).

The encoder inside is timm's own network under its own keys, without what lies behind its last feature map
(final norm, classifier). Networks normalised by LayerNorm give features without a norm; as ConvNeXt's and
Swin's authors do for detection, each gets a new LayerNorm. A plain transformer has one map, ``res4``, from
which a simple pyramid is made; its positions are interpolated to the size of each image. Swin keeps the
windows that it was trained with: its masks are made for each image, but the last stage, which was one window
in training, stays without shifts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from detectron2.config.defaults import _C as DEFAULTS
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from timm.layers import LayerNorm2d, convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models import model_entrypoint
from torch import Tensor, nn

from automix_transfer.detection.networks.simple_pyramid import SimplePyramid
from automix_transfer.detection.networks.windows import Windows
from automix_transfer.errors import UserError, did_you_mean
from automix_transfer.models.encoders import create_encoder

PLAIN, PYRAMID = "timm/", "timm_fpn/"
PATCH = 16  #: of the plain transformers that are taken, in pixels
STRIDES = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
#: stochastic depth of the tiny networks' published detectors; Swin takes its training size only, unless told
OPTIONS: dict[str, dict[str, Any]] = {
    "convnext": {"drop_path_rate": 0.4},
    "swin": {"drop_path_rate": 0.1, "strict_img_size": False},
    "swinv2": {"drop_path_rate": 0.1, "strict_img_size": False},
}
#: timm's modules of plain vision transformers
TRANSFORMERS = ("timm.models.vision_transformer", "timm.models.deit")
#: of plain transformers, by a word of their name, as ViTDet has it; and of the smaller ones
DROP_PATH, DROP_PATH_SMALL = {"large": 0.4, "huge": 0.5}, 0.1
#: Keys added to Detectron2's. A config that leaves them as they are is written without them.
#: IMAGE_SIZE: side of the images that the positions were trained for, 0: timm's own; WINDOW: side in patches
#: of the windows of a plain transformer's attention, 0: none; LAYER_DECAY, OPTIMIZER: see `adamw`.
TIMM = CfgNode({"IMAGE_SIZE": 0, "WINDOW": 0, "LAYER_DECAY": 1.0, "OPTIMIZER": "auto"})
DEFAULTS.MODEL.TIMM = TIMM.clone()


class TimmBackbone(Backbone):
    """Feature maps {"res2": (N, C, H/4, W/4), ...} of a timm encoder; images (N, 3, H, W) with sides that 32
    divides.

    Args:
        name: a timm model name; a tag of weights (``.in1k``) is allowed and does not matter.
        out_features: some of the names in `STRIDES`.
        norm: of BatchNorm layers: ``BN``, ``SyncBN`` or ``FrozenBN``; networks without BatchNorm don't care.
        image_size, window: as in `TIMM`.

    Raises:
        UserError: no such network, or one without such feature maps.
    """

    def __init__(
        self,
        name: str,
        out_features: list[str] | tuple[str, ...],
        norm: str = "BN",
        image_size: int = 0,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = _network(name, image_size)
        taps, indices = _taps(self.encoder, name)
        unknown = [feature for feature in out_features if feature not in taps]
        if unknown:
            raise UserError(
                f"MODEL.BACKBONE.NAME {name} has no feature {unknown[0]}; it has {', '.join(taps)}"
            )
        self._indices = [indices[feature] for feature in out_features]
        self.encoder.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        self._out_features = list(out_features)
        self._out_feature_strides = {name: stride for stride, name in STRIDES.items() if name in out_features}
        self._out_feature_channels = {feature: taps[feature] for feature in out_features}
        new_norms = is_layer_normed(name) and not is_transformer(name)
        self.out_norms = nn.ModuleDict(
            {feature: LayerNorm2d(taps[feature]) for feature in out_features} if new_norms else {}
        )
        self.windows: Windows | None = None
        if window:
            self.windows = Windows(self.encoder.blocks, window, self.encoder.num_prefix_tokens)
        if norm == "FrozenBN":
            freeze_batch_norm_2d(self.encoder)
        elif norm == "SyncBN":
            self.encoder = convert_sync_batchnorm(self.encoder)

    def features(self, images: Tensor, whole: bool = True) -> dict[str, Tensor]:
        """The encoder's own feature maps, before the new norms; ``whole``: without windows, as in its
        training."""
        if self.windows is not None:
            height, width = images.shape[-2:]
            self.windows.grid = None if whole else (height // PATCH, width // PATCH)
        maps = self.encoder.forward_intermediates(
            images, indices=self._indices, norm=False, intermediates_only=True
        )
        return dict(zip(self._out_features, maps, strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {
            name: self.out_norms[name](value) if self.out_norms else value
            for name, value in self.features(images, whole=False).items()
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }

    @property
    def size_divisibility(self) -> int:
        return 32


def encoder_name(backbone: str) -> str | None:
    """``timm_fpn/convnext_tiny`` -> ``convnext_tiny``; None for backbones that are not timm's."""
    for prefix in (PYRAMID, PLAIN):
        if backbone.startswith(prefix):
            return backbone.removeprefix(prefix)
    return None


def family(name: str) -> str:
    """``convnext_tiny.fb_in1k`` -> ``convnext``."""
    return name.split(".")[0].split("_")[0]


def is_layer_normed(name: str) -> bool:
    """Networks of the ConvNeXt and Swin families and plain transformers."""
    return family(name).startswith(("convnext", "swin")) or is_transformer(name)


def is_transformer(name: str) -> bool:
    """Plain vision transformers, whose map keeps its size: timm's ViT and DeiT."""
    name = name.split(".")[0]
    return timm.is_model(name) and model_entrypoint(name).__module__ in TRANSFORMERS


def check_name(backbone: str) -> None:
    """A `UserError` with the closest names where timm has no such network."""
    name = (encoder_name(backbone) or "").split(".")[0]
    if not timm.is_model(name):
        otherwise = "give timm_fpn/NAME, as timm_fpn/convnext_tiny"
        hint = did_you_mean(name, timm.list_models(), otherwise, most=3)
        raise UserError(f"MODEL.BACKBONE.NAME {backbone}: timm has no network '{name}'; {hint}")


def features_of(name: str) -> tuple[str, ...]:
    """The features that a network has, without building it; a `UserError` where they make no pyramid."""
    with torch.device("meta"):
        return tuple(_taps(_network(name, 0), name)[0])


def _network(name: str, image_size: int) -> Any:  # timm's own methods are in no common class
    options = OPTIONS.get(family(name), {})
    if is_transformer(name):
        rates = [rate for size, rate in DROP_PATH.items() if f"_{size}_" in name]
        options = {"drop_path_rate": (rates or [DROP_PATH_SMALL])[0], "dynamic_img_size": True}
    bare = name.split(".")[0]
    if image_size and not getattr(timm.get_pretrained_cfg(bare), "fixed_input_size", False):
        raise UserError(
            f"MODEL.TIMM.IMAGE_SIZE is {image_size}, but timm_fpn/{bare} takes images of any size; leave it "
            "out"
        )
    try:
        network: Any = create_encoder(bare, 0, image_size=image_size or None, **options)
    except UserError as error:
        raise UserError(str(error).replace("data.image_size", "MODEL.TIMM.IMAGE_SIZE")) from error
    if not hasattr(network, "forward_intermediates") or not hasattr(network, "prune_intermediate_layers"):
        raise UserError(
            f"MODEL.BACKBONE.NAME timm_fpn/{name}: timm gives no feature maps of it; take another encoder"
        )
    return network


def _taps(network: nn.Module, name: str) -> tuple[dict[str, int], dict[str, int]]:
    """Channels, and index in timm's list, of each feature by its name here; the last of a stride where there
    are several."""
    channels, indices, plain = {}, {}, is_transformer(name)
    stages: Any = getattr(network, "feature_info", [])
    for index, item in enumerate(stages):
        feature = STRIDES.get(item["reduction"])
        if feature:
            channels[feature], indices[feature] = item["num_chs"], index
    if list(channels) == ([STRIDES[PATCH]] if plain else list(STRIDES.values())):
        _try_another_size(network, name, indices)
        return channels, indices
    if plain:
        raise UserError(
            f"MODEL.BACKBONE.NAME timm_fpn/{name} has patches of {stages[0]['reduction']} pixels, and a "
            f"pyramid is made of maps of stride {PATCH}; take one with patches of {PATCH}, e.g. "
            "timm_fpn/deit_small_patch16_224"
        )
    raise UserError(
        f"MODEL.BACKBONE.NAME timm_fpn/{name} has no feature maps of strides 4, 8, 16 and 32, which a "
        "pyramid needs, and is no plain ViT or DeiT; take a network with stages, e.g. "
        "timm_fpn/convnext_tiny, or timm_fpn/deit_small_patch16_224"
    )


@torch.no_grad()
def _try_another_size(network: Any, name: str, indices: dict[str, int]) -> None:
    """A `UserError` where the network takes images of its training size only, or has maps smaller than its
    strides say: told by one image, which leaves weights, statistics and random numbers as they are."""
    device, training = next(network.parameters()).device, network.training
    height, width = 96, 160  # sides that 32 divides, and no common windows
    image, taken = torch.zeros(1, 3, height, width, device=device), list(indices.values())
    try:
        maps = network.eval().forward_intermediates(image, indices=taken, norm=False, intermediates_only=True)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"MODEL.BACKBONE.NAME timm_fpn/{name} takes images of its own size only, and those of a detector "
            "have any; take e.g. timm_fpn/convnext_tiny"
        ) from error
    finally:
        network.train(training)
    expected = [(height // stride, width // stride) for stride, key in STRIDES.items() if key in indices]
    if [tuple(value.shape[-2:]) for value in maps] != expected:
        raise UserError(
            f"MODEL.BACKBONE.NAME timm_fpn/{name} has convolutions that cut off the borders, so its maps do "
            "not fit each other in a pyramid; take e.g. timm_fpn/convnext_tiny"
        )


def build_plain(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The backbone ``timm/NAME`` with the features ``MODEL.RESNETS.OUT_FEATURES``."""
    return _build(cfg, input_shape, cfg.MODEL.RESNETS.OUT_FEATURES)


def _build(cfg: CfgNode, input_shape: ShapeSpec, features: list[str]) -> TimmBackbone:
    name, settings = encoder_name(cfg.MODEL.BACKBONE.NAME), cfg.MODEL.TIMM
    assert name is not None and input_shape.channels == 3
    return TimmBackbone(name, features, cfg.MODEL.RESNETS.NORM, settings.IMAGE_SIZE, settings.WINDOW)


def build_pyramid(cfg: CfgNode, input_shape: ShapeSpec) -> FPN | SimplePyramid:
    """The same under a feature pyramid of ``MODEL.FPN``, with p6 by max-pooling; of a plain transformer the
    simple one, with levels of the strides that ``IN_FEATURES`` names."""
    if is_transformer(encoder_name(cfg.MODEL.BACKBONE.NAME) or ""):
        strides = [stride for stride, name in STRIDES.items() if name in cfg.MODEL.FPN.IN_FEATURES]
        if len(strides) != len(cfg.MODEL.FPN.IN_FEATURES):
            raise UserError(
                f"MODEL.FPN.IN_FEATURES {list(cfg.MODEL.FPN.IN_FEATURES)} must be some of "
                f"{', '.join(STRIDES.values())}"
            )
        bottom_up = _build(cfg, input_shape, [STRIDES[PATCH]])
        return SimplePyramid(bottom_up, strides, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM)
    return FPN(
        bottom_up=build_plain(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _register_all() -> None:
    """Every network of timm under both names, so that Detectron2's own tools find them; nothing is built."""
    for name in timm.list_models():
        for prefix, builder in ((PLAIN, build_plain), (PYRAMID, build_pyramid)):
            BACKBONE_REGISTRY.register(_renamed(builder, prefix + name))


def _renamed(builder: Callable[..., Backbone], name: str) -> Callable[..., Backbone]:
    def build(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
        return builder(cfg, input_shape)

    build.__name__ = name  # the name that the registry takes
    return build


_register_all()
