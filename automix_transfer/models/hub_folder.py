"""Folders as timm's models on the Hugging Face hub: ``config.json`` and a file of weights.

`read_folder` reads ours and those of others in every layout that timm reads: ``pretrained_cfg`` as a field
or, in old ones, as the whole file; class names as a list or by number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg

from automix_transfer.errors import UserError, few
from automix_transfer.io import read_json
from automix_transfer.models.encoders import STEMS, EncoderInfo
from automix_transfer.models.timm_names import ARCHITECTURE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: in the order in which timm takes them
WEIGHTS_NAMES = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")
SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".bin")
#: arguments of a network that leave it as it is, or that other fields say, too; ``global_pool`` is looked at
HARMLESS = {
    "encoder",
    "stem",
    "num_classes",
    "img_size",
    "dynamic_img_size",
    "strict_img_size",
    "global_pool",
}
MOST_PIXELS, MOST_CLASSES, MOST_VALUE = 2048, 10_000_000, 1e6
MOST_BYTES = 1 << 24  # of `CONFIG`; the names of ImageNet-22k's classes take one and a half million


def read_folder(folder: Path) -> tuple[Path, EncoderInfo]:
    """The file of weights in ``folder``, and the encoder that its ``config.json`` describes.

    Raises:
        UserError: no such folder, or one of another library; a field that makes no sense, or an argument of
            the network that is not known here.
    """
    config = folder / CONFIG
    if not config.is_file():
        runs = next((name for name in ("last.pt", "best.pt") if (folder / name).is_file()), None)
        remedy = (
            f"give {folder / runs}"
            if runs
            else "give a file, or a folder of timm's from the Hugging Face hub"
        )
        raise UserError(f"{folder} is a folder without {CONFIG}; {remedy}")
    content = read_json(config, MOST_BYTES)
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        others = content if isinstance(content, dict) else {}
        kind = others.get("architectures") or others.get("model_type") or others.get("_class_name")
        whose = f" and is of another library's network ({str(kind)[:80]})" if kind else ""
        raise UserError(
            f"{config} has no field 'architecture'{whose}; give a folder of timm's, or its state dict"
        )
    info = _Config(config, content).info()
    found = (path.name for end in SUFFIXES for path in sorted(folder.glob(f"*{end}")))
    file = next((folder / name for name in (*WEIGHTS_NAMES, *found) if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder} has no file of weights, e.g. {WEIGHTS}; copy it again whole")
    return file, info


class _Config:
    """``config.json``, field by field; a `UserError` names the one that makes no sense."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self.file = file
        below = content.get("pretrained_cfg", {})
        self.args = self._checked(
            "model_args", content.get("model_args") or {}, lambda v: isinstance(v, dict)
        )
        self._checked("pretrained_cfg", below, lambda v: isinstance(v, dict))
        # What stands above wins, as in timm. Its defaults are those of timm.
        self.fields = {**vars(PretrainedCfg()), **below, **content}
        if "pretrained_cfg" in content:  # of the whole file, only these describe the weights
            above = ("architecture", "num_classes", "label_names")
            self.fields |= {
                **vars(PretrainedCfg()),
                **below,
                **{k: content[k] for k in above if k in content},
            }

    def info(self) -> EncoderInfo:
        """The encoder that is described."""
        name, stem = self._network()
        classes = self._take("num_classes", lambda v: type(v) is int and 0 <= v <= MOST_CLASSES)
        test = self.fields.get("test_input_size")
        return EncoderInfo(
            name,
            classes,
            stem,
            self._side(),
            self._channels("mean"),
            self._channels("std"),
            self._class_names(classes),
            self._size("test_input_size")[-1] if test else None,
            self._take("test_crop_pct" if test and self.fields.get("test_crop_pct") else "crop_pct", _share),
            self._take("crop_mode", lambda v: isinstance(v, str)),
            self._take("interpolation", lambda v: isinstance(v, str)),
        )

    def _network(self) -> tuple[str, str]:
        name, args = self.fields["architecture"], self.args
        odd = {
            key: value
            for key, value in args.items()
            if key not in HARMLESS and (key, value) != ("in_chans", 3)
        }
        if odd:
            raise UserError(
                f"{self.file}: field 'model_args' makes another network of '{name}' ({few(odd)}), which is "
                "not read here; load it with timm, and save the state_dict of a network that has a name"
            )
        if name == ARCHITECTURE:
            stem = self._checked("model_args.stem", args.get("stem"), lambda v: v in STEMS)
            return self._checked(
                "model_args.encoder", args.get("encoder"), lambda v: isinstance(v, str)
            ), stem
        if "global_pool" in args and timm.is_model(name):
            self._checked("model_args.global_pool", args["global_pool"], lambda v: _is_usual(name, v))
        return name.split(".")[0], "imagenet"  # a tag names weights

    def _side(self) -> int:
        size = self.args.get("img_size")
        if size is None:
            return self._size("input_size")[-1]
        side = size[-1] if isinstance(size, list) and size else size
        return self._checked("model_args.img_size", side, _pixels)

    def _size(self, name: str) -> tuple[int, ...]:
        return tuple(self._take(name, lambda v: _list_of(v, (3,), _pixels) and v[0] == 3))

    def _channels(self, name: str) -> tuple[float, float, float]:
        least = 0 if name == "std" else -MOST_VALUE

        def fits(value: Any) -> bool:
            return isinstance(value, int | float) and least < value < MOST_VALUE

        value = self._take(name, lambda v: fits(v) or _list_of(v, (1, 3), fits))
        values = [float(x) for x in (value if isinstance(value, list | tuple) else [value])]
        return tuple(values if len(values) == 3 else 3 * values)  # type: ignore[return-value]  # three

    def _class_names(self, classes: int) -> tuple[str, ...]:
        """By label; none where the file has none, or not for every class."""
        names = self.fields.get("label_names") or self.fields.get("labels") or ()
        if isinstance(names, dict):
            names = [names.get(str(label)) for label in range(classes)]
        every = isinstance(names, list | tuple) and len(names) == classes
        return tuple(names) if every and all(isinstance(name, str) for name in names) else ()

    def _take(self, name: str, fits: Callable[[Any], bool]) -> Any:
        return self._checked(name, self.fields.get(name), fits)

    def _checked(self, name: str, value: Any, fits: Callable[[Any], bool]) -> Any:
        if not fits(value):
            raise UserError(f"{self.file}: field '{name}' is {str(value)[:80]}, which cannot be; correct it")
        return value


def _is_usual(network: str, pooling: Any) -> bool:
    """Whether timm builds the same network with ``global_pool=pooling`` as without."""
    with torch.device("meta"):
        plain = repr(timm.create_model(network))
        try:
            return plain == repr(timm.create_model(network, global_pool=pooling))
        except Exception:  # each family raises what it likes on a value that it does not know
            return False


def _list_of(value: Any, lengths: tuple[int, ...], fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) in lengths and all(map(fits, value))


def _pixels(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST_PIXELS


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= 1
