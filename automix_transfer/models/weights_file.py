"""Weights as they lie in files: our checkpoints, our exports, and plain state dicts of torchvision and timm.

Nothing is taken on trust: a file is read without running code in it, and every field of ours is checked.
Whatever is not taken exactly as it lies there (a prefix that a wrapper left) is said in the notes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch
from automix_transfer.models.encoders import EncoderInfo

CHECKPOINT_FORMAT = "automix_transfer/1"
#: Of our safetensors files: JSON with format, encoder, which, step, source_sha256.
METADATA_KEY = "automix_transfer"
#: What DDP, torch.compile and other people's wrappers put before keys.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
WRAPPERS = ("state_dict", "model")
STATE_DICT_WANTED = "give a checkpoint or the file of a torch.save(model.state_dict())"


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


def read_weights(path: str | Path, which: str | None = None) -> Weights:
    """Read one encoder from a checkpoint of ours, a safetensors file, or a torch file with a state dict.

    Args:
        which: the encoder of a checkpoint that holds several, ``k`` or ``q``; ``None`` takes the one that
            inference uses.

    Raises:
        UserError: a missing, truncated or foreign file, a pickle that would run code, or an encoder that the
            file does not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist or is not a file; give the path of a weights file or checkpoint"
        )
    if _is_safetensors(path):
        return _read_safetensors(path, which)
    content = load_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("format"), str):
        return _read_checkpoint(path, content, which)
    wrapper = next(
        (key for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)),
        None,
    )
    state = _tensors(
        path, content[wrapper] if wrapper else content, f"'{wrapper}'" if wrapper else "its top level"
    )
    _refuse_other(path, which, None)
    state, notes = _strip_uniform_prefixes(state)
    return Weights(state, None, str(path), None, "state_dict", notes=notes)


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
    # length of the JSON header, then the header
    looks = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000
    return looks or (path.suffix == ".safetensors" and not start.startswith(b"PK"))


def _read_safetensors(path: Path, which: str | None) -> Weights:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged, truncated or not a safetensors file; copy it again from its source"
        ) from error
    state = _tensors(path, state, "it")
    if METADATA_KEY not in metadata:
        _refuse_other(path, which, None)
        state, notes = _strip_uniform_prefixes(state)
        return Weights(state, None, str(path), None, "safetensors", notes=notes)
    try:
        about = json.loads(metadata[METADATA_KEY])
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"{path}: its metadata field '{METADATA_KEY}' is not JSON; export the checkpoint again"
        ) from error
    if not isinstance(about, dict) or about.get("format") != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path}: its metadata field '{METADATA_KEY}' is not of format {CHECKPOINT_FORMAT}; export the "
            "checkpoint again"
        )
    held = about.get("which") if isinstance(about.get("which"), str) else None
    _refuse_other(path, which, held)
    return Weights(state, _info(path, about.get("encoder")), str(path), held, "safetensors", _step(about))


def _read_checkpoint(path: Path, content: Mapping[str, Any], which: str | None) -> Weights:
    if content["format"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} has format '{content['format'][:40]}', but this version reads {CHECKPOINT_FORMAT}; "
            "use the version of automix_transfer that wrote it"
        )
    encoders = content.get("encoders")
    if (
        not isinstance(encoders, Mapping)
        or not encoders
        or not all(isinstance(item, str) for pair in encoders.items() for item in pair)
    ):
        raise UserError(
            f"{path}: field 'encoders' must map encoder names to key prefixes; the checkpoint is damaged, "
            "take another one"
        )
    chosen = which if which is not None else next(iter(encoders))
    if chosen not in encoders:
        raise UserError(f"{path} holds no encoder '{which}'; choose one of {', '.join(encoders)}")
    prefix = encoders[chosen]
    model = _tensors(path, content.get("model"), "field 'model'")
    state = {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
    if not state:
        raise UserError(
            f"{path}: no key of field 'model' starts with '{prefix}', the prefix of encoder '{chosen}'; "
            "the checkpoint is damaged, take another one"
        )
    notes = (f"encoder {chosen} of {', '.join(encoders)}",) if len(encoders) > 1 else ()
    return Weights(
        state, _info(path, content.get("encoder")), str(path), chosen, "checkpoint", _step(content), notes
    )


def _refuse_other(path: Path, which: str | None, held: str | None) -> None:
    """A file with one encoder cannot give another one."""
    if which is not None and which != held:
        raise UserError(
            f"{path} holds "
            + (f"encoder '{held}'" if held else "one unnamed encoder")
            + f", not a choice with '{which}'; leave the choice out, or give the training checkpoint"
        )


def _tensors(path: Path, value: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"{path}: {where} is not a state dict (names to tensors); {STATE_DICT_WANTED}")
    wrong = next(
        (key for key, item in value.items() if not isinstance(key, str) or not isinstance(item, Tensor)), None
    )
    if wrong is not None:
        raise UserError(
            f"{path}: {where} is not a state dict: '{str(wrong)[:60]}' is no tensor with a name; "
            f"{STATE_DICT_WANTED}"
        )
    return dict(value)


def _strip_uniform_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    stripped = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) and key != p for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped += prefix
    return state, (f"prefix '{stripped}' stripped from all {len(state)} keys",) if stripped else ()


def _info(path: Path, value: Any) -> EncoderInfo:
    """`EncoderInfo` of a file's dictionary; every field's type is checked."""
    try:
        info = EncoderInfo.from_dict(value)
        lists = (info.mean, info.std, info.class_names)
        good = (
            all(isinstance(item, tuple) for item in lists)
            and all(isinstance(item, str) for item in (info.name, info.stem, *info.class_names))
            and all(isinstance(item, int | float) for item in (*info.mean, *info.std))
            and all(isinstance(item, int) for item in (info.num_classes, info.image_size))
            and (len(info.mean), len(info.std)) == (3, 3)
            and 0 <= info.num_classes < 10_000_000
            and info.image_size > 0
        )
    except (AttributeError, TypeError):  # no mapping, or a field that is unknown or missing
        good = False
    if not good:
        raise UserError(
            f"{path}: field 'encoder' does not describe an encoder "
            f"({', '.join(f.name for f in fields(EncoderInfo))}); the file is damaged, take another one"
        )
    return info


def _step(value: Mapping[str, Any]) -> int | None:
    step = value.get("step")
    return step if isinstance(step, int) else None
