"""Encoders (a training checkpoint of ours, a safetensors file, a plain state dict of timm) into a timm
backbone, with proof.

`models.weights` loads the file whole into the complete encoder, or refuses it; what the backbone keeps is
copied from there; and before training the backbone's features have to be those of the encoder, on random
images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.detection.networks.timm_backbone import (
    PATCH,
    PYRAMID,
    STRIDES,
    TimmBackbone,
    encoder_name,
    is_transformer,
)
from automix_transfer.errors import UserError, few
from automix_transfer.export.proof import Row, Taps, compare, module_taps, proof_sizes
from automix_transfer.io import load_torch
from automix_transfer.models.encoders import EncoderInfo, plain_info, size_option
from automix_transfer.models.weights import rebuild
from automix_transfer.models.weights_file import read_weights


def is_encoder_file(path: str | Path) -> bool:
    """Does a file hold an encoder, rather than a whole detector or a ResNet in Detectron2's names?"""
    path = Path(path)
    if path.suffix == ".safetensors":
        return True
    if path.suffix not in (".pt", ".pth") or not path.is_file():
        return False
    content = load_torch(path)
    model = content.get("model", content) if isinstance(content, Mapping) else {}
    return not any(str(key).startswith(("backbone.bottom_up.", "proposal_generator.")) for key in model)


def input_settings(path: str | Path, backbone: str) -> dict[str, Any]:
    """How the encoder in ``path`` is fed, as Detectron2's keys: mean and deviation in [0, 255], RGB.

    Raises:
        UserError: an unreadable file, or one that holds another encoder than ``backbone`` names.
    """
    info = read_weights(path).info or plain_info(_bare(encoder_name(backbone) or ""), 0)
    _check_encoder(path, info, backbone)
    return settings_of(info)


def settings_of(info: EncoderInfo) -> dict[str, Any]:
    """How an encoder is fed and built, as Detectron2's keys and those of `TIMM`."""
    size = size_option(_bare(info.name), info.image_size).get("img_size", 0)
    return {
        "MODEL.PIXEL_MEAN": [round(255 * value, 6) for value in info.mean],
        "MODEL.PIXEL_STD": [round(255 * value, 6) for value in info.std],
        **({"MODEL.TIMM.IMAGE_SIZE": size} if size else {}),
        "INPUT.FORMAT": "RGB",
    }


def load_encoder_into(backbone: TimmBackbone, name: str, path: str | Path) -> tuple[int, tuple[Row, ...]]:
    """Copy the encoder in ``path`` into ``backbone``, in place; returns the number of its keys and the proof.

    Args:
        name: the config's ``MODEL.BACKBONE.NAME``, for messages and for files that do not say which encoder
            they hold.

    Raises:
        UserError: the file does not fit, key for key, or the features differ.
    """
    weights = read_weights(path)
    if weights.info is not None:
        _check_encoder(path, weights.info, name)
    source, info, _ = rebuild(weights, weights.info.name if weights.info else _bare(encoder_name(name) or ""))
    held, target = source.state_dict(), backbone.encoder.state_dict()
    odd = [key for key, value in target.items() if key not in held or held[key].shape != value.shape]
    if odd:
        raise UserError(
            f"{path} does not fit MODEL.BACKBONE.NAME {name}: {len(odd)} of {len(target)} keys of the "
            f"backbone are not in it or have another shape ({few(odd)})"
        )
    with torch.no_grad():
        for key, value in target.items():
            value.copy_(held[key])
    return len(target), prove(backbone, source, info)


def prove(backbone: TimmBackbone, source: nn.Module, info: EncoderInfo) -> tuple[Row, ...]:
    """Features of both on random images, of `sizes_of`. Runs on the CPU, in eval mode."""
    training, device = backbone.training, next(backbone.parameters()).device
    names = list(backbone.output_shape())
    backbone.cpu().eval()
    try:
        return compare(
            maps_of(source.eval(), names),
            lambda images: {name: backbone.features(images)[name] for name in names},
            sizes_of(source, info),
            subject=f"the detector's backbone timm/{info.name}",
            outcome="nothing was trained",
        )
    finally:
        backbone.to(device).train(training)


def maps_of(source: nn.Module, names: Iterable[str]) -> Taps:
    """Images -> the maps (N, C, H, W) of a whole encoder of timm by their names here.

    A plain transformer is built anew for images of another size, by timm, which interpolates its positions
    once; the detector's backbone does it for each image.

    Raises:
        UserError: timm names layers that the encoder does not have.
    """
    stages: Any = source.feature_info
    found = {STRIDES[item["reduction"]]: item for item in stages if item["reduction"] in STRIDES}
    layers = [(name, found[name]["module"]) for name in names]
    present = dict(source.named_modules())
    if unknown := [layer for _, layer in layers if layer not in present]:
        raise UserError(
            f"timm names {unknown[0]} as a feature map of {type(source).__name__}, which has no such layer, "
            "so weights in a detector cannot be proven; take another encoder, e.g. convnext_tiny"
        )
    own = getattr(getattr(source, "patch_embed", None), "img_size", None)

    def run(images: Tensor) -> dict[str, Tensor]:
        network: Any = source
        size = tuple(images.shape[-2:])
        if own is not None and size != tuple(own) and hasattr(source, "pos_embed"):
            network = copy.deepcopy(source)
            network.set_input_size(img_size=size)
        maps = module_taps(network, layers)(images)
        return {name: _map(value, network) for name, value in maps.items()}

    return run


def sizes_of(source: nn.Module, info: EncoderInfo) -> tuple[tuple[int, int, int], ...]:
    """(N, H, W) of the images that are compared: of whole cells of the coarsest map, to which a detector pads
    its images; the training size alone where an encoder takes no other, as Swin."""
    sizes = {(n, _whole(height), _whole(width)) for n, height, width in proof_sizes(source, info.image_size)}
    if is_transformer(info.name):
        side = info.image_size // PATCH * PATCH
        sizes = {(2, side, side), (1, side + 2 * PATCH, side + PATCH)}
    return tuple(sorted(sizes))


def _check_encoder(path: str | Path, info: EncoderInfo, backbone: str) -> None:
    wanted = _bare(encoder_name(backbone) or "")
    if _bare(info.name) != wanted:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {backbone}, but {path} holds encoder '{info.name}'; "
            f"set MODEL.BACKBONE.NAME {PYRAMID}{_bare(info.name)}, or take other weights"
        )
    if info.stem != "imagenet":
        raise UserError(
            f"{path} holds encoder '{info.name}' with the {info.stem} stem, for small images; a detector "
            "needs one that was trained with encoder.stem=imagenet"
        )


def _bare(name: str) -> str:
    return name.split(".")[0]


def _whole(side: int) -> int:
    return max(32, side // 32 * 32)


def _map(value: Tensor, network: Any) -> Tensor:
    """(N, C, H, W) of tokens (N, T, C), and of Swin's (N, H, W, C)."""
    if value.ndim == 3:
        value = value[:, network.num_prefix_tokens :].unflatten(1, network.patch_embed.grid_size)
    elif getattr(network, "output_fmt", "") != "NHWC":
        return value
    return value.permute(0, 3, 1, 2)
