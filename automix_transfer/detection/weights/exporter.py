"""Export to Detectron2: a pickle in the format of its model zoo, and the YAML overlay without which its
features are wrong.

Key table (timm, torchvision -> Detectron2): no ``layer`` in the key -> ``stem.``; ``layerN`` -> ``res(N+1)``;
``bnN`` -> ``convN.norm``; ``downsample.0`` -> ``shortcut``; ``downsample.1`` -> ``shortcut.norm``; the
classifier and BN's step counters are dropped. Other networks of timm keep timm's names, with ``encoder.``
before them, and go into the backbone ``timm_fpn/NAME``; what lies behind its last feature map is dropped.

The overlay is not optional: Detectron2's defaults (BGR, standard deviation 1, stride in the 1×1 convolution)
load the same file without a word and compute other features.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from automix_transfer import export
from automix_transfer.detection import compatibility
from automix_transfer.errors import UserError
from automix_transfer.export.proof import Loaded, Taps, module_taps
from automix_transfer.export.source import RESNETS, Source, refuse
from automix_transfer.io import atomic_write, write_text
from automix_transfer.models.classifier import classifier_prefixes
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.timm_names import timm_name

INSTALL = "automix-transfer install-detectron2"
# how an overlay begins; what begins otherwise is not ours to replace
OVERLAY_MARK = "# Detectron2 settings that belong to "
RENAMES = (
    (r"^(?!layer)", "stem."),
    (r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)


def export_detectron2(source: Source, output: Path) -> Loaded:
    """Write ``output`` (.pkl) and its overlay (.yaml), and load both back into Detectron2's own backbones; an
    encoder that is none of its ResNets, into `TimmBackbone`.

    Raises:
        UserError: an encoder that makes no detector, or no Detectron2, without which nothing can be proven.
    """
    settings = overlay_of(source)
    if not compatibility.available():
        raise UserError(
            "Detectron2 is not installed or does not import, so an export to it cannot be proven and is not "
            f"written; install it ({INSTALL})"
        )
    export = _export_resnet if _is_resnet(source) else _export_timm
    return export(source, output, settings)


def _is_resnet(source: Source) -> bool:
    return source.resnet is not None or (source.info.name, source.info.stem) == ("resnet10_32", "imagenet")


def overlay_of(source: Source) -> dict[str, Any]:
    """The settings of Detectron2 that an export of ``source`` asks for.

    Raises:
        UserError: an encoder that makes no detector.
    """
    if _is_resnet(source):
        return overlay(source.info, _tensors_of(source))
    if timm_name(source.info) is None:
        known = ", ".join([*RESNETS, "resnet10_32"])
        reason = f"a detector takes ResNets with the ImageNet stem ({known}) and networks of timm"
        raise refuse(source, "detectron2", reason, "safetensors")
    from automix_transfer.detection.networks.timm_backbone import features_of

    try:
        features_of(source.info.name.split(".")[0])
    except UserError as error:
        raise refuse(source, "detectron2", str(error), "safetensors") from error
    return timm_overlay(source.info)


def timm_overlay(info: EncoderInfo) -> dict[str, Any]:
    """The same for a network of timm."""
    from automix_transfer.detection.networks.timm_backbone import PYRAMID
    from automix_transfer.detection.weights.encoder_weights import settings_of

    return _nested({"MODEL.BACKBONE.NAME": f"{PYRAMID}{info.name.split('.')[0]}", **settings_of(info)})


def _tensors_of(source: Source) -> dict[str, Tensor]:
    return detectron2_state(source.encoder.state_dict(), classifier_prefixes(source.encoder))


def _export_resnet(source: Source, output: Path, settings: dict[str, Any]) -> Loaded:
    from automix_transfer.detection.weights import proof as prover

    tensors = _tensors_of(source)
    _write(source, output, tensors, settings)
    loaded = prover.load_back(output, output.with_suffix(".yaml"), tensors)
    layers = [(name, "maxpool" if name == "stem" else f"layer{int(name[3]) - 1}") for name in prover.LAYERS]
    return _loaded(source, loaded, module_taps(source.encoder, layers))


def _export_timm(source: Source, output: Path, settings: dict[str, Any]) -> Loaded:
    from automix_transfer.detection.networks.timm_backbone import TimmBackbone, features_of
    from automix_transfer.detection.weights import encoder_weights
    from automix_transfer.detection.weights import proof as prover

    name = source.info.name.split(".")[0]
    features = features_of(name)
    with torch.device("meta"):
        kept = TimmBackbone(name, features).encoder.state_dict()
    tensors = {
        f"encoder.{key}": value.detach().float().cpu().clone()
        for key, value in source.encoder.state_dict().items()
        if key in kept and not key.endswith("num_batches_tracked")
    }
    _write(source, output, tensors, settings)
    loaded = prover.load_encoder_back(output, output.with_suffix(".yaml"), tensors)
    maps, sizes = encoder_weights.maps_of(source.encoder, features), encoder_weights.sizes_of
    return replace(_loaded(source, loaded, maps), sizes=sizes(source.encoder, source.info))


def _write(source: Source, output: Path, tensors: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """The file and its overlay."""
    about = {
        "encoder": source.info.to_dict(),
        "which": source.which,
        "step": source.step,
        "source_sha256": source.sha256,
    }
    content = {
        "model": {key: value.numpy() for key, value in tensors.items()},
        "__author__": "automix_transfer",
        "matching_heuristics": True,
        "automix_transfer": about,
    }
    atomic_write(output, lambda file: pickle.dump(content, file, protocol=4))
    write_text(output.with_suffix(".yaml"), _overlay_text(source, output.name, settings))


def _loaded(source: Source, loaded: tuple[str, int, int, Taps], features: Taps) -> Loaded:
    """What is compared: normalised pixels, and features."""
    from automix_transfer.detection.weights import proof as prover

    words, matched, total, taps = loaded
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (source.info.mean, source.info.std))
    return Loaded(
        words,
        matched,
        total,
        lambda images: {"pixels": (prover.as_pixels(images) / 255 - mean) / std, **features(images)},
        taps,
        packages=("detectron2", "fvcore"),
    )


def detectron2_state(state: dict[str, Tensor], heads: tuple[str, ...] = ("fc.",)) -> dict[str, Tensor]:
    """A ResNet's state dict with Detectron2's names, float32; the classifier and BN's step counters are left
    out."""
    return {
        detectron2_name(key): value.detach().float().cpu().clone()
        for key, value in state.items()
        if not key.startswith(heads) and not key.endswith("num_batches_tracked")
    }


def detectron2_name(key: str) -> str:
    """``layer1.0.bn1.weight`` -> ``res2.0.conv1.norm.weight``, by the key table above."""
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)  # type: ignore[call-overload]  # a string or a function
    return key


def overlay(info: EncoderInfo, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The settings of Detectron2 under which a backbone computes the encoder's features; mean and deviation
    in [0, 255], RGB.

    Widths are read from ``tensors``, which have Detectron2's names; depth counts the convolutions and the
    classifier, as the names do.
    """
    bottleneck = "res2.0.conv3.weight" in tensors
    first = tensors["res2.0.conv2.weight"]  # (width, width / groups, 3, 3), the grouped one in a bottleneck
    blocks = sum(key.startswith("res") and key.endswith(".conv1.weight") for key in tensors)
    depth = blocks * (3 if bottleneck else 2) + 2
    groups = first.shape[0] // first.shape[1]
    model: dict[str, Any] = {
        "PIXEL_MEAN": [round(255 * x, 6) for x in info.mean],
        "PIXEL_STD": [round(255 * x, 6) for x in info.std],
    }
    if not bottleneck:
        model["BACKBONE"] = {
            "NAME": "build_resnet_fpn_backbone" if depth in (18, 34) else "build_automix_resnet_fpn_backbone"
        }
    model["RESNETS"] = {
        "DEPTH": depth,
        "NUM_GROUPS": groups,
        "WIDTH_PER_GROUP": first.shape[0] // groups,
        "STRIDE_IN_1X1": False,
        "STEM_OUT_CHANNELS": tensors["stem.conv1.weight"].shape[0],
        "RES2_OUT_CHANNELS": tensors[f"res2.0.conv{3 if bottleneck else 2}.weight"].shape[0],
    }
    return {"VERSION": 2, "MODEL": model, "INPUT": {"FORMAT": "RGB"}}


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """An overlay of dotted keys."""
    tree: dict[str, Any] = {"VERSION": 2}
    for key, value in flat.items():
        *above, name = key.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[name] = value
    return tree


def _overlay_text(source: Source, file: str, settings: dict[str, Any]) -> str:
    about = f"Encoder {source.info.name}" + (f", {source.which}" if source.which else "")
    about += "" if source.step is None else f", step {source.step}"
    lines = [f"{about}; source sha256 {source.sha256}"]
    backbone = settings["MODEL"].get("BACKBONE", {}).get("NAME", "")
    if "/" in backbone:
        from automix_transfer.detection.networks.fitting import recipes_for

        lines += [
            f"For recipe {recipes_for(backbone)}.",
            "Detectron2 knows this backbone after import automix_transfer.detection.",
        ]
    elif backbone:
        lines += [
            "A network of basic blocks: for FPN. Detectron2's own C4 heads build res5 of bottlenecks, into",
            "which these weights load in part and by shape; a C4 detector needs MODEL.ROI_HEADS.NAME",
            "BasicRes5ROIHeadsExtraNorm and MODEL.BACKBONE.NAME build_automix_resnet_backbone, both of",
            "automix_transfer.detection.",
        ]
    head = f"{OVERLAY_MARK}{file}: without them its weights load and compute other features.\n"
    return head + "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(settings, sort_keys=False)


def is_overlay(path: Path) -> bool:
    """Whether ``path`` is an overlay that an export wrote, by its first line."""
    try:
        with path.open("rb") as file:
            return file.readline(len(OVERLAY_MARK)) == OVERLAY_MARK.encode()
    except OSError:
        return False


#: every kind of export
EXPORTERS = {
    **export.EXPORTERS,
    "detectron2": export.Exporter(export_detectron2, ".pkl", (".yaml",), is_overlay),
}
