"""Encoders by name, and where their feature maps are.

An encoder is a plain ``nn.Module`` from images (N, 3, H, W) to logits (N, K): a network of timm or
torchvision, or a ResNet for CIFAR. What else is known of it (name, stem, input normalisation, classes) is an
`EncoderInfo`, which travels in every checkpoint and export.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import timm
import torch
import torchvision
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from automix_transfer.errors import UserError, did_you_mean, first_line
from automix_transfer.imagenet import IMAGENET_MEAN, IMAGENET_STD
from automix_transfer.models.cifar_resnet import cifar_resnet
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.models.taps import blank_image
from automix_transfer.models.wide_resnet import wide_resnet

STEMS = ("imagenet", "cifar")


@dataclass(frozen=True)
class EncoderInfo:
    """What has to be known to rebuild an encoder and to feed it.

    Attributes:
        name: a name of `create_encoder`.
        num_classes: outputs K of the classifier.
        stem: ``imagenet`` (7×7 stride 2 and max-pool, as released) or ``cifar`` (3×3 stride 1, no max-pool).
        image_size: side of the square training images, in pixels.
        mean, std: of the RGB input in [0, 1].
        class_names: in label order; empty where unknown.
        test_size, test_crop_ratio, test_crop, interpolation: of testing, as in `DataConfig`; None where
            unknown.
    """

    name: str
    num_classes: int
    stem: str = "imagenet"
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    class_names: tuple[str, ...] = field(default=(), repr=False)
    test_size: int | None = None
    test_crop_ratio: float | None = None
    test_crop: str | None = None
    interpolation: str | None = None

    @property
    def crop_ratio(self) -> float:
        """Of testing; where it is unknown, that of the field: small images are not cut."""
        return self.test_crop_ratio or (1.0 if self.image_size <= 64 else 0.875)

    def to_dict(self) -> dict[str, Any]:
        """Primitive types only, for checkpoints and metadata; what is unknown is left out."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }

    def build(self, **options: Any) -> nn.Module:
        """The encoder itself, randomly initialised; see `create_encoder`."""
        return create_encoder(self.name, self.num_classes, self.stem, self.image_size, **options)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> EncoderInfo:
        """The inverse of `to_dict`."""
        fields: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in value.items()
        }
        return cls(**fields)


def create_encoder(
    name: str, num_classes: int, stem: str = "imagenet", image_size: int | None = None, **options: Any
) -> nn.Module:
    """An encoder with a classifier of ``num_classes`` outputs, randomly initialised.

    Args:
        name: ``resnet10_32`` (a ResNet of depth 10 with 32 to 256 channels, for CPUs), any timm model, e.g.
            ``resnet18``, a torchvision model as ``torchvision/squeezenet1_1``, ``cifar_resnet20`` (He et al.
            4.2, any depth 6n + 2) or ``wrn_28_8`` (a wide ResNet of any depth 6n + 4 and any width).
        stem: ``cifar`` replaces the 7×7 convolution and the max-pool of a ResNet by a 3×3 convolution
            (appendix A.1).
        image_size: side of the images in pixels, for transformers that are built for one size; None: timm's.
        options: passed to timm, e.g. ``drop_path_rate``.

    Raises:
        UserError: unknown name or stem, a CIFAR stem for a network that is no ResNet, or a size that the
            network cannot have.
    """
    if stem not in STEMS:
        raise UserError(f"encoder stem '{stem}' is unknown; choose one of {', '.join(STEMS)}")
    if name == "resnet10_32":
        encoder: nn.Module = ResNet(
            BasicBlock,  # type: ignore[arg-type]  # timm means the class
            (1, 1, 1, 1),
            num_classes=num_classes,
            channels=(32, 64, 128, 256),
            stem_width=32,
            **options,
        )
    elif name.startswith("cifar_resnet"):
        return cifar_resnet(name, num_classes, **options)  # its stem is a 3×3 convolution already
    elif name.startswith("wrn_"):
        return wide_resnet(name, num_classes, **options)  # as above
    elif name.startswith("torchvision/"):
        encoder = _torchvision_model(name.removeprefix("torchvision/"), num_classes, **options)
    elif timm.is_model(name):
        size = size_option(name, image_size)
        if size:  # so that the network says what it is built for
            options["pretrained_cfg_overlay"] = {"input_size": (3, image_size, image_size)}
        encoder = timm.create_model(name, pretrained=False, num_classes=num_classes, **size, **options)
    else:
        hint = did_you_mean(name, timm.list_models(), "give a timm model name, e.g. resnet50", most=3)
        raise UserError(f"encoder '{name}' is unknown; {hint}")
    if stem == "cifar":
        _use_cifar_stem(encoder, name)
    return encoder


def has_own_stem(name: str) -> bool:
    """Whether the network is made for CIFAR, with a 3×3 convolution whatever ``stem`` says."""
    return name.startswith(("cifar_resnet", "wrn_"))


def plain_info(name: str, num_classes: int, stem: str = "imagenet") -> EncoderInfo:
    """What is known of an encoder whose file says nothing: timm's input size, mean and std, or ImageNet's."""
    if has_own_stem(name):
        return EncoderInfo(name, num_classes, "cifar", image_size=32)
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return EncoderInfo(name, num_classes, stem)
    mean, std = (tuple(float(x) for x in value) for value in (config.mean, config.std))
    size = config.input_size[-1]
    info = EncoderInfo(name, num_classes, stem, size, mean, std)  # type: ignore[arg-type]  # three channels
    return replace(info, test_crop_ratio=config.crop_pct, interpolation=config.interpolation)


def feature_layer(encoder: nn.Module, layer: int | str) -> str:
    """The submodule name of layer l; a string that is no number is taken as it is.

    1 to 4 are the four last stages of the network (Table 11), or the quarters of the depth of a plain vision
    transformer. ``auto`` is l = 3 as in the paper; in a plain vision transformer, whose map keeps its size,
    it is the middle of the depth as in the published code: block 6 of DeiT-S's 12.

    Raises:
        UserError: the network has no such layer, or its stages are not known.
    """
    taps = list(getattr(encoder, "feature_info", []))
    plain = len(taps) > 4 and len({item["reduction"] for item in taps}) == 1  # a plain vision transformer
    if layer == "auto":
        layer = 2 if plain else 3
    if isinstance(layer, str) and not layer.isdigit():
        return layer
    number = int(layer)
    if plain:
        taps = [taps[len(taps) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]
    stages = [item["module"] for item in taps][-4:]
    if not stages and hasattr(encoder, "layer4"):  # torchvision's ResNets
        stages = ["layer1", "layer2", "layer3", "layer4"]
    if not stages:
        trained = (name.split(".") for name, _ in encoder.named_parameters())
        inside = list(dict.fromkeys(".".join(parts[:2]) for parts in trained if len(parts) > 2))
        example = (inside or ["features"])[len(inside) * 2 // 3]
        raise UserError(
            f"the stages of {type(encoder).__name__} are not known, so it has no layer {number}; name a "
            f"submodule that gives a feature map instead, e.g. feature_layer={example}"
        )
    if not 1 <= number <= len(stages):
        raise UserError(
            f"feature layer {number} does not exist in {type(encoder).__name__}, which has {len(stages)} "
            "known stages; give 1 to 4 or the name of a submodule"
        )
    return stages[number - 1]


@torch.no_grad()
def check_size(encoder: nn.Module, name: str, image_size: int, key: str) -> None:
    """Refuse a size of images that the network does not take, before the first step; costs one inference.

    Args:
        image_size: side in pixels.
        name, key: what the message calls the encoder and the setting of its size.

    Raises:
        UserError: the network does not take such images.
    """
    try:
        with eval_mode(encoder):
            encoder(blank_image(encoder, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"encoder '{name}' does not take images of {key}={image_size} ({first_line(error)}); "
            f"its own size is {plain_info(name, 0).image_size}"
        ) from error


def size_option(name: str, image_size: int | None) -> dict[str, Any]:
    """timm's ``img_size`` for a network that is built for one size, where another is wanted."""
    config = timm.get_pretrained_cfg(name)
    if image_size is None or config is None or not config.fixed_input_size:
        return {}
    if image_size == config.input_size[-1]:
        return {}
    with torch.device("meta"):
        patch = getattr(getattr(timm.create_model(name), "patch_embed", None), "patch_size", (1, 1))[0]
    if image_size % patch:
        raise UserError(
            f"encoder '{name}' cuts images into patches of {patch}x{patch}; data.image_size={image_size} is "
            "no multiple of it"
        )
    return {"img_size": image_size}


def _torchvision_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or ["resnet50"]
        hint = ", ".join(f"torchvision/{other}" for other in close)
        raise UserError(f"encoder 'torchvision/{name}' is unknown; did you mean {hint}?")
    if num_classes < 1:
        raise UserError(
            f"encoder 'torchvision/{name}' cannot be built without a classifier; "
            "give a file that has one, or timm's name of the network"
        )
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)


def _use_cifar_stem(encoder: nn.Module, name: str) -> None:
    old = getattr(encoder, "conv1", None)
    if not isinstance(old, nn.Conv2d) or not hasattr(encoder, "maxpool"):
        raise UserError(
            f"encoder '{name}' has no CIFAR stem (only ResNets with a 7x7 convolution and a max-pool have "
            "one); use encoder.stem=imagenet"
        )
    encoder.conv1 = nn.Conv2d(
        old.in_channels, old.out_channels, kernel_size=3, stride=1, padding=1, bias=False
    )
    nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
    encoder.maxpool = nn.Identity()  # type: ignore[assignment]
