"""Weights as they lie in files: our checkpoints, our exports, and plain state dicts of torchvision and timm.

Nothing is taken on trust: a file is read without running code in it, and every field of ours is checked.
Whatever is not taken exactly as it lies there (a prefix that a wrapper left) is said in the notes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from automix_transfer.errors import UserError, few
from automix_transfer.io import load_torch, regular_file, sha256_of
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.hub.hub_folder import CONFIG, read_config, weights_in
from automix_transfer.models.hub.timm_config import MOST_PIXELS, MOST_VALUE, info_of_timm
from automix_transfer.models.hub.transformers_networks import of_transformers
from automix_transfer.models.weights_choice import (
    PREFIXES,
    WRAPPERS,
    choose_container,
    choose_part,
    refuse_choice,
)
from automix_transfer.pickles.inert import Inert

CHECKPOINT_FORMAT = "automix_transfer/1"
#: Of our safetensors files: JSON with format, encoder, which, step, source_sha256.
METADATA_KEY = "automix_transfer"
STATE_DICT_WANTED = "give a checkpoint or the file of a torch.save(model.state_dict())"
DAMAGED = "the file is damaged, take another one"
#: fields of `EncoderInfo`, and of the data of a checkpoint's config, with what they can be
TESTING: dict[str, Callable[[Any], bool]] = {
    "test_size": lambda value: type(value) is int and 0 < value <= MOST_PIXELS,
    "test_crop_ratio": lambda value: isinstance(value, int | float) and 0 < value <= 1,
    "test_crop": lambda value: isinstance(value, str),
    "interpolation": lambda value: isinstance(value, str),
}


@dataclass(frozen=True)
class Weights:
    """One encoder's tensors as they lie in a file.

    Attributes:
        state_dict: key -> tensor on the CPU, keys as the encoder itself has them.
        info: the encoder they belong to; ``None`` where the file does not say.
        source: the file.
        which: the encoder of a checkpoint with several (``k``, ``q``, ``encoder``); ``None`` where the file
            does not say.
        kind: ``checkpoint``, ``safetensors`` or ``state_dict``.
        step: optimizer steps of the training behind it; ``None`` where unknown.
        notes: sentences on what was not taken as it lies in the file.
    """

    state_dict: dict[str, Tensor] = field(repr=False)
    info: EncoderInfo | None
    source: str
    which: str | None
    kind: str
    step: int | None = None
    notes: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_weights(path: str | Path, which: str | None = None) -> Weights:
    """Read one encoder from a checkpoint of ours, a safetensors file, a torch file with a state dict, or a
    folder as timm's or transformers' on the Hugging Face hub.

    Args:
        which: the encoder of a file that holds several: ``k`` or ``q`` of a checkpoint, or a name that others
            use, whole or in part (``ema``, ``student``, ``encoder_k``); ``None`` takes the one that inference
            uses.

    Raises:
        UserError: a missing, truncated or foreign file, a pickle that would run code, or an encoder that the
            file does not hold.
    """
    if Path(path).is_dir():
        return _read_folder(Path(path), which)
    path = regular_file(path, "give the path of a weights file or checkpoint")
    if path.name.endswith(".index.json"):
        raise UserError(f"{path} only says in which files the weights lie; join them into one, and give that")
    if path.suffix == ".onnx":
        raise UserError(f"{path} is a graph of ONNX, which is for inference; give what it was exported from")
    if _is_safetensors(path):
        return _read_safetensors(path, which)
    content = load_torch(path)
    form = content.get("format") if isinstance(content, Mapping) else None
    if isinstance(form, str) and ("encoders" in content or form.startswith("automix_transfer")):
        return _read_checkpoint(path, content, which)
    where = "its top level"
    notes: list[str] = []
    if isinstance(content, Mapping):
        content, where, which, notes = choose_container(content, which)
    return _plain(path, _tensors(path, content, where), which, "state_dict", notes)


def sha256_of_weights(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file of weights, or of the one in a folder that `read_weights` takes."""
    return sha256_of(weights_in(Path(path)) if Path(path).is_dir() else path)


def read_method_part(path: str | Path, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings of a checkpoint's method, and the method's tensors whose keys start with ``prefix``.

    The keys of the tensors are without the prefix.

    Raises:
        UserError: missing, damaged or foreign file.
    """
    content = load_torch(path)
    config = content.get("config") if isinstance(content, Mapping) else None
    method = config.get("method") if isinstance(config, Mapping) else None
    if not isinstance(method, Mapping) or content.get("format") != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} is not a training checkpoint of format {CHECKPOINT_FORMAT}; give last.pt of a run"
        )
    model = _tensors(Path(path), content.get("model"), "field 'model'")
    return dict(method), {
        key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)
    }


def _is_safetensors(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror})") from error
    if start == b"version h":
        raise UserError(f"{path} only points to the weights, which Git LFS has not fetched; git lfs pull")
    # length of the JSON header, then the header
    looks = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000
    return looks or (path.suffix == ".safetensors" and not start.startswith(b"PK"))


def _read_folder(folder: Path, which: str | None) -> Weights:
    content, file = read_config(folder), weights_in(folder)
    if isinstance(content.get("architecture"), str):
        return replace(
            read_weights(file, which), info=info_of_timm(folder / CONFIG, content), source=str(folder)
        )
    if which is not None:
        raise refuse_choice(folder, which)
    plain = _is_safetensors(file)
    state = _safe_tensors(file)[1] if plain else _tensors(file, load_torch(file), "its top level")
    renamed, named, notes = of_transformers(folder, content, state)
    return Weights(renamed, named, str(folder), None, "state_dict", notes=tuple(notes))


def _safe_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged, truncated or not a safetensors file; copy it again from its source"
        ) from error
    return metadata, _tensors(path, state, "it")


def _read_safetensors(path: Path, which: str | None) -> Weights:
    metadata, state = _safe_tensors(path)
    if METADATA_KEY not in metadata:
        return _plain(path, state, which, "safetensors")
    try:
        about = json.loads(metadata[METADATA_KEY])
    except (json.JSONDecodeError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("format") != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path}: its metadata field '{METADATA_KEY}' is not JSON of format {CHECKPOINT_FORMAT}; export "
            "the checkpoint again"
        )
    held = about.get("which") if isinstance(about.get("which"), str) else None
    if which is not None and which != held:
        raise refuse_choice(path, which, held)
    return Weights(state, info_of(path, about.get("encoder")), str(path), held, "safetensors", _step(about))


def _read_checkpoint(path: Path, content: Mapping[str, Any], which: str | None) -> Weights:
    if content["format"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} has format '{content['format'][:40]}', but this version reads {CHECKPOINT_FORMAT}; "
            "use the version of automix_transfer that wrote it"
        )
    found = content.get("encoders")
    encoders: Mapping[str, str] = found if isinstance(found, Mapping) else {}
    if not encoders or not all(isinstance(item, str) for pair in encoders.items() for item in pair):
        raise UserError(f"{path}: field 'encoders' must map encoder names to key prefixes; {DAMAGED}")
    chosen = which if which is not None else next(iter(encoders))
    if chosen not in encoders:
        raise UserError(f"{path} holds no encoder '{which}'; choose one of {', '.join(encoders)}")
    prefix = encoders[chosen]
    model = _tensors(path, content.get("model"), "field 'model'")
    state = {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
    if not state:
        wanted = f"starts with '{prefix}', the prefix of encoder '{chosen}'"
        raise UserError(f"{path}: no key of field 'model' {wanted}; {DAMAGED}")
    notes = (f"encoder {chosen} of {', '.join(encoders)}",) if len(encoders) > 1 else ()
    config = content.get("config")
    data = config.get("data") if isinstance(config, Mapping) else None
    info = info_of(path, content.get("encoder"))
    info = replace(info, **{**(_testing(data) if isinstance(data, Mapping) else {}), **_testing(vars(info))})
    training = {key: content[key] for key in ("config", "epoch", "history", "samples") if key in content}
    return Weights(state, info, str(path), chosen, "checkpoint", _step(content), notes, training)


def _tensors(path: Path, value: Any, where: str) -> dict[str, Tensor]:
    """A state dict; arrays in it become tensors."""
    if isinstance(value, Inert):
        raise UserError(
            f"{path}: {where} is a whole object ({value.name}), which only its own code can rebuild; save "
            "its state_dict: torch.save(model.state_dict(), ...)"
        )
    pairs = value.items() if isinstance(value, Mapping) else ()
    state = {key: _as_tensor(item) for key, item in pairs if not str(key).endswith("_extra_state")}
    odd = [str(key) for key, item in state.items() if isinstance(item, Inert) or "_packed_params" in str(key)]
    if odd and len(odd) < len(state):
        raise UserError(
            f"{path}: {len(odd)} tensors are of a type that no weight has ({few(odd)}); save the plain float "
            "state_dict"
        )
    empty = [str(key) for key, item in state.items() if isinstance(item, Tensor) and item.shape == (0,)]
    if len(empty) > len(state) / 2:
        raise UserError(
            f"{path}: {len(empty)} of {len(state)} tensors are empty ({few(empty)}), as those of DeepSpeed's "
            "ZeRO-3 and of sharded trainings are; gather the weights into one file (zero_to_fp32.py)"
        )
    wrong = [
        str(key) for key, item in state.items() if not isinstance(key, str) or not isinstance(item, Tensor)
    ]
    if wrong or not state:
        example = f", e.g. '{wrong[0][:60]}'" if wrong else ""
        raise UserError(
            f"{path}: {where} is not a state dict (names to tensors){example}; {STATE_DICT_WANTED}"
        )
    return state


def _as_tensor(value: Any) -> Any:
    if not isinstance(value, numpy.ndarray) or value.dtype.kind not in "biuf":
        return value
    return torch.from_numpy(numpy.array(value, value.dtype.newbyteorder("=")))


def _plain(
    path: Path, state: dict[str, Tensor], which: str | None, kind: str, notes: Sequence[str] = ()
) -> Weights:
    """Weights of others, without a prefix that all keys have; of several networks in them, one."""
    state, stripped = _without_prefix(state)
    wrapped = [match[0] for key in state if (match := WRAPPERS.search(key))]
    if wrapped:
        state = {WRAPPERS.sub("", key): value for key, value in state.items()}
    state, left, chosen = choose_part(state, which)
    if left is not None:
        raise refuse_choice(path, left, notes=(*notes, *chosen))
    if chosen:
        state, more = _without_prefix(state)
        stripped += more
    said = [f"prefix '{stripped}' stripped from all {len(state)} keys"] if stripped else []
    if wrapped:
        said.append(f"{', '.join(sorted(set(wrapped)))} taken out of {len(wrapped)} keys")
    taken = which if chosen or notes else None
    return Weights(state, None, str(path), taken, kind, notes=(*notes, *chosen, *said))


def _without_prefix(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    stripped = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) and key != p for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped += prefix
    return state, stripped


def info_of(path: Path, value: Any) -> EncoderInfo:
    """`EncoderInfo` of a file's dictionary; a `UserError` where a field is of another type or range."""
    try:
        info = EncoderInfo.from_dict(value)
        lists = (info.mean, info.std, info.class_names)
        good = (
            all(isinstance(item, tuple) for item in lists)
            and all(isinstance(item, str) for item in (info.name, info.stem, *info.class_names))
            and all(isinstance(item, int | float) for item in (*info.mean, *info.std))
            and all(abs(item) < MOST_VALUE for item in info.mean)
            and all(0 < item < MOST_VALUE for item in info.std)
            and all(type(item) is int for item in (info.num_classes, info.image_size))
            and (len(info.mean), len(info.std)) == (3, 3)
            and 0 <= info.num_classes < 10_000_000
            and len(info.class_names) in (0, info.num_classes or len(info.class_names))
            and 0 < info.image_size <= MOST_PIXELS
            and _testing(vars(info)).keys() == info.to_dict().keys() & TESTING.keys()
        )
    except (AttributeError, TypeError):  # no mapping, or a field that is unknown or missing
        good = False
    if not good:
        names = ", ".join(field.name for field in fields(EncoderInfo))
        raise UserError(f"{path}: field 'encoder' does not describe an encoder ({names}); {DAMAGED}")
    return info


def _testing(value: Mapping[str, Any]) -> dict[str, Any]:
    """How the encoder was tested, by the fields of `EncoderInfo`; what makes no sense is left out."""
    return {key: value[key] for key, fits in TESTING.items() if key in value and fits(value[key])}


def _step(value: Mapping[str, Any]) -> int | None:
    step = value.get("step")
    return step if isinstance(step, int) else None
