"""Caffe2's ImageNet weights (``ImageNetPretrained/MSRA/R-50.pkl`` and the like), for comparing with
Detectron2's published numbers.

Names, by table (Caffe2 -> Detectron2): ``conv1``, ``res_conv1_bn`` -> ``stem.conv1``, ``stem.conv1.norm``;
``resN_i_branch1`` -> ``resN.i.shortcut``; ``branch2a|b|c`` -> ``conv1|2|3``; ``_w`` -> ``weight``; of
``_bn``: ``s|gamma`` -> ``weight``, ``b|beta`` -> ``bias``, ``rm|running_mean``, ``riv|running_var``. They are
fed BGR: MSRA's ResNets without a deviation and with the stride in the 1×1 convolution, FAIR's ResNeXts with
both as usual.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

CONVS = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
NORMS = {
    "s": "weight",
    "gamma": "weight",
    "b": "bias",
    "beta": "bias",
    "rm": "running_mean",
    "running_mean": "running_mean",
    "riv": "running_var",
    "running_var": "running_var",
}
BGR_MEAN = [103.53, 116.28, 123.675]
MSRA = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": BGR_MEAN,
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
}
FAIR = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": BGR_MEAN,
    "MODEL.PIXEL_STD": [57.375, 57.12, 58.395],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
}
_NAME = re.compile(
    r"(?:(?P<stem>conv1|res_conv1)|(?P<stage>res[2-5])_(?P<block>\d+)_(?P<conv>branch1|branch2[abc]))"
    r"_(?:(?P<weight>w)|bn_(?P<norm>\w+))"
)


def is_caffe2(content: Mapping[str, Any]) -> bool:
    """By what the file says, or by its first names: files of Caffe2 and Detectron 1 are bare dictionaries of
    ``conv1_w`` and so on."""
    return content.get("__author__") == "Caffe2" or "blobs" in content or "conv1_w" in content


def arrays_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The named arrays of such a file, without the optimizer's momenta."""
    inner = next(
        (content[key] for key in ("model", "blobs") if isinstance(content.get(key), Mapping)), content
    )
    return {
        name: value
        for name, value in inner.items()
        if not str(name).endswith("_momentum") and not str(name).startswith("__")
    }


def detectron2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the table above; the classifier (``pred_w``, ``fc1000_w``) is left out, and what is not in the table
    keeps its name."""
    return {
        _detectron2_name(name): value
        for name, value in state.items()
        if not re.match(r"(pred|fc\d*)_[wb]$", name)
    }


def settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """How these weights want to be fed and built, as Detectron2's keys; ``state`` has Detectron2's names."""
    second = state.get("res2.0.conv2.weight")
    grouped = second is not None and second.shape[0] != second.shape[1]
    return FAIR if grouped else MSRA


def _detectron2_name(name: str) -> str:
    found = _NAME.fullmatch(name)
    if found is None or (found["norm"] and found["norm"] not in NORMS):
        return name
    layer = "stem.conv1" if found["stem"] else f"{found['stage']}.{found['block']}.{CONVS[found['conv']]}"
    return f"{layer}.weight" if found["weight"] else f"{layer}.norm.{NORMS[found['norm']]}"
