"""Weights from files into encoders, all of them or none.

`read_weights` understands our checkpoints, our exports and plain state dicts of torchvision and timm; `load_into` copies them into
an encoder and refuses anything less than every key with its shape: a backbone that loads partly trains from scratch in silence.
Whatever is not taken exactly as it lies in the file (a prefix, a classifier, a precision) is said in the report's notes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch
from automix_transfer.models.encoders import EncoderInfo, create_encoder, has_own_stem, plain_info

CHECKPOINT_FORMAT = "automix_transfer/1"
METADATA_KEY = "automix_transfer"  # of our safetensors files: JSON with format, encoder, which, step, source_sha256
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")  # what DDP, torch.compile and other people's wrappers leave
WRAPPERS = ("state_dict", "model")
STATE_DICT_WANTED = "give a checkpoint or the file of a torch.save(model.state_dict())"
HEADS = ("fc", "head", "heads", "classifier", "linear")


@dataclass(frozen=True)
class Weights:
    """One encoder's tensors as they lie in a file.

    Attributes:
        state_dict: key -> tensor on the CPU, keys as the encoder itself has them.
        info: the encoder they belong to; ``None`` where the file does not say.
        source: the file.
        which: the encoder of a checkpoint with several (``k``, ``q``, ``encoder``); ``None`` where the file does not say.
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


@dataclass(frozen=True)
class LoadReport:
    """What `load_into` did: ``matched`` of ``total`` keys of the encoder came from the file; ``notes`` say the rest."""

    matched: int
    total: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([f"{self.matched} of {self.total} keys loaded", *self.notes])


def read_weights(path: str | Path, which: str | None = None) -> Weights:
    """Read one encoder's weights from a checkpoint of ours, a safetensors file, or a torch file with a state dict.

    Args:
        which: the encoder of a checkpoint that holds several, ``k`` or ``q``; ``None`` takes the one that inference uses.

    Raises:
        UserError: missing, truncated or foreign file, a pickle that would run code, an encoder that the file does not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file; give the path of a weights file or checkpoint")
    if _is_safetensors(path):
        return _read_safetensors(path, which)
    content = load_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("format"), str):
        return _read_checkpoint(path, content, which)
    wrapper = next((key for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), None)
    state = _tensors(path, content[wrapper] if wrapper else content, f"'{wrapper}'" if wrapper else "its top level")
    _refuse_other(path, which, None)
    state, notes = _strip_uniform_prefixes(state)
    return Weights(state, None, str(path), None, "state_dict", notes=notes)


def read_method_part(path: str | Path, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a training checkpoint of ours says of its method (``config.method``), and the method's tensors whose keys start with
    ``prefix``, without it.

    Raises:
        UserError: missing, damaged or foreign file.
    """
    content = load_torch(path)
    config = content.get("config") if isinstance(content, Mapping) else None
    method = config.get("method") if isinstance(config, Mapping) else None
    if not isinstance(method, Mapping) or content.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is not a training checkpoint of format {CHECKPOINT_FORMAT}; give last.pt of a run")
    model = _tensors(Path(path), content.get("model"), "field 'model'")
    return dict(method), {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}


def load_into(encoder: nn.Module, weights: Weights, classifier: str = "keep", name: str = "") -> LoadReport:
    """Copy ``weights`` into ``encoder``, in place; nothing is changed unless everything fits.

    Args:
        name: what messages call the encoder; without it as the file does, or by its class.
        classifier: ``keep`` wants the file's classifier too; ``new`` leaves the encoder's as it is (random), for another task.

    Raises:
        UserError: a key is missing, unexpected, of another shape or type, or not finite; with counts and the first names.
    """
    if classifier not in ("keep", "new"):
        raise UserError(f"classifier='{classifier}' is unknown; choose keep (load the file's) or new (leave it random)")
    target = encoder.state_dict()
    heads = classifier_prefixes(encoder)
    source = dict(weights.state_dict)
    wanted = dict(target)
    notes = list(weights.notes)
    if classifier == "new":
        source = {key: value for key, value in source.items() if not key.startswith(heads)}
        wanted = {key: value for key, value in target.items() if not key.startswith(heads)}
        if len(wanted) < len(target):
            notes.append(f"classifier ({', '.join(key for key in target if key not in wanted)}) left random")
    counters = [key for key in wanted if key.endswith("num_batches_tracked")]
    if counters and not any(key.endswith("num_batches_tracked") for key in source):  # torch before 0.4.1; inference does not use them
        target = {key: value for key, value in target.items() if key not in counters}
        wanted = {key: value for key, value in wanted.items() if key not in counters}
        notes.append(f"{len(counters)} BN step counters (num_batches_tracked) are not in the file and stay as they are")
    name = name or (weights.info.name if weights.info else type(encoder).__name__)
    _check(name, weights, source, wanted, heads)
    changed = sorted({str(value.dtype).removeprefix("torch.") for key, value in source.items() if value.dtype != target[key].dtype})
    if changed:
        notes.append(f"converted from {', '.join(changed)} to the encoder's precision")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(source[key])
    return LoadReport(len(wanted), len(target), tuple(notes))


def load_file(encoder: nn.Module, path: str | Path, name: str, stem: str = "imagenet", which: str | None = None,
              classifier: str = "keep", classes: Sequence[str] = ()) -> LoadReport:
    """`load_into` of a file into the encoder called ``name``, which must be the one that the file names, if it names one.

    Args:
        classes: what the outputs are to mean; a classifier that is kept must mean the same, if the file says what it means.

    Raises:
        UserError: as `read_weights` and `load_into`; a file of another encoder, stem or classes.
    """
    weights = read_weights(path, which)
    info = weights.info
    if info is not None and info.name != name:
        raise UserError(f"{weights.source} holds encoder '{info.name}', not '{name}'; give that name or another file")
    if info is not None and info.stem != stem and not has_own_stem(name):
        raise UserError(f"{weights.source} holds encoder '{name}' with the {info.stem} stem, not the {stem} stem; give stem={info.stem}")
    report = load_into(encoder, weights, classifier, name)
    theirs = info.class_names if info is not None and classifier == "keep" else ()
    if theirs and classes and tuple(theirs) != tuple(classes):
        at, pair = next((i, pair) for i, pair in enumerate(zip_longest(theirs, classes, fillvalue="none")) if pair[0] != pair[1])
        raise UserError(f"class {at} of {weights.source} is '{pair[0]}', but that of the data is '{pair[1]}'; give data whose classes have "
                        "the same names and order, or encoder.classifier=new")
    return report


def load_encoder(path: str | Path, name: str | None = None, which: str | None = None,
                 num_classes: int | None = None) -> tuple[nn.Module, EncoderInfo]:
    """Build the encoder that a file holds, classifier included, in eval mode on the CPU.

    Args:
        name: encoder name; needed for files that do not say it, and checked against those that do.
        which: as in `read_weights`.
        num_classes: checked against the file's classifier where given.

    Raises:
        UserError: as `read_weights` and `load_into`; an unknown or contradicting name or number of classes.
    """
    encoder, info, _ = rebuild(read_weights(path, which), name, num_classes)
    return encoder, info


def rebuild(weights: Weights, name: str | None = None, num_classes: int | None = None) -> tuple[nn.Module, EncoderInfo, LoadReport]:
    """`load_encoder` for weights already read; also gives the report of the load."""
    info = weights.info
    if info is not None and name is not None and name != info.name:
        raise UserError(f"{weights.source} holds encoder '{info.name}', not '{name}'; leave the encoder's name out or correct it")
    if info is None:
        if name is None:
            raise UserError(f"{weights.source} does not say which encoder it holds; name it (--encoder resnet50, or any timm model name)")
        info = plain_info(name, *_guess_head_and_stem(weights, name))
    if num_classes is not None and num_classes != info.num_classes:
        held = f"a classifier of {info.num_classes} classes" if info.num_classes else "no classifier"
        raise UserError(f"{weights.source} has {held}, not {num_classes}; correct the number of classes or leave it out")
    try:
        encoder = info.build().eval()
    except UserError as error:
        raise UserError(f"{weights.source}: {error}") from None
    return encoder, info, load_into(encoder, weights)


def classifier_prefixes(encoder: nn.Module) -> tuple[str, ...]:
    """Key prefixes of an encoder's classifier, e.g. ``("fc.",)``; found through timm's interface or by its usual names."""
    config = getattr(encoder, "default_cfg", None) or {}
    names = config.get("classifier", ()) if isinstance(config, Mapping) else ()
    names = (names,) if isinstance(names, str) else tuple(names or ())
    if not names:
        names = tuple(name for name in HEADS if hasattr(encoder, name))[:1]
    return tuple(f"{name}." for name in names)


def _check(name: str, weights: Weights, source: Mapping[str, Tensor], target: Mapping[str, Tensor], heads: tuple[str, ...]) -> None:
    """Raise one `UserError` unless keys, shapes and types of ``source`` and ``target`` are the same."""
    missing = [key for key in target if key not in source]
    unexpected = [key for key in source if key not in target]
    shared = [key for key in target if key in source]
    shapes = [key for key in shared if source[key].shape != target[key].shape]
    if missing or unexpected or shapes:
        odd = [*missing, *unexpected, *shapes]
        details = [f"{len(missing)} missing ({_few(missing)})" if missing else "",
                   f"{len(unexpected)} unexpected ({_few(unexpected)})" if unexpected else "",
                   f"{len(shapes)} of another shape ({_few(_shape_of(key, source, target) for key in shapes)})" if shapes else ""]
        body = [key for key in odd if not key.startswith(heads)] if heads else odd
        if not body:
            remedy = ("only the classifier differs: start a new one (encoder.classifier=new; in Python classifier='new'), or give data "
                      "of as many classes as the file has")
        elif body == ["conv1.weight"]:
            other = "cifar" if source["conv1.weight"].shape[2:] == (3, 3) else "imagenet"
            remedy = f"only the stem differs: give encoder.stem={other} (in Python stem='{other}')"
        elif all("pos_embed" in key or "relative_position" in key for key in body):
            remedy = "only its positions differ, so it was trained on images of another size: give that size (data.image_size)"
        elif any(key.startswith(prefix) for prefix in PREFIXES for key in unexpected):
            some = next(prefix for prefix in PREFIXES for key in unexpected if key.startswith(prefix))
            count = sum(key.startswith(some) for key in source)
            remedy = (f"{count} of its {len(source)} keys start with '{some}', not all, so the prefix was kept: "
                      "save the network's own state_dict")
        else:
            remedy = "the file is of another architecture: name the encoder it was made with (--encoder NAME, or encoder.name)"
        raise UserError(f"{weights.source} does not fit encoder '{name}': {len(shared) - len(shapes)} of {len(target)} keys match, "
                        f"{', '.join(filter(None, details))}; {remedy}")
    wrong = [key for key in shared if source[key].is_floating_point() != target[key].is_floating_point()
             or source[key].is_complex() or source[key].layout != torch.strided or source[key].is_quantized or source[key].is_meta]
    if wrong:
        raise UserError(f"{weights.source}: {len(wrong)} tensors are of a type that no weight has ({_few(wrong)}); "
                        "save the plain float state_dict")
    broken = [key for key in shared if not torch.isfinite(source[key]).all()]
    if broken:
        raise UserError(f"{weights.source}: {len(broken)} tensors hold NaN or infinite values ({_few(broken)}); "
                        "take a checkpoint from before the training diverged")


def _is_safetensors(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror})") from error
    looks = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000  # length of the JSON header, then the header
    return looks or (path.suffix == ".safetensors" and not start.startswith(b"PK"))


def _read_safetensors(path: Path, which: str | None) -> Weights:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged, truncated or not a safetensors file; copy it again from its source") from error
    state = _tensors(path, state, "it")
    if METADATA_KEY not in metadata:
        _refuse_other(path, which, None)
        state, notes = _strip_uniform_prefixes(state)
        return Weights(state, None, str(path), None, "safetensors", notes=notes)
    try:
        about = json.loads(metadata[METADATA_KEY])
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: its metadata field '{METADATA_KEY}' is not JSON; export the checkpoint again") from error
    if not isinstance(about, dict) or about.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path}: its metadata field '{METADATA_KEY}' is not of format {CHECKPOINT_FORMAT}; export the checkpoint again")
    held = about.get("which") if isinstance(about.get("which"), str) else None
    _refuse_other(path, which, held)
    return Weights(state, _info(path, about.get("encoder")), str(path), held, "safetensors", _step(about))


def _read_checkpoint(path: Path, content: Mapping[str, Any], which: str | None) -> Weights:
    if content["format"] != CHECKPOINT_FORMAT:
        raise UserError(f"{path} has format '{content['format'][:40]}', but this version reads {CHECKPOINT_FORMAT}; "
                        "use the version of automix_transfer that wrote it")
    encoders = content.get("encoders")
    if not isinstance(encoders, Mapping) or not encoders or not all(isinstance(item, str) for pair in encoders.items() for item in pair):
        raise UserError(f"{path}: field 'encoders' must map encoder names to key prefixes; the checkpoint is damaged, take another one")
    chosen = which if which is not None else next(iter(encoders))
    if chosen not in encoders:
        raise UserError(f"{path} holds no encoder '{which}'; choose one of {', '.join(encoders)}")
    prefix = encoders[chosen]
    model = _tensors(path, content.get("model"), "field 'model'")
    state = {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
    if not state:
        raise UserError(f"{path}: no key of field 'model' starts with '{prefix}', the prefix of encoder '{chosen}'; "
                        "the checkpoint is damaged, take another one")
    notes = (f"encoder {chosen} of {', '.join(encoders)}",) if len(encoders) > 1 else ()
    return Weights(state, _info(path, content.get("encoder")), str(path), chosen, "checkpoint", _step(content), notes)


def _refuse_other(path: Path, which: str | None, held: str | None) -> None:
    """A file with one encoder cannot give another one."""
    if which is not None and which != held:
        raise UserError(f"{path} holds " + (f"encoder '{held}'" if held else "one unnamed encoder") + f", not a choice with '{which}'; "
                        "leave the choice out, or give the training checkpoint")


def _tensors(path: Path, value: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"{path}: {where} is not a state dict (names to tensors); {STATE_DICT_WANTED}")
    wrong = next((key for key, item in value.items() if not isinstance(key, str) or not isinstance(item, Tensor)), None)
    if wrong is not None:
        raise UserError(f"{path}: {where} is not a state dict: '{str(wrong)[:60]}' is no tensor with a name; {STATE_DICT_WANTED}")
    return dict(value)


def _strip_uniform_prefixes(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    stripped = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) and key != p for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped += prefix
    return state, (f"prefix '{stripped}' stripped from all {len(state)} keys",) if stripped else ()


def _info(path: Path, value: Any) -> EncoderInfo:
    """`EncoderInfo` of a file's dictionary, every field's type checked: a file is not to be trusted."""
    number, text = (int, float), str
    good = (isinstance(value, Mapping) and set(value) <= {f.name for f in fields(EncoderInfo)}
            and isinstance(value.get("name"), text) and isinstance(value.get("stem", ""), text)
            and isinstance(value.get("num_classes"), int) and 0 <= value["num_classes"] < 10_000_000
            and isinstance(value.get("image_size", 1), int) and value.get("image_size", 1) > 0
            and all(isinstance(value.get(key, []), (list, tuple)) for key in ("mean", "std", "class_names"))
            and all(len(value.get(key, (0, 0, 0))) == 3 for key in ("mean", "std"))
            and all(isinstance(x, number) for key in ("mean", "std") for x in value.get(key, ()))
            and all(isinstance(x, text) for x in value.get("class_names", ())))
    if not good:
        raise UserError(f"{path}: field 'encoder' does not describe an encoder ({', '.join(f.name for f in fields(EncoderInfo))}); "
                        "the file is damaged, take another one")
    return EncoderInfo.from_dict(dict(value))


def _step(value: Mapping[str, Any]) -> int | None:
    step = value.get("step")
    return step if isinstance(step, int) else None


def _guess_head_and_stem(weights: Weights, name: str) -> tuple[int, str]:
    """Classes and stem of a plain state dict, from the shapes in it; a file without a classifier has 0 classes."""
    encoder = create_encoder(name, 1000)
    heads = classifier_prefixes(encoder)
    matrices = [value for key, value in weights.state_dict.items() if key.startswith(heads) and key.endswith(".weight") and value.ndim >= 2]
    conv, released = weights.state_dict.get("conv1.weight"), encoder.state_dict().get("conv1.weight")
    small = conv is not None and released is not None and conv.shape[2:] == (3, 3) and released.shape[2:] == (7, 7)
    return (matrices[-1].shape[0] if matrices else 0), "cifar" if small else "imagenet"


def _shape_of(key: str, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    return f"{key}: {tuple(source[key].shape)} for {tuple(target[key].shape)}"


def _few(names: Any) -> str:
    names = [str(name)[:80] for name in names]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
