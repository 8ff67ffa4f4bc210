"""Weights from files into encoders, all of them or none.

`load_into` copies what `read_weights` found into an encoder and refuses anything less than every key with its
shape, because a backbone that loads partly would train from scratch in silence. Whatever is not taken exactly
(a classifier, a precision) is said in the report's notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from automix_transfer.errors import UserError, few
from automix_transfer.models.classifier import classifier_prefixes
from automix_transfer.models.encoders import EncoderInfo, create_encoder, has_own_stem, plain_info
from automix_transfer.models.timm_names import describe
from automix_transfer.models.weights_choice import PREFIXES, fit
from automix_transfer.models.weights_file import Weights, read_weights
from automix_transfer.text_files import same_names


@dataclass(frozen=True)
class LoadReport:
    """What `load_into` did: ``matched`` of ``total`` keys came from the file; ``notes`` are on the rest."""

    matched: int
    total: int
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()  # of a classifier that was kept, where the file names them

    def __str__(self) -> str:
        return "; ".join([f"{self.matched} of {self.total} keys loaded", *self.notes])


def load_into(
    encoder: nn.Module, weights: Weights, classifier: str = "keep", name: str = "", resize: bool = False
) -> LoadReport:
    """Copy ``weights`` into ``encoder``, in place; nothing is changed unless everything fits.

    Args:
        name: what messages call the encoder; without it as the file does, or by its class.
        classifier: ``keep`` wants the file's classifier too; ``new`` leaves the encoder's as it is (random),
            for another task.
        resize: interpolate the positions of a vision transformer that was trained on images of another size.

    Raises:
        UserError: a key is missing, unexpected, of another shape or type, or not finite; with counts and the
            first names.
    """
    source, target, total, notes = _paired(encoder, weights, classifier, name, resize)
    _check_values(weights, source, target)
    others = {source[key].dtype for key, value in target.items() if value.dtype != source[key].dtype}
    if others:
        names = sorted(str(dtype).removeprefix("torch.") for dtype in others)
        notes.append(f"converted from {', '.join(names)} to the encoder's precision")
    with torch.no_grad():
        for key, value in target.items():
            value.copy_(source[key])
    return LoadReport(len(target), total, tuple(notes))


def _paired(
    encoder: nn.Module, weights: Weights, classifier: str, name: str = "", resize: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor], int, list[str]]:
    """The file's tensors and the encoder's under the same keys and with the same shapes, the number of the
    encoder's with those that are left as they are, and notes."""
    if classifier not in ("keep", "new"):
        raise UserError(
            f"classifier='{classifier}' is unknown; choose keep (load the file's) or new (leave it random)"
        )
    heads, target = classifier_prefixes(encoder), encoder.state_dict()
    source, found = fit(weights.state_dict, target, heads)
    total, notes = len(target), [*weights.notes, *found]
    if classifier == "new":
        left = [key for key in target if key.startswith(heads)]
        source = {key: value for key, value in source.items() if not key.startswith(heads)}
        target = {key: value for key, value in target.items() if not key.startswith(heads)}
        if left:
            notes.append(f"classifier ({', '.join(left)}) left random")
    counters = {key for key in target if key.endswith("num_batches_tracked")}
    # Files of torch before 0.4.1 have none; inference does not use them.
    if counters and not any(key.endswith("num_batches_tracked") for key in source):
        target = {key: value for key, value in target.items() if key not in counters}
        total -= len(counters)
        notes.append(f"{len(counters)} BN step counters (num_batches_tracked) are not in the file")
    notes += _resize_positions(encoder, source) if resize else []
    name = name or (weights.info.name if weights.info else type(encoder).__name__)
    _check_shapes(name, weights, source, target, heads)
    return source, target, total, notes


def _resize_positions(encoder: nn.Module, source: dict[str, Tensor]) -> list[str]:
    """Interpolate a square grid of learnt positions (1, prefix + h·w, C) in ``source`` to the encoder's, as
    timm does; what was done."""
    grid = getattr(getattr(encoder, "patch_embed", None), "grid_size", None)
    held, own = source.get("pos_embed"), getattr(encoder, "pos_embed", None)
    if grid is None or held is None or own is None or held.ndim != 3 or held.shape == own.shape:
        return []
    prefix = own.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(0, held.shape[1] - prefix))
    if prefix < 0 or not side or side * side + prefix != held.shape[1]:
        return []
    source["pos_embed"] = resample_abs_pos_embed(held, list(grid), num_prefix_tokens=prefix)
    return [f"positions interpolated from {side}x{side} patches to {grid[0]}x{grid[1]}"]


def load_file(
    encoder: nn.Module,
    path: str | Path,
    name: str,
    stem: str = "imagenet",
    which: str | None = None,
    classifier: str = "keep",
    classes: Sequence[str] = (),
) -> LoadReport:
    """`load_into` of a file into the encoder called ``name``, for images of any size; a file of another
    encoder is refused.

    Args:
        classes: names of the outputs; a classifier that is kept must have the same, where the file says them.

    Raises:
        UserError: as `read_weights` and `load_into`; a file of another encoder, stem or classes.
    """
    weights = read_weights(path, which)
    info = weights.info
    if info is not None and info.name.split(".")[0] != name.split(".")[0]:  # a tag names weights
        raise UserError(
            f"{weights.source} holds encoder '{info.name}', not '{name}'; give that name or another file"
        )
    if info is not None and info.stem != stem and not has_own_stem(name):
        raise UserError(
            f"{weights.source} holds encoder '{name}' with the {info.stem} stem, not the {stem} stem; give "
            f"stem={info.stem}"
        )
    report = load_into(encoder, weights, classifier, name, resize=True)
    theirs = info.class_names if info is not None and classifier == "keep" else ()
    if theirs and classes and not same_names(theirs, classes):
        pairs = enumerate(zip_longest(theirs, classes, fillvalue="none"))
        at, own, ours = next((at, own, ours) for at, (own, ours) in pairs if not same_names([own], [ours]))
        raise UserError(
            f"class {at} of {weights.source} is '{own}', but that of the data is '{ours}'; give data "
            "whose classes have the same names and order, or encoder.classifier=new"
            + (" (data.class_order may make it so)" if set(theirs) == set(classes) else "")
        )
    return replace(report, classes=tuple(theirs))


def load_encoder(
    path: str | Path,
    name: str | None = None,
    which: str | None = None,
    num_classes: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[nn.Module, EncoderInfo]:
    """Build the encoder that a file holds, classifier included, in eval mode on the CPU.

    timm's ``pretrained_cfg`` of the encoder says how it is fed and what its classes are, see `describe`.

    Args:
        name: encoder name; needed for files that do not say it, and checked against those that do.
        which: as in `read_weights`.
        num_classes: checked against the file's classifier where given.
        say: is told what was loaded, and what of the file was not.

    Raises:
        UserError: as `read_weights` and `load_into`; an unknown or contradicting name or number of classes.
    """
    encoder, info, report = rebuild(read_weights(path, which), name, num_classes)
    say(f"weights from {path}: {report}")
    return encoder, info


def rebuild(
    weights: Weights, name: str | None = None, num_classes: int | None = None
) -> tuple[nn.Module, EncoderInfo, LoadReport]:
    """`load_encoder` for weights already read; also gives the report of the load."""
    info = weights.info
    if info is None:
        if name is None:
            raise UserError(
                f"{weights.source} does not say which encoder it holds; name it (--encoder resnet50, or any "
                "timm model name)"
            )
        info = plain_info(name, *_guess_head_and_stem(weights, name))
    elif name not in (None, info.name):
        raise UserError(
            f"{weights.source} holds encoder '{info.name}', not '{name}'; correct the name or leave it out"
        )
    if num_classes is not None and num_classes != info.num_classes:
        held = f"a classifier of {info.num_classes} classes" if info.num_classes else "no classifier"
        raise UserError(
            f"{weights.source} has {held}, not {num_classes}; correct the number of classes or leave it out"
        )
    try:
        with torch.device("meta"):  # a file may name a network that is larger than itself
            shapes = info.build()
        _paired(shapes, weights, "keep", info.name)
        encoder = info.build().eval()
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(weights.source) else f"{weights.source}: {text}") from None
    report = load_into(encoder, weights, name=info.name)
    describe(encoder, info)
    return encoder, info, report


def _check_shapes(
    name: str,
    weights: Weights,
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    heads: tuple[str, ...],
) -> None:
    """Raise one `UserError` unless keys and shapes of ``source`` and ``target`` are the same."""
    missing = [key for key in target if key not in source]
    unexpected = [key for key in source if key not in target]
    shared = [key for key in target if key in source]
    shapes = [key for key in shared if source[key].shape != target[key].shape]
    if missing or unexpected or shapes:
        both = [f"{key}: {tuple(source[key].shape)} for {tuple(target[key].shape)}" for key in shapes]
        kinds = {"missing": missing, "unexpected": unexpected, "of another shape": both}
        counts = ", ".join(f"{len(keys)} {kind} ({few(keys)})" for kind, keys in kinds.items() if keys)
        raise UserError(
            f"{weights.source} does not fit encoder '{name}': {len(shared) - len(shapes)} of {len(target)} "
            f"keys match, {counts}; {_remedy(missing, unexpected, shapes, source, heads, bool(shared))}"
        )


def _check_values(weights: Weights, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Raise one `UserError` unless all values are finite and of the kind of the encoder's."""
    wrong, broken = [], []
    for key in target:
        value = source[key]
        odd = value.is_complex() or value.layout != torch.strided or value.is_meta
        if odd or value.is_floating_point() != target[key].is_floating_point():
            wrong.append(key)
        elif not torch.isfinite(value).all():
            broken.append(key)
    if wrong:
        raise UserError(
            f"{weights.source}: {len(wrong)} tensors are of a type that no weight has ({few(wrong)}); "
            "save the plain float state_dict"
        )
    if broken:
        raise UserError(
            f"{weights.source}: {len(broken)} tensors hold NaN or infinite values ({few(broken)}); "
            "take a checkpoint from before the training diverged"
        )


def _remedy(
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    source: Mapping[str, Tensor],
    heads: tuple[str, ...],
    related: bool,
) -> str:
    """What to do about keys that do not fit, by what they have in common."""
    body = [key for key in (*missing, *unexpected, *shapes) if not key.startswith(heads)]
    wrapped = next((prefix for prefix in PREFIXES for key in unexpected if key.startswith(prefix)), None)
    if not body:
        return (
            "only the classifier differs: start a new one (encoder.classifier=new; in Python "
            "classifier='new'), or give data of as many classes as the file has"
        )
    if body == ["conv1.weight"]:
        other = "cifar" if source["conv1.weight"].shape[2:] == (3, 3) else "imagenet"
        return f"only the stem differs: give encoder.stem={other} (in Python stem='{other}')"
    if all("pos_embed" in key or "relative_position" in key for key in body):
        return "only its positions differ: give the size of the images that it is for (data.image_size)"
    if wrapped:
        count = f"{sum(key.startswith(wrapped) for key in source)} of its {len(source)} keys"
        return f"{count} start with '{wrapped}', so it was kept: save the network's own state_dict"
    if not unexpected and not shapes:
        return (
            "the file has only a part of it: take the whole file; if it is whole, it is of another "
            "architecture: name its own (--encoder NAME, or encoder.name)"
        )
    if any(key.startswith(("stem.conv1.", "res2.", "conv1_w")) for key in source):
        return "its names are Detectron2's or Caffe2's: it is for a detector (MODEL.WEIGHTS)"
    if related:
        return "it is of another architecture: name its own (--encoder NAME, or encoder.name)"
    starts = few(dict.fromkeys(f"'{key.split('.', 1)[0]}.'" for key in source))
    return (
        f"its names start with {starts} and none is one of the encoder's: give its own encoder (--encoder "
        "NAME, or encoder.name), or the network's own state_dict"
    )


def _guess_head_and_stem(weights: Weights, name: str) -> tuple[int, str]:
    """Classes (0 without a classifier) and stem of a plain state dict, from the shapes in it."""
    with torch.device("meta"):
        encoder = create_encoder(name, 1000)
    heads = classifier_prefixes(encoder)
    own = encoder.state_dict()
    state, _ = fit(weights.state_dict, own, heads)
    matrices = [
        value
        for key, value in state.items()
        if key.startswith(heads) and key.endswith(".weight") and value.ndim >= 2 and key in own
    ]
    stems = (found.get("conv1.weight") for found in (state, own))
    small = [tuple(stem.shape[2:]) for stem in stems if stem is not None] == [(3, 3), (7, 7)]
    return (matrices[-1].shape[0] if matrices else 0), "cifar" if small else "imagenet"
