"""``config.json`` of timm's models on the Hugging Face hub.

`info_of_timm` reads ours and those of others in every layout that timm reads: ``pretrained_cfg`` as a field
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
from automix_transfer.models.encoders import STEMS, EncoderInfo
from automix_transfer.models.timm_names import ARCHITECTURE

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


def info_of_timm(file: Path, content: dict[str, Any]) -> EncoderInfo:
    """The encoder that the ``content`` of ``config.json`` describes.

    Raises:
        UserError: a field that makes no sense, or an argument of the network that is not known here.
    """
    return _Config(file, content).info()


class _Config:
    """The content, field by field; a `UserError` names the one that makes no sense."""

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
