"""What a pickle's names become: an `Inert` object, or one of the few `Known` builders."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

_PRINTABLE = frozenset(string.ascii_letters + string.digits + "_.<>")


class CodeWanted(Exception):
    """The pickle calls a function; the message is its name."""


class Damaged(Exception):
    """The pickle is not what any tool writes."""


class Inert:
    """An object that was passed over, or its class; ``name`` is that of the class or function."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = "".join(letter if letter in _PRINTABLE else "?" for letter in name[:100])

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Known:
    """A callable of `KNOWN`: ``make(machine, *arguments)`` gives the object."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make


class Builds(Protocol):
    """The machine, as its builders see it."""

    def spend(self, size: int) -> None:
        """``size`` bytes are about to be made."""

    def sound_key(self, key: Any) -> Any:
        """``key``, unless a dictionary of such keys could take an age."""

    def fill(self, target: Any, keys: Iterable[Any], values: Iterable[Any]) -> Any:
        """``target``, a dictionary or passed over, with items added."""

    def call(self, what: Any, arguments: Any, function: bool = True) -> Any:
        """What the pickle builds by calling ``what``."""


#: Classes of these modules hold values and nothing else.
_DATA_MODULES = {
    "argparse",
    "collections",
    "datetime",
    "decimal",
    "fractions",
    "numbers",
    "pathlib",
    "pathlib._local",
    "typing",
    "uuid",
}
_DATA = {
    *("collections.deque", "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"),
    *("datetime.timezone", "functools.partial", "types.SimpleNamespace", "re._compile", "logging.getLogger"),
    *(f"builtins.{name}" for name in ("slice", "range", "xrange", "complex", "object", "type")),
    *("zoneinfo.ZoneInfo", "zoneinfo.ZoneInfo._unpickle", "torch.serialization._get_layout"),
    *("random.Random", "array.array", "array._array_reconstructor", "torch.storage._load_from_bytes"),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "generator", "bit_generator")),
    *("torch.device", "torch.Generator"),
}
_TENSORS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg", "commands", "cPickle", "Queue"}


def wants_code(name: str, function: bool) -> bool:
    """Is an object named ``name`` more than data?

    Args:
        function: it is called, as classes and functions can be; of others' names the small first letter tells
            a function. A class that only an opcode for classes names is none.
    """
    module, _, last = name.rpartition(".")
    last = last.lstrip("_")
    if name in _DATA or (module in _DATA_MODULES and last[:1].isupper()) or name.startswith(_TENSORS):
        return False
    return module.split(".")[0] in _STANDARD or (function and not last[:1].isupper())
