"""The few things that a pickle may build, each by code of ours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from automix_transfer.pickles.arrays import PickledArray, PickledType, from_bytes, scalar
from automix_transfer.pickles.inert import Builds, Damaged, Inert, Known

CONTAINER = 256  # bytes that an empty one counts for


def _encode(machine: Builds, text: str, codec: str) -> bytes:
    if codec not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Damaged(f"a codec {str(codec)[:20]}")
    machine.spend(len(text))
    return text.encode("latin1")


def _bytes(machine: Builds, *content: Any) -> bytes:
    """Python 2 writes an empty string as a call, Python 3 in old protocols a list of numbers or latin1."""
    if not content:
        return b""
    if not isinstance(content[0], list | tuple | bytes):
        raise Damaged("bytes of something else")
    machine.spend(len(content[0]))
    return bytes(content[0])


def _ordered(machine: Builds, items: Any = ()) -> OrderedDict:
    machine.spend(CONTAINER + 150 * len(items))
    pairs = list(items.items()) if isinstance(items, dict) else [(key, value) for key, value in items]
    found: OrderedDict = OrderedDict()
    machine.fill(found, [key for key, _ in pairs], [value for _, value in pairs])
    return found


def _set(machine: Builds, items: Any = ()) -> set:
    machine.spend(CONTAINER + 80 * len(items))
    return set(map(machine.sound_key, items))


def _tuple(machine: Builds, items: Any = ()) -> tuple:
    machine.spend(64 + 8 * len(items))
    return tuple(items)


def _plain_dict(machine: Builds, items: Any = None, *_: Any) -> dict:
    """A defaultdict's first argument is its factory, a Counter's its content."""
    return machine.fill({}, items, items.values()) if isinstance(items, dict) else {}


def _attribute(machine: Builds, value: Any, name: str) -> Inert:
    if not isinstance(value, Inert | Known) or not isinstance(name, str):
        raise Damaged("an attribute of a value")
    return Inert(f"{value.name}.{name}")


def _of_class(machine: Builds, kind: Any, *arguments: Any) -> Any:
    return machine.call(kind, arguments, function=False)


def _bare(machine: Builds, kind: Any, *_: Any) -> Any:
    return machine.call(kind, (), function=False)


#: Full name in the pickle (`numpy` for NumPy's inner modules of any version) -> what builds it.
KNOWN: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": PickledArray,
    "numpy._reconstruct": PickledArray,
    "numpy._frombuffer": from_bytes,
    "numpy.scalar": scalar,
    "numpy.dtype": PickledType,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _plain_dict,
    "collections.Counter": _plain_dict,
    "builtins.dict": _plain_dict,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.tuple": _tuple,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _bare,
    "copyreg.__newobj__": _of_class,
    "_codecs.encode": _encode,
    "torch.Size": _tuple,
}
