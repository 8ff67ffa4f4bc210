"""Our encoders as timm knows networks: what it says of their weights, and a name to build them by.

timm's tools take everything about a network's input from its ``pretrained_cfg``; `describe` says there what
is true of ours. Importing this module registers `ARCHITECTURE` with timm, so that ``timm.create_model`` opens
exported folders of networks that timm itself does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from timm.models import PretrainedCfg, build_model_with_cfg, register_model
from torch import nn

from automix_transfer.models.classifier import classifier_prefixes
from automix_transfer.models.encoders import EncoderInfo, create_encoder

# timm's and torchvision's ResNet family: (torchvision's block, blocks a stage, groups, width a group). The
# keys are the same in both.
RESNETS: dict[str, tuple[str, tuple[int, ...], int, int]] = {
    "resnet18": ("BasicBlock", (2, 2, 2, 2), 1, 64),
    "resnet34": ("BasicBlock", (3, 4, 6, 3), 1, 64),
    "resnet50": ("Bottleneck", (3, 4, 6, 3), 1, 64),
    "resnet101": ("Bottleneck", (3, 4, 23, 3), 1, 64),
    "resnet152": ("Bottleneck", (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": ("Bottleneck", (3, 4, 6, 3), 32, 4),
    "resnext101_32x4d": ("Bottleneck", (3, 4, 23, 3), 32, 4),
    "resnext101_32x8d": ("Bottleneck", (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": ("Bottleneck", (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": ("Bottleneck", (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": ("Bottleneck", (3, 4, 23, 3), 1, 128),
}
#: The architecture in ``config.json`` of networks that timm cannot build. To timm it is a name and a tag;
#: where nothing was imported, its refusal, "Unknown model (automix_transfer.models)", says what to import.
ARCHITECTURE = "automix_transfer.models"


def describe(encoder: nn.Module, info: EncoderInfo) -> None:
    """Say in timm's ``pretrained_cfg`` of ``encoder`` what ``info`` knows, in place of timm's own weights."""
    known = getattr(encoder, "pretrained_cfg", None) or {}
    heads = classifier_prefixes(encoder)
    weights = [key.removesuffix("weight") for key in encoder.state_dict() if key.endswith(".weight")]
    last = next((key[:-1] for key in reversed(weights) if key.startswith(heads)), None)
    size, test = info.image_size, info.test_size or info.image_size
    name, arguments = architecture(info)
    config = PretrainedCfg(
        architecture=name,
        input_size=(3, size, size),
        test_input_size=(3, test, test) if test != size else None,
        fixed_input_size=known.get("fixed_input_size", False),
        interpolation=info.interpolation or "bilinear",
        crop_pct=crop_pct(info, size),
        test_crop_pct=crop_pct(info, test) if test != size else None,
        crop_mode=info.test_crop or "center",
        mean=tuple(info.mean),
        std=tuple(info.std),
        num_classes=info.num_classes,
        label_names=info.class_names or None,  # type: ignore[arg-type]  # timm means any number
        pool_size=known.get("pool_size") if known.get("input_size") == (3, size, size) else None,
        first_conv=known.get("first_conv", weights[0][:-1]),
        classifier=known.get("classifier") or last,
    )
    encoder.pretrained_cfg = encoder.default_cfg = config.to_dict()  # type: ignore[assignment]  # timm's form
    encoder.num_classes = info.num_classes  # type: ignore[assignment]
    # what timm's push_to_hf_hub writes of how the network is built
    encoder._model_args = {**getattr(encoder, "_model_args", {}), **arguments}  # type: ignore[assignment]


def architecture(info: EncoderInfo) -> tuple[str, dict[str, Any]]:
    """timm's name of a network, and the arguments that it is built with besides."""
    name = timm_name(info)
    return (name, {}) if name else (ARCHITECTURE, {"encoder": info.name, "stem": info.stem})


def timm_name(info: EncoderInfo) -> str | None:
    """The name by which timm itself builds a network with the same keys; None where it has none."""
    name = info.name.split(".")[0]  # timm's tags (resnet50.a1_in1k) name weights, not networks
    bare = name.removeprefix("torchvision/")
    name = bare if bare in RESNETS else name
    return (
        name
        if info.stem == "imagenet" and timm.is_model(name) and name != automix_transfer.__name__
        else None
    )


def crop_pct(info: EncoderInfo, size: int) -> float:
    """timm's share of the resized image that is cut out at ``size``, by which it rounds to the same pixels.

    timm takes the whole part of size / share where our transform takes the nearest number.
    """
    if info.test_crop == "squash":
        return 1.0
    resized = round(size / info.crop_ratio)
    return info.crop_ratio if int(size / info.crop_ratio) == resized else size / (resized + 0.25)


@register_model
def automix_transfer(pretrained: bool = False, **options: Any) -> nn.Module:
    """An encoder for ``timm.create_model``; ``encoder`` and ``stem`` are those of `create_encoder`."""
    return build_model_with_cfg(_build, ARCHITECTURE, pretrained, **options)


def _build(
    encoder: str = "",
    stem: str = "imagenet",
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    size = img_size if isinstance(img_size, int) or img_size is None else img_size[-1]
    channels = {} if in_chans == 3 else {"in_chans": in_chans}
    network = create_encoder(encoder, num_classes, stem, size, **channels, **options)
    network.num_classes = num_classes  # type: ignore[assignment]  # as timm's networks say it
    return network
