"""Export to Detectron2: a pickle in the format of its model zoo, and the YAML overlay without which its features are wrong.

Key table (timm, torchvision -> Detectron2): no ``layer`` in the key -> ``stem.``; ``layerN`` -> ``res(N+1)``; ``bnN`` -> ``convN.norm``;
``downsample.0`` -> ``shortcut``; ``downsample.1`` -> ``shortcut.norm``; the classifier and BN's step counters are dropped.

The overlay is not optional: Detectron2's defaults (BGR, standard deviation 1, stride in the 1×1 convolution) load the same file
without a word and compute other features.
"""

from __future__ import annotations

import importlib
import pickle
import re
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from automix_transfer.errors import UserError
from automix_transfer.export.proof import Loaded, module_taps
from automix_transfer.export.source import RESNETS, Source, refuse
from automix_transfer.io import atomic_write, write_text
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.weights import classifier_prefixes

INSTALL = "make setup, or: python detection/install_detectron2.py"
RENAMES = ((r"^(?!layer)", "stem."), (r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}."), (r"\bbn(\d)\.", r"conv\1.norm."),
           (r"\bdownsample\.0\.", "shortcut."), (r"\bdownsample\.1\.", "shortcut.norm."))


def export_detectron2(source: Source, output: Path) -> Loaded:
    """Write ``output`` (.pkl) and its overlay (.yaml), and load both back into the backbones that Detectron2 itself builds.

    Raises:
        UserError: no ResNet with the ImageNet stem, or Detectron2 is not installed (then nothing can be proven).
    """
    if source.resnet is None and not (source.info.name == "resnet10_32" and source.info.stem == "imagenet"):
        raise refuse(source, "detectron2", f"Detectron2 has ResNets with the ImageNet stem only ({', '.join(RESNETS)}, resnet10_32)",
                     "timm or --to safetensors")
    prover = _prover()
    tensors = detectron2_state(source.encoder.state_dict(), classifier_prefixes(source.encoder))
    settings = overlay(source.info, source.resnet)
    about = {"encoder": source.info.to_dict(), "which": source.which, "step": source.step, "source_sha256": source.sha256}
    content = {"model": {key: value.numpy() for key, value in tensors.items()}, "__author__": "automix_transfer",
               "matching_heuristics": True, "automix_transfer": about}
    atomic_write(output, lambda file: pickle.dump(content, file, protocol=4))
    write_text(output.with_suffix(".yaml"), _overlay_text(source, output.name, settings))
    target = prover.load_back(output, output.with_suffix(".yaml"), tensors)
    layers = [(name, "maxpool" if name.startswith("stem") else f"layer{int(name[3]) - 1}") for name in target.layers]
    return Loaded(target.words, target.matched, target.total, module_taps(source.encoder, layers), target.taps,
                  target.notes, target.packages)


def detectron2_state(state: dict[str, Tensor], heads: tuple[str, ...] = ("fc.",)) -> dict[str, Tensor]:
    """A ResNet's state dict with Detectron2's names, float32; the classifier and BN's step counters are left out."""
    result = {}
    for key, value in state.items():
        if key.startswith(heads) or key.endswith("num_batches_tracked"):
            continue
        for pattern, replacement in RENAMES:
            key = re.sub(pattern, replacement, key)  # type: ignore[call-overload]  # a string or a function
        result[key] = value.detach().float().cpu().clone()
    return result


def overlay(info: EncoderInfo, resnet: str | None) -> dict[str, Any]:
    """The settings of Detectron2 under which a backbone computes the encoder's features; mean and deviation in [0, 255], RGB."""
    resnets: dict[str, Any] = {"STRIDE_IN_1X1": False}
    model: dict[str, Any] = {"PIXEL_MEAN": [round(255 * x, 6) for x in info.mean], "PIXEL_STD": [round(255 * x, 6) for x in info.std]}
    if resnet is None:  # resnet10_32; Detectron2's own builder has no depth 10
        model["BACKBONE"] = {"NAME": "build_automix_resnet_fpn_backbone"}
        resnets |= {"DEPTH": 10, "NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": 32}
    else:
        block, _, groups, width = RESNETS[resnet]
        if block == "BasicBlock":
            model["BACKBONE"] = {"NAME": "build_resnet_fpn_backbone"}
        resnets |= {"DEPTH": int(re.search(r"\d+", resnet)[0]), "NUM_GROUPS": groups, "WIDTH_PER_GROUP": width,  # type: ignore[index]
                    "STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": 64 if block == "BasicBlock" else 256}
    return {"MODEL": {**model, "RESNETS": resnets}, "INPUT": {"FORMAT": "RGB"}}


def _overlay_text(source: Source, file: str, settings: dict[str, Any]) -> str:
    lines = [f"Detectron2 settings that belong to {file}: without them its weights load and compute other features.",
             f"Encoder {source.info.name}" + (f", {source.which}" if source.which else "")
             + (f", step {source.step}" if source.step is not None else "") + f"; source sha256 {source.sha256}"]
    if "BACKBONE" in settings["MODEL"]:
        lines.append("FPN only: a C4 head (res5) is made of Bottleneck blocks, and this network has BasicBlocks.")
    return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(settings, sort_keys=False)


def _prover() -> Any:
    """`automix_transfer.detection.proof`, asked for here because only that folder may import Detectron2."""
    try:
        return importlib.import_module("automix_transfer.detection.proof")
    except ImportError as error:
        raise UserError("Detectron2 is not installed or does not import, so an export to it cannot be proven and is not written; "
                        f"install it ({INSTALL})") from error
