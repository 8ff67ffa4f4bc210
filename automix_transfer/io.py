"""Files that are never half-written, and files that cannot run code.

`atomic_write` writes beside the target, syncs and renames, so a reader sees the old file or the new one and
nothing else. `load_torch`, `load_arrays` and `load_npy` read what others wrote: see `pickles`. They import
torch and NumPy, which commands that only read text do without.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from automix_transfer.errors import UserError
from automix_transfer.host.writable import sync_folder
from automix_transfer.text_files import read_bytes

if TYPE_CHECKING:
    import numpy


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
    temporary = temporary_name(path)
    watched = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            watched = _Watched(file)
            write(watched)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else watched.failure if watched else None
        if reason is None:
            raise
        raise UserError(
            f"{path} could not be written ({_reason(reason)}); free space or choose another folder. "
            "What was there before is untouched"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def temporary_name(path: Path) -> Path:
    """Another one at each call, beside ``path``; what is left of a killed process the next owner removes.

    Not by tempfile, whose files only their owner can read.
    """
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.part"


class _Watched:
    """A file for writing that remembers why it could not be written: torch's zip writer raises a RuntimeError
    of its own in place of the file's OSError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error).splitlines()[0]).rstrip(".")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; see `encodable`."""
    atomic_write(path, lambda file: file.write(encodable(text).encode()))


def encodable(text: str) -> str:
    """``text`` with an escape for what a name that is no UTF-8 has become (``\\udce9``), which JSON reads
    back."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, most: int | None = None) -> Any:
    """Read a JSON file of at most ``most`` bytes.

    Raises:
        UserError: see `read_bytes`; it is not JSON; the message names the line. Or an object names a key
            twice, of which other readers would take the last in silence.
    """
    content = read_bytes(path, most, text=True)
    try:
        # in any encoding that JSON may have, a byte order mark before it or not
        return json.loads(content, object_pairs_hook=_unique)
    except _KeyTwiceError as error:
        raise UserError(
            f"{path} names the key {error} twice in one object; leave one of the two out"
        ) from error
    # JSONDecodeError, UnicodeDecodeError, integers of thousands of digits
    except (ValueError, RecursionError) as error:
        if content.startswith(b"\x1f\x8b"):
            raise UserError(f"{path} is packed by gzip; unpack it first") from error
        where = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{where} is not valid JSON; restore the file from its source") from error


class _KeyTwiceError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwiceError(ascii(next(key for key in keys if keys.count(key) > 1)[:60]))
    return found


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def save_torch(path: str | Path, value: Any) -> None:
    """``torch.save`` that leaves either the old file or the complete new one."""
    import torch

    atomic_write(path, lambda file: torch.save(value, file))


def regular_file(path: str | Path, remedy: str) -> Path:
    """``path``, if it is an ordinary file: a device or a pipe can give bytes without an end.

    Raises:
        UserError: there is none, or it is something else, e.g. a folder.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file; {remedy}")
    return path


def load_torch(path: str | Path) -> Any:
    """Load a file of ``torch.save``, or a pickle of arrays, onto the CPU: tensors, arrays, text, numbers and
    plain containers. Other objects in it are `Inert` in their places.

    Raises:
        UserError: the file is missing, truncated, not a torch file, or a pickle that would run code.
    """
    path = regular_file(path, "give the path of a weights file or checkpoint")
    again = "copy it again from its source, or save its state_dict as tensors only (torch.save("
    return _load_pickled(path, f"{again}model.state_dict(), ...))")


def load_arrays(path: str | Path, source: str) -> Any:
    """Load a pickle of NumPy arrays, text, numbers and plain containers; other objects as in `load_torch`.

    Args:
        source: where a sound file comes from, for the messages, e.g. ``export the weights again``.

    Raises:
        UserError: the file is missing, damaged, no pickle, or a pickle that would run code.
    """
    return _load_pickled(regular_file(path, source), source)


def _load_pickled(path: Path, remedy: str) -> Any:
    from automix_transfer.pickles.inert import CodeWanted, Inert
    from automix_transfer.pickles.torch_files import OtherFile, read_pickled

    try:
        return read_pickled(path)
    except CodeWanted as error:
        raise UserError(
            f"{path} wants to run code when it is loaded (it calls {Inert(str(error))}), so it was refused; "
            f"{remedy}"
        ) from error
    except OtherFile as error:
        raise UserError(f"{path} {error}, so it was refused; {remedy}") from error
    except PermissionError as error:
        raise UserError(f"{path} could not be read ({error.strerror})") from error
    except Exception as error:  # a damaged zip or pickle can raise nearly anything
        raise UserError(f"{path} is damaged or no file of tensors, so it was refused; {remedy}") from error


def load_npy(path: str | Path, source: str, lazy: bool = False, most: int | None = None) -> numpy.ndarray:
    """One array of an ``.npy`` file, whose bytes are as many as its shape says.

    Args:
        source: where a sound file comes from, for the messages.
        lazy: leave the values on the disk until they are used.
        most: bytes that the values may take; a sparse file has many that take no room on the disk.

    Raises:
        UserError: the file is missing, damaged, too large, no such file, or holds objects, which could run
            code.
    """
    import numpy

    path = regular_file(path, source)
    try:
        with path.open("rb") as file:
            major, _ = numpy.lib.format.read_magic(file)
            header = (
                numpy.lib.format.read_array_header_1_0
                if major == 1
                else numpy.lib.format.read_array_header_2_0
            )
            shape, _, kind = header(file)
            room = path.stat().st_size - file.tell()
        if kind.hasobject:
            raise UserError(
                f"{path} holds pickled objects, which could run code, so it was refused; {source}"
            )
        if most is not None and math.prod(shape) * kind.itemsize > most:
            raise UserError(f"{path} holds an array {shape} of more than {most:,} bytes; {source}")
        if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize > room:
            raise ValueError("a shape that the file has no bytes for")
        return numpy.load(path, allow_pickle=False, mmap_mode="r" if lazy else None)
    except UserError:
        raise
    except Exception as error:  # NumPy raises nearly anything on a damaged header
        raise UserError(f"{path} is damaged or not an .npy file; {source}") from error
