"""Which of the networks in a file of others is the encoder, and which of its tensors.

`choose_container` picks among state dicts side by side (timm's ``state_dict`` and ``state_dict_ema``),
`choose_part` among networks in one state dict (MoCo's ``encoder_q`` and ``encoder_k``): the one that the tool
which wrote the file takes, unless ``which`` names another. `fit` then finds the encoder's keys behind any
prefix. What was taken, what else was there and what was passed over is said in notes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from numpy import ndarray
from torch import Tensor

from automix_transfer.errors import UserError, few
from automix_transfer.pickles.inert import Inert

#: What DDP, torch.compile and other people's wrappers put before keys.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
#: What FSDP, torch.compile and activation checkpointing put anywhere into keys.
WRAPPERS = re.compile(r"(?<![^.])(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
#: Fields that hold state dicts, the one that inference uses first: a moving average (as timm loads it),
#: DINO's teacher, then the trained network, then the slow copies that only guide a training.
CONTAINERS = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "module_ema", "ema_model", "ema", "params_ema"),
    *("teacher", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("params", "weights", "encoder_q", "base_encoder", "online_network", "online_encoder", "online"),
    *("student", "encoder", "backbone", "encoder_k", "momentum_encoder", "target_network", "target_encoder"),
    *("target",),
)
AVERAGES = {"ema", "swa"}  # as parts of other fields' names
DEEPEST = 4  # mappings in mappings that are looked into for networks
#: Networks that lie side by side in one state dict, the one that inference uses first.
FAMILIES = (
    ("backbone_k", "backbone_q", "backbone"),  # OpenMixup
    ("encoder_q", "encoder_k"),  # MoCo
    ("base_encoder", "momentum_encoder"),  # MoCo v3
    ("teacher", "student"),
    *((f"online{end}", f"target{end}") for end in ("", "_network", "_encoder", "_net", "_backbone")),
    *(
        ("ema_model", "online_model", "model"),
        ("ema_model", "model"),
        ("model_ema", "model"),
        ("ema", "model"),
    ),
    *((name, f"momentum_{name}", f"{name}_momentum") for name in ("backbone", "encoder")),
    ("backbone", "encoder_k", "target_net"),  # mmselfsup
)
#: Where a classifier lies beside the backbone: of mmpretrain, of others, of OpenMixup (the one-hot head).
HEADS = ("head.fc.", "head.layers.head.", "fc.", "linear.", "classifier.", "head.", "cls_head.fc_cls.")
#: Parts that only a pretraining has.
OF_TRAINING = {
    *(
        "queue",
        "queue_ptr",
        "projector",
        "projection_head",
        "projection",
        "prototypes",
        "predictor",
        "criterion",
    ),
    *("decoder", "decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred", "decoder_pos_embed"),
    *("mask_token", "n_averaged", "neck", "mix_block", "_metadata", "logit_scale", "loss", "ema_decay"),
}
_PLACE = re.compile(r"((?:[A-Za-z_]\w*\.)*)(\d{1,4})\.(.+)")
CHOICE = "encoder.which, on other command lines --which, chooses"


def _meant(which: str | None, held: Iterable[str]) -> list[str]:
    """Those of ``held`` that a choice means: the one of that name, or else those of which it is a part, as
    ``q`` is of ``encoder_q``."""
    held = list(held) if which else []
    exact = [name for name in held if which in (name, name.rpartition(".")[2])]
    return exact or [name for name in held if which in re.split("[._]", name)]


def choose_container(content: Mapping[Any, Any], which: str | None) -> tuple[Any, str, str | None, list[str]]:
    """The state dict in a file's outermost mapping, or in mappings inside of that.

    Returns:
        The state dict (or what stands in its place), where it lies for messages, what is left of ``which``,
        and notes.
    """
    known = {} if _is_network(content) else _networks(content)
    if not known:
        return content, "its top level", which, []
    meant = _meant(which, known)
    taken = next(iter(meant or known))
    notes = [_taken(taken, known)] if len(known) > 1 or taken not in CONTAINERS else []
    return known[taken], f"'{taken}'", None if meant else which, notes


def _networks(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The state dicts in ``content``, those of the outermost level that has any, by their names (``a.b`` is b
    of a), the one that inference uses first; whole objects come last."""
    seen, level = {id(content)}, {"": content}
    for _ in range(DEEPEST):
        inner = {
            f"{path}{name}": value
            for path, mapping in level.items()
            for name, value in mapping.items()
            if isinstance(name, str) and "optim" not in name and isinstance(value, Mapping | Inert)
        }
        found = {
            path: network for path, value in inner.items() if (network := _inner(path, value)) is not None
        }
        if found:
            return dict(sorted(found.items(), key=lambda item: (isinstance(item[1], Inert), _rank(item[0]))))
        new = {id(value): (path, value) for path, value in inner.items() if id(value) not in seen}
        seen.update(new)
        level = {f"{path}.": value for path, value in new.values() if isinstance(value, Mapping)}
    return {}


def _rank(path: str) -> int:
    name = path.rpartition(".")[2]
    if name in CONTAINERS:
        return CONTAINERS.index(name)
    return -1 if AVERAGES.intersection(name.split("_")) else len(CONTAINERS)


def choose_part(
    state: Mapping[str, Tensor], which: str | None
) -> tuple[dict[str, Tensor], str | None, list[str]]:
    """One network of a state dict that holds several, its keys without the prefix; one that holds one network
    is given back as it is. Returns it, what is left of ``which``, and notes."""
    first = {key.split(".", 1)[0] for key in state if "." in key}
    family = next((f for f in FAMILIES if f[0] in first and len(first.intersection(f)) > 1), ())
    held = [name for name in family if name in first]
    if not held:
        return dict(state), which, []
    meant = _meant(which, held)
    taken = next(iter(meant or held))
    if taken in ("backbone", "encoder"):  # a classifier may lie beside it
        others = tuple(f"{name}." for name in held if name != taken)
        rest = {key: value for key, value in state.items() if not key.startswith(others)}
        return rest, None if meant else which, [_taken(taken, held)]
    found = {k.removeprefix(f"{taken}."): v for k, v in state.items() if k.startswith(f"{taken}.")}
    copy = taken.rpartition("_")[2]
    for head in (f"head_one_{copy}.", f"head_mix_{copy}.", "head."):
        beside = {f"head.{k.removeprefix(head)}": v for k, v in state.items() if k.startswith(head)}
        if family == FAMILIES[0] and beside:
            return {**found, **beside}, None if meant else which, [_taken(taken, held)]
    return found, None if meant else which, [_taken(taken, held)]


def fit(
    state: Mapping[str, Tensor], target: Collection[str], heads: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """``state`` with the keys of an encoder as far as they can be found in it, and notes.

    Args:
        target: the encoder's keys; those that start with one of ``heads`` are its classifier.
    """
    body = [key for key in target if not key.startswith(tuple(heads)) and "num_batches_tracked" not in key]
    if not body:
        return dict(state), []
    prefix, notes = _prefix(state, body), list[str]()
    if prefix is None and (renamed := _named(state, body, target)):
        state, prefix = renamed, _prefix(renamed, body)
        notes.append("the places of an nn.Sequential are read as the network's parts, in their order")
    if prefix is None:
        return dict(state), []
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    beside = {key: value for key, value in state.items() if not key.startswith(prefix)}
    if prefix == "":
        beside = {key: found.pop(key) for key in list(found) if _of_training(key, target)}
    notes += [f"prefix '{prefix}' stripped from {len(found)} keys"] if prefix else []
    wanted = [key for key in target if key.startswith(tuple(heads))]
    if not wanted:  # an encoder without a classifier: the file's, or a projection in its place, is left out
        beside |= {key: found.pop(key) for key in list(found) if key.startswith(tuple(heads))}
    outer = prefix.removesuffix(f"{prefix.split('.')[-2]}.") if prefix else ""
    moved = _classifier(found, beside, wanted, outer)
    for key, old in moved.items():
        found[key] = found.pop(old) if old in found else beside.pop(old)
    if moved:
        notes.append(f"{', '.join(moved.values())} are the classifier")
    if beside:
        notes.append(f"{len(beside)} other tensors passed over ({few(beside)})")
    return found, notes


def _prefix(state: Mapping[str, Tensor], body: Sequence[str]) -> str | None:
    """What stands before all of ``body`` in ``state``; None where not all are there."""
    ends = [key.removesuffix(body[0]) for key in state if key.endswith(body[0])]
    return next((start for start in ends if all(start + key in state for key in body)), None)


def _named(state: Mapping[str, Tensor], body: Sequence[str], target: Iterable[str]) -> dict[str, Tensor]:
    """``state`` with names for the numbers that ``nn.Sequential(*network.children())`` puts in their places
    (``4.0.conv1.weight`` for ``layer1.0.conv1.weight``); empty where it has none such."""
    found = [match for key in state if (match := _PLACE.fullmatch(key))]
    names = list(dict.fromkeys(key.split(".", 1)[0] for key in (*body, *target)))
    for prefix in dict.fromkeys(match[1] for match in found):
        places = sorted({int(match[2]) for match in found if match[1] == prefix})
        name_of = dict(zip(map(str, places), names, strict=False))
        renamed = {m[0]: f"{prefix}{name_of.get(m[2], m[2])}.{m[3]}" for m in found if m[1] == prefix}
        if {f"{prefix}{key}" for key in body} <= set(renamed.values()):
            return {renamed.get(key, key): value for key, value in state.items()}
    return {}


def _of_training(key: str, target: Collection[str]) -> bool:
    return key not in target and key.split(".", 1)[0] in OF_TRAINING


def _classifier(
    found: Mapping[str, Tensor], beside: Mapping[str, Tensor], wanted: list[str], outer: str
) -> dict[str, str]:
    """The classifier's keys -> keys of the file, where it lies elsewhere or under another name; ``outer``
    is what stands before the names of backbone and classifier."""
    ends = {key.rpartition(".")[2]: key for key in wanted}
    if not wanted or set(ends) - {"weight", "bias"} or len(ends) != len(wanted) or wanted[0] in found:
        return {}
    state, own = {**found, **beside}, wanted[0].rpartition(".")[0]
    for head in (f"{outer}{name}" for name in (f"{own}.", *HEADS)):
        old = {ends[end]: f"{head}{end}" for end in ends}
        if all(key in state for key in old.values()) and state[f"{head}weight"].ndim == 2:
            return old
    return {}


def _inner(path: str, value: Any) -> Any:
    """The value of a field where it is a state dict or stands in place of one, or the state dict in it."""
    known = path.rpartition(".")[2] in CONTAINERS
    if isinstance(value, Inert):
        return value if known else None
    if _is_network(value) or (known and any(isinstance(item, Tensor | ndarray) for item in value.values())):
        return value
    inner = (value.get(name) for name in ("module", "state_dict", "model", "shadow") if known)
    return next((item for item in inner if isinstance(item, Mapping) and item), None)


def _is_network(value: Mapping[Any, Any]) -> bool:
    weights = (key for key in value if isinstance(key, str) and key.endswith(".weight"))
    return any(isinstance(value[key], Tensor | ndarray) for key in weights)


def _taken(taken: str, held: Iterable[str]) -> str:
    others = ", ".join(f"'{name}'" for name in held if name != taken)
    return f"'{taken}' taken" + (f"; {others} also there ({CHOICE})" if others else "")


def refuse_choice(source: Any, which: str, held: str | None = None, notes: Sequence[str] = ()) -> UserError:
    """The error for a choice that the file does not have."""
    holds = f"encoder '{held}'" if held else "one unnamed encoder"
    if notes:
        return UserError(f"{source} holds no encoder '{which}'; without a choice: {'; '.join(notes)}")
    return UserError(
        f"{source} holds {holds}, not a choice with '{which}'; leave the choice out, or give the training "
        "checkpoint"
    )
