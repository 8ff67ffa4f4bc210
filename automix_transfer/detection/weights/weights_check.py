"""Weights into a detector: every key of the backbone, or an error before training starts.

Detectron2 matches names by suffix, skips what does not fit with a warning, and trains the rest from scratch.
Here a backbone file (``.pkl``, the format of Detectron2's model zoo) has to fill the backbone and a C4
detector's res5 completely and has to be used completely; an encoder (a checkpoint or safetensors file of
ours, timm's state dict) has to fill a timm backbone, and so has a backbone file of one; a detector
(``model_final.pth``) has to fill the whole detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automix_transfer.detection.networks.timm_backbone import TimmBackbone
from automix_transfer.detection.weights import caffe2_weights
from automix_transfer.detection.weights.encoder_weights import is_encoder_file, load_encoder_into
from automix_transfer.errors import UserError, few
from automix_transfer.io import load_arrays, load_torch

# left in the file by some converters; a detector has no use for it
CLASSIFIERS = ("fc.", "stem.fc.", "linear.")
PREFIXES = ("module.", "backbone.", "encoder.", "model.", "module.encoder_k.", "module.encoder_q.")
EXPORT = "automix-transfer export --to detectron2"


@dataclass(frozen=True)
class LoadReport:
    """What a load did: ``matched`` of the ``total`` keys of ``part`` came from ``source``; ``note`` says what
    else is to be known.

    ``iterations`` are those that a detector was trained for, where its file says so.
    """

    source: str
    part: str
    matched: int
    total: int
    note: str = ""
    iterations: int | None = None

    def __str__(self) -> str:
        keys = f"{self.total} keys of the {self.part}"
        if not self.source:
            return f"MODEL.WEIGHTS is empty: training from scratch, all {keys} are random"
        note = f" ({self.note})" if self.note else ""
        return f"{self.source}: {self.matched} of {keys} loaded{note}"


def load_weights(model: nn.Module, path: str, backbone: str = "") -> LoadReport:
    """Copy the file ``path`` into ``model``, a Detectron2 R-CNN, in place; an empty path leaves it as it is.

    Args:
        backbone: the config's ``MODEL.BACKBONE.NAME``, which a timm backbone needs.

    Raises:
        UserError: a file that is missing, damaged, hostile or of another kind, or does not fill the backbone
            key for key.
    """
    if not path:
        return LoadReport("", "backbone", 0, len(backbone_keys(model)))
    file = Path(path)
    if not file.is_file():
        raise UserError(
            f"MODEL.WEIGHTS {path} does not exist or is not a file; make one with {EXPORT} --output FILE.pkl"
        )
    timm_backbone = next((module for module in model.modules() if isinstance(module, TimmBackbone)), None)
    if timm_backbone is not None and is_encoder_file(file):
        return _load_encoder(timm_backbone, backbone, file)
    if file.suffix == ".pkl":
        return _load_backbone(model, file, backbone if timm_backbone is not None else "")
    if file.suffix in (".pth", ".pt"):
        return _load_detector(model, file)
    if timm_backbone is not None:
        raise _not_for(file, backbone)
    if file.suffix == ".safetensors":
        raise UserError(
            f"MODEL.WEIGHTS {path} holds an encoder in timm's names; export it ({EXPORT} --checkpoint {path} "
            "--output FILE.pkl), or take MODEL.BACKBONE.NAME timm_fpn/NAME"
        )
    raise UserError(
        f"MODEL.WEIGHTS {path} ends in '{file.suffix}', but a detector takes a backbone .pkl ({EXPORT}) or a "
        "detector .pth"
    )


def _not_for(path: Path, backbone: str) -> UserError:
    return UserError(
        f"MODEL.WEIGHTS {path} does not go into MODEL.BACKBONE.NAME {backbone}, which takes an encoder: a "
        f"training checkpoint (.pt), an export of its network ({EXPORT}, or to safetensors), or a state dict "
        "of timm (.pth)"
    )


def backbone_keys(model: nn.Module) -> dict[str, str]:
    """Name in a backbone file -> key in the detector, for the ResNet's stem to res5, wherever they are in it.

    (Of a timm backbone: the encoder's keys, with ``encoder.`` before them.)
    """
    state = model.state_dict()
    pyramid = any(key.startswith("backbone.bottom_up.") for key in state)
    bottom_up = "backbone.bottom_up." if pyramid else "backbone."
    keys = {}
    for key in state:
        # the extra norm is new at transfer
        if key.endswith("num_batches_tracked") or key.startswith("roi_heads.res5.norm."):
            continue
        if key.startswith(bottom_up) and ".out_norms." not in key:  # new at transfer, too
            keys[key.removeprefix(bottom_up)] = key
        elif key.startswith("roi_heads.res5."):
            keys[key.removeprefix("roi_heads.")] = key
    return keys


def read_backbone(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.pkl`` in the format of Detectron2's model zoo, read without running code.

    Raises:
        UserError: not such a file, or a pickle that asks for more than arrays.
    """
    path = Path(path)
    content = load_arrays(path, f"export the weights with {EXPORT}")
    caffe2 = isinstance(content, Mapping) and caffe2_weights.is_caffe2(content)
    model = (
        caffe2_weights.arrays_of(content)
        if caffe2
        else content.get("model")
        if isinstance(content, Mapping)
        else None
    )
    if (
        not isinstance(model, Mapping)
        or not model
        or not all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in model.items())
    ):
        raise UserError(
            f"{path} is not in Detectron2's format ({{'model': {{name: array}}, '__author__': ...}}); make "
            f"one with {EXPORT}"
        )
    if content.get("__author__") == "automix_transfer" and not path.with_suffix(".yaml").is_file():
        raise UserError(
            f"{path}: its overlay {path.with_suffix('.yaml').name} does not lie beside it, so how to feed it "
            "is unknown; copy both files of the export"
        )
    try:
        state = {
            name: torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
            for name, value in model.items()
        }
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds arrays that are no numbers ({error}); export the weights again ({EXPORT})"
        ) from error
    if caffe2:
        state = caffe2_weights.detectron2_names(state)
    broken = [name for name, value in state.items() if not torch.isfinite(value.float()).all()]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} tensors hold NaN or infinite values ({few(broken)}); "
            "export a checkpoint from before it diverged"
        )
    return state


def implied_settings(path: str | Path) -> dict[str, Any]:
    """What Detectron2's keys have to be for a ``.pkl`` without an overlay: those of Caffe2's weights; {} for
    weights of the usual kind."""
    if Path(path).suffix != ".pkl" or not Path(path).is_file():
        return {}
    content = load_arrays(path, f"export the weights with {EXPORT}")
    if not isinstance(content, Mapping) or not caffe2_weights.is_caffe2(content):
        return {}
    return caffe2_weights.settings(read_backbone(path))


def _load_backbone(model: nn.Module, path: Path, timm_backbone: str) -> LoadReport:
    held = read_backbone(path)
    if timm_backbone and not any(name.startswith("encoder.") for name in held):
        raise _not_for(path, timm_backbone)
    classifier = [name for name in held if name.startswith(CLASSIFIERS)]
    source = {
        name: value
        for name, value in held.items()
        if not name.endswith("num_batches_tracked") and name not in classifier
    }
    keys, state = backbone_keys(model), model.state_dict()
    wanted = {name: state[key] for name, key in keys.items()}
    problems, shapes = _differences(source, wanted)
    if problems:
        matched = sum(name in source and source[name].shape == value.shape for name, value in wanted.items())
        raise UserError(
            f"{path} does not fit the backbone of this config: {matched} of {len(wanted)} keys match, "
            f"{problems}. {_remedy(source, shapes)}"
        )
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(source[name])
    part = "backbone and res5" if any(key.startswith("roi_heads.") for key in keys.values()) else "backbone"
    note = f"classifier left out: {few(classifier)}" if classifier else ""
    return LoadReport(str(path), part, len(wanted), len(wanted), note)


def _differences(source: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, bool]:
    """What keeps a file from filling a model, "" if nothing does; and whether it is shapes."""
    shapes = [
        f"{name}: {tuple(source[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in source and source[name].shape != value.shape
    ]
    found = {
        "are missing": [name for name in wanted if name not in source],
        "have another shape": shapes,
        "of the file have no place": [name for name in source if name not in wanted],
    }
    parts = [f"{len(names)} {what} ({few(names)})" for what, names in found.items() if names]
    return "; ".join(parts), bool(shapes)


def _load_encoder(backbone: TimmBackbone, name: str, path: Path) -> LoadReport:
    count, rows = load_encoder_into(backbone, name, path)
    note = f"features equal to the encoder's, largest difference {max(row.difference for row in rows):.3g}"
    if backbone.out_norms:
        note += f"; {len(backbone.out_norms)} output norms are new"
    return LoadReport(str(path), "backbone", count, count, note)


def _load_detector(model: nn.Module, path: Path) -> LoadReport:
    content = load_torch(path)
    source = content.get("model", content) if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and "encoders" in content:
        raise UserError(
            f"{path} is a pretraining checkpoint, not a detector; "
            f"export it first: {EXPORT} --checkpoint {path} --output FILE.pkl"
        )
    if not isinstance(source, Mapping) or not any(str(key).startswith("backbone.") for key in source):
        raise UserError(
            f"{path} does not hold a detector (no key starts with 'backbone.'); if it is a classifier's "
            f"state dict, export it first: {EXPORT} --checkpoint {path} --encoder NAME --output FILE.pkl"
        )
    # from the config, and a counter that inference does not use
    ignored = ("pixel_mean", "pixel_std", "num_batches_tracked")

    def kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = (key for key in state if not key.endswith(ignored) and "anchor_generator.cell" not in key)
        return {key: state[key] for key in names}

    target = model.state_dict()
    problems, _ = _differences(kept(source), kept(target))
    if problems:
        raise UserError(
            f"{path} is not a detector of this config: {problems}; use the config.yaml that lies beside it, "
            "and the same classes"
        )
    model.load_state_dict({key: value for key, value in source.items() if key in target}, strict=False)
    last = content.get("iteration")
    iterations = last + 1 if isinstance(last, int) else None
    return LoadReport(str(path), "detector", len(target), len(target), iterations=iterations)


def _remedy(source: Mapping[str, Tensor], shapes: bool) -> str:
    for prefix in sorted(PREFIXES, key=len, reverse=True):
        if count := sum(name.startswith(prefix) for name in source):
            return (
                f"{count} of its {len(source)} names start with '{prefix}': export it with {EXPORT}, which "
                "gives the names that Detectron2 wants"
            )
    if any(name.startswith(("layer", "conv1.", "bn1.")) for name in source):
        return f"Its names are torchvision's: export it with {EXPORT}"
    if shapes:
        return (
            "Its depth, width or groups are others: set DEPTH, NUM_GROUPS and WIDTH_PER_GROUP of "
            "MODEL.RESNETS to those of the weights"
        )
    return "It is of another architecture: take the config for it (MODEL.RESNETS.DEPTH, MODEL.BACKBONE.NAME)"
