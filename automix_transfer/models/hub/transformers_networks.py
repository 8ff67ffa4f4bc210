"""Networks of the transformers library, as timm's: what ``config.json`` says of them, and timm's names of
their tensors.

Only settings under which timm has the same network are taken; queries, keys and values, which are three
matrices there, are one in timm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from automix_transfer.errors import UserError, few
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.hub.transformers_images import fed

#: (channels, blocks, heads) of plain transformers -> their size in timm's names
SIZES = {
    (192, 12, 3): "tiny",
    (384, 12, 6): "small",
    (768, 12, 12): "base",
    (1024, 24, 16): "large",
    (1280, 32, 16): "huge",
}
#: blocks of the stages -> depth
RESNETS = {
    ("basic", 2, 2, 2, 2): 18,
    ("basic", 3, 4, 6, 3): 34,
    ("bottleneck", 3, 4, 6, 3): 50,
    ("bottleneck", 3, 4, 23, 3): 101,
    ("bottleneck", 3, 8, 36, 3): 152,
}
#: (channels of the first stage, blocks of the third) -> size
CONVNEXTS = {(96, 9): "tiny", (96, 27): "small", (128, 27): "base", (192, 27): "large", (256, 27): "xlarge"}
SWINS = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}
#: of ImageNet's classes, which are called by their words there; folders have the WordNet ids in this order
WORDS_OF_IMAGENET = "tench, Tinca tinca"

_BLOCK = (
    (r"\battention\.(?:attention|self)\.(query|key|value)\.", r"attn.\1."),
    (r"\battention\.output\.dense\.", "attn.proj."),
    (r"\battention\.self\.relative_position_bias_table", "attn.relative_position_bias_table"),
    (r"\blayernorm_before\.", "norm1."),
    (r"\blayernorm_after\.", "norm2."),
    (r"\bintermediate\.dense\.", "mlp.fc1."),
    (r"\boutput\.dense\.", "mlp.fc2."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
)
_PLAIN = (
    *_BLOCK,
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\blayer_scale(\d)\.lambda1$", r"ls\1.gamma"),
    (r"^(?:cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)
_SWIN = (
    *_BLOCK,
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),
    (r"^encoder\.", ""),
    (r"^classifier\.", "head.fc."),
)
_RESNET = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\bshortcut\.convolution\.", "downsample.0."),
    (r"\bshortcut\.normalization\.", "downsample.1."),
    (r"\blayer\.(\d)\.convolution\.", lambda m: f"conv{int(m[1]) + 1}."),
    (r"\blayer\.(\d)\.normalization\.", lambda m: f"bn{int(m[1]) + 1}."),
    (r"^classifier\.1\.", "fc."),
)
_CONVNEXT = (
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^layernorm\.", "head.norm."),
    (r"^encoder\.(stages\.\d\.)downsampling_layer\.", r"\1downsample."),
    (r"^encoder\.(stages\.\d\.)layers\.", r"\1blocks."),
    (r"\bdwconv\.", "conv_dw."),
    (r"\blayernorm\.", "norm."),
    (r"\bpwconv(\d)\.", r"mlp.fc\1."),
    (r"\blayer_scale_parameter$", "gamma"),
    (r"^classifier\.", "head.fc."),
)
#: tensors that a pretraining, or an older version, leaves behind, and that no feature is made of
_UNUSED = r"^pooler\.|^embeddings\.mask_token$|\brelative_position_index$"

Names = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
Config = Mapping[str, Any]


def _plain_name(config: Config, family: str, end: str) -> str:
    own = tuple(config.get(name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    return f"{family}_{_looked_up(SIZES, own)}_{end}"


def _looked_up(sizes: Mapping[Any, Any], own: tuple[Any, ...]) -> Any:
    """The size of these numbers; '' where it has no name, or they are none."""
    return next((name for key, name in sizes.items() if key == own), "")


def _vit(config: Config) -> str:
    return _plain_name(config, "vit", f"patch{config.get('patch_size')}_224")


def _stages(config: Config) -> list[Any]:
    depths = config.get("depths")
    return depths if isinstance(depths, list) and len(depths) == 4 else [None] * 4


def _resnet(config: Config) -> str:
    return f"resnet{_looked_up(RESNETS, (config.get('layer_type'), *_stages(config)))}"


def _convnext(config: Config) -> str:
    widths = config.get("hidden_sizes")
    first = widths[0] if isinstance(widths, list) and widths else None
    return f"convnext_{_looked_up(CONVNEXTS, (first, _stages(config)[2]))}"


def _swin(config: Config) -> str:
    window, size = config.get("window_size"), config.get("image_size")
    name = _looked_up(SWINS, (config.get("embed_dim"), _stages(config)[2]))
    return f"swin_{name}_patch4_window{window}_{size}"


@dataclass(frozen=True)
class _Family:
    """Networks of one ``model_type``.

    Attributes:
        name: of timm's network, by the settings; where it has none, a name that timm does not know.
        names: patterns of the tensors' names without the family's prefix, and timm's.
        usual: settings that timm's network has, and no others.
    """

    name: Callable[[Config], str]
    names: Names
    usual: Mapping[str, Any]


_GELU = {"hidden_act": "gelu", "num_channels": 3}
_TRANSFORMER = {**_GELU, "qkv_bias": True}
FAMILIES = {
    "vit": _Family(_vit, _PLAIN, _TRANSFORMER),
    "deit": _Family(
        lambda config: _plain_name(config, "deit", "distilled_patch16_224"),
        _PLAIN,
        {**_TRANSFORMER, "patch_size": 16},
    ),
    "dinov2": _Family(
        lambda config: _plain_name(config, "vit", "patch14_dinov2"),
        _PLAIN,
        {**_TRANSFORMER, "patch_size": 14, "use_swiglu_ffn": False},
    ),
    "resnet": _Family(
        _resnet,
        _RESNET,
        {
            "hidden_act": "relu",
            "num_channels": 3,
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        },
    ),
    "convnext": _Family(_convnext, _CONVNEXT, {**_GELU, "patch_size": 4}),
    "swin": _Family(_swin, _SWIN, {**_TRANSFORMER, "patch_size": 4, "use_absolute_embeddings": False}),
}


def of_transformers(
    folder: Path, config: Config, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], EncoderInfo, list[str]]:
    """The tensors of a folder under timm's names, the encoder that they are, and notes.

    Args:
        config: ``config.json``, whose ``model_type`` is one of `FAMILIES`.
        state: the tensors of the file of weights.

    Raises:
        UserError: a setting that timm's networks do not have, or no word on how images are fed.
    """
    file, family = folder / "config.json", FAMILIES[config["model_type"]]
    for key, usual in family.usual.items():
        if config.get(key, usual) != usual:
            raise UserError(f"{file}: field '{key}' is {str(config[key])[:80]}; only {usual} is read here")
    name = family.name(config)
    if not timm.is_model(name):
        raise UserError(
            f"{file} describes a network of '{config['model_type']}' of a size without a name in timm, "
            "which is not read here; give one of a usual size"
        )
    renamed, notes = _renamed(state, config["model_type"], family.names)
    heads = [key for key in ("head.weight", "fc.weight", "head.fc.weight") if key in renamed]
    classes = renamed[heads[0]].shape[0] if heads and renamed[heads[0]].ndim else 0
    about = fed(folder, config.get("image_size"))
    return renamed, EncoderInfo(name, classes, class_names=_class_names(config, classes), **about), notes


def _renamed(
    state: Mapping[str, Tensor], model_type: str, names: Names
) -> tuple[dict[str, Tensor], list[str]]:
    unused, found = [], dict[str, Tensor]()
    for key, value in state.items():
        own = key.removeprefix(f"{model_type}.")
        if re.search(_UNUSED, own):
            unused.append(key)
            continue
        for pattern, new in names:
            own = re.sub(pattern, new, own)
        found[key if own in found else own] = value
    for key in [key for key in found if ".attn.query." in key]:
        parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        shapes = {found[part].shape for part in parts if part in found}
        if all(part in found for part in parts) and len(shapes) == 1 and found[key].ndim:
            found[key.replace(".query.", ".qkv.")] = torch.cat([found.pop(part) for part in parts])
    notes = [f"names of transformers' {model_type} are turned into timm's"]
    if unused:
        notes.append(f"{len(unused)} tensors that no feature is made of are left out ({few(unused)})")
    return found, notes


def _class_names(config: Config, classes: int) -> tuple[str, ...]:
    """By label; none where they are not those of folders."""
    words = config.get("id2label")
    found = [words.get(str(label)) for label in range(classes)] if isinstance(words, dict) else []
    names = tuple(word for word in found if isinstance(word, str))
    return () if len(names) < classes or names[:1] in (("LABEL_0",), (WORDS_OF_IMAGENET,)) else names
