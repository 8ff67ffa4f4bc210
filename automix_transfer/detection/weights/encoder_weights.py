"""Encoders of ours (a training checkpoint, a safetensors file, a plain state dict of timm) into a timm
backbone, with proof.

`models.weights` loads the file whole into the complete encoder, or refuses it; what the backbone keeps is
copied from there; and before training the backbone's features have to be those of the encoder, on random
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.detection.networks.timm_backbone import PYRAMID, STRIDES, TimmBackbone, encoder_name
from automix_transfer.errors import UserError, few
from automix_transfer.export.proof import Row, compare, module_taps, proof_sizes
from automix_transfer.io import load_torch
from automix_transfer.models.encoders import EncoderInfo, plain_info
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
    return {
        "MODEL.PIXEL_MEAN": [round(255 * value, 6) for value in info.mean],
        "MODEL.PIXEL_STD": [round(255 * value, 6) for value in info.std],
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
    """Features of both on random images; a training size alone where the encoder takes no other. Runs on the
    CPU, in eval mode."""
    training, device = backbone.training, next(backbone.parameters()).device
    stages: Any = source.feature_info
    modules = {STRIDES[item["reduction"]]: item["module"] for item in stages if item["reduction"] in STRIDES}
    channels = {name: shape.channels for name, shape in backbone.output_shape().items()}
    layers = [(name, modules[name]) for name in channels]
    taps = module_taps(source.eval(), layers)
    # Sides of a whole number of cells of the coarsest map: a detector pads its images to that.
    sizes = {(n, _whole(height), _whole(width)) for n, height, width in proof_sizes(source, info.image_size)}
    backbone.cpu().eval()
    try:
        return compare(
            lambda images: {
                name: _channels_first(value, channels[name]) for name, value in taps(images).items()
            },
            lambda images: {name: backbone.features(images)[name] for name, _ in layers},
            sorted(sizes),
            subject=f"the detector's backbone timm/{info.name}",
            outcome="nothing was trained",
        )
    finally:
        backbone.to(device).train(training)


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


def _channels_first(value: Tensor, channels: int) -> Tensor:
    """Swin's stages give (N, H, W, C)."""
    return value.permute(0, 3, 1, 2) if value.shape[1] != channels and value.shape[-1] == channels else value
