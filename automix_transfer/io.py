"""Files that are never half-written, and files that cannot run code.

`atomic_write` writes beside the target, syncs and renames, so a reader sees the old file or the new one and
nothing else. `load_torch` and `load_arrays` refuse pickles that want more than tensors or arrays and plain
containers.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import pickle
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy
import torch

from automix_transfer.errors import UserError
from automix_transfer.text_files import read_bytes


def expand_home(path: str | Path) -> Path:
    """``path`` with the home folder for ``~``. For a user that does not exist it stays as it is, where
    Path.expanduser raises."""
    return Path(os.path.expanduser(path))


def atomic_write(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write(file)`` on a temporary file beside ``path``, sync it, and rename it onto ``path``.

    Raises:
        UserError: the folder cannot be written or the disk is full; ``path`` is left as it was.
    """
    path = Path(path)
    # Not by tempfile, whose files only their owner can read.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    # torch reports a full disk as a RuntimeError of its own zip writer
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_write_failure(error):
            raise
        raise UserError(
            f"{path} could not be written ({_reason(error)}); free space or choose another folder. "
            "What was there before is untouched"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_write_failure(error: RuntimeError) -> bool:
    text = str(error)
    return "PytorchStreamWriter" in text or "unexpected pos" in text or "write" in text.lower()


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error).splitlines()[0]).rstrip(".")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    atomic_write(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: see `read_bytes`; it is not JSON; the message names the line.
    """
    content = read_bytes(path)
    try:
        return json.loads(content)  # in any encoding that JSON may have, a byte order mark before it or not
    # JSONDecodeError, UnicodeDecodeError, integers of thousands of digits
    except (ValueError, RecursionError) as error:
        where = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{where} is not valid JSON; restore the file from its source") from error


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def save_torch(path: str | Path, value: Any) -> None:
    """``torch.save`` that leaves either the old file or the complete new one."""
    atomic_write(path, lambda file: torch.save(value, file))


def load_torch(path: str | Path) -> Any:
    """Load a file of ``torch.save`` onto the CPU, tensors and plain containers only.

    Raises:
        UserError: the file is missing, truncated, not a torch file, or a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist or is not a file; give the path of a weights file or checkpoint"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # a damaged zip or pickle can raise nearly anything: EOFError, RuntimeError, KeyError, ...
    except Exception as error:
        runs_code = isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error)
        problem = "wants to run code when it is loaded" if runs_code else "is damaged or no file of tensors"
        raise UserError(
            f"{path} {problem}, so it was refused; copy it again from its source, or save its state_dict as "
            "tensors only (torch.save(model.state_dict(), ...))"
        ) from error


def load_arrays(path: str | Path, source: str) -> Any:
    """Load a pickle of NumPy arrays, text, numbers and plain containers, and nothing else.

    Args:
        source: where a sound file comes from, for the messages, e.g. ``export the weights again``.

    Raises:
        UserError: the file is missing, damaged, no pickle, or a pickle that would run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            # arrays that Python 2 pickled are text in this encoding
            return _resolved(_ArrayUnpickler(stream, encoding="latin1").load())
    except _Forbidden as error:
        raise UserError(
            f"{path} is a pickle that wants to run code when it is loaded ({error}), so it was refused; "
            f"{source}"
        ) from error
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path} is damaged, truncated or not a pickle; {source}") from error


class _Forbidden(Exception):
    pass


# Python's own unpickler: a file does not decide the size of its memo.
class _ArrayUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Rebuilds arrays from their type, shape and bytes. NumPy does not check these, so a damaged file can end
    the interpreter."""

    def find_class(self, module: str, name: str) -> Any:
        if module.removeprefix("numpy.").startswith(("core.", "_core.")):
            module = "numpy"
        if (module, name) in _ARRAY_GLOBALS:
            return _ARRAY_GLOBALS[module, name]
        if module == "numpy.dtypes" and name.endswith("DType"):
            return lambda *_: _Type(name.removesuffix("DType").lower())
        raise _Forbidden(f"{module}.{name}")


class _Type:
    """A pickled dtype: a plain number or text of one size."""

    def __init__(self, name: str, *_: object) -> None:
        self.dtype = numpy.dtype(name)
        if self.dtype.kind not in "biufcSU" or self.dtype.subdtype is not None:
            raise ValueError(f"arrays of {name}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A pickled array, until `_resolved` puts the real one in its place."""

    def __init__(self, *_: object) -> None:
        self.value: numpy.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        self.value = _from_bytes(content, kind, shape, "F" if fortran else "C")


def _from_bytes(
    content: Any, kind: _Type, shape: tuple[int, ...], order: Literal["C", "F"] = "C"
) -> numpy.ndarray:
    content = content.encode("latin1") if isinstance(content, str) else bytes(content)
    return numpy.frombuffer(content, kind.dtype).reshape(shape, order=order).copy(order=order)


def _scalar(kind: _Type, content: Any) -> Any:
    return _from_bytes(content, kind, (1,))[0]


def _no_bytes() -> bytes:
    return b""


def _resolved(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        return value.value
    if isinstance(value, dict):
        return type(value)((_resolved(key), _resolved(item)) for key, item in value.items())
    return type(value)(_resolved(item) for item in value) if type(value) in (list, tuple) else value


#: What a pickle of arrays names, in any version of NumPy, and what stands in for it.
_ARRAY_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "_reconstruct"): _Array,
    ("numpy", "_frombuffer"): _from_bytes,
    ("numpy", "scalar"): _scalar,
    ("numpy", "dtype"): _Type,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): codecs.encode,
    ("__builtin__", "bytes"): _no_bytes,  # of an empty array
    ("builtins", "bytes"): _no_bytes,
}
