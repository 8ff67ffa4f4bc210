"""Files of ``torch.save`` (the zip of today and the format before it) and plain pickles, by `Machine`.

Tensors come onto the CPU, without gradients. The sums of the zip are checked, which ``torch.load`` leaves
out: a flipped bit in the weights is found. Tensors that share memory in the file share it here.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from automix_transfer.pickles.builders import KNOWN
from automix_transfer.pickles.inert import Damaged, Inert, Known
from automix_transfer.pickles.machine import Machine

MAGIC = 0x1950A86A20F9469CFC6C  # of torch's format before the zip
#: What else lies under the names of weights, by its first bytes.
OTHERS = {
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras writes",
    b"<!DOCTYPE": "is a web page",
    b"<html": "is a web page",
    b"version https://git-lfs": "is a pointer of Git LFS and not the file itself: fetch it with git lfs pull",
    b"\x1f\x8b": "is packed by gzip: unpack it first",
    b"BZh": "is packed by bzip2: unpack it first",
    b"\xfd7zXZ": "is packed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "is packed by zstd: unpack it first",
    b"7z\xbc\xaf": "is packed by 7z: unpack it first",
}
PART = 16 * 2**20  # bytes read at once
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


class OtherFile(Exception):
    """The file is no file of tensors, but something that is known; the message says what it is."""


@dataclass
class Storage:
    """``content``: the bytes (N,) of one or more tensors; ``used``: bytes of all tensors made of them."""

    content: Tensor
    dtype: torch.dtype
    used: int = 0


def read_pickled(path: Path) -> Any:
    """The value in a file of torch or a plain pickle.

    Raises:
        OtherFile: another kind of file. CodeWanted: it wants to run code. Any other exception: damaged.
    """
    with path.open("rb") as file:
        start = file.read(262)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        for first, what in OTHERS.items():
            if start.lower().startswith(first.lower()):
                raise OtherFile(what)
        if start[257:] == b"ustar":
            raise OtherFile("is packed by tar: unpack it first")
        if start.startswith(b"PK\x03\x04"):
            return _read_zip(file, size)
        return _read_stream(file, size)


class TensorMachine(Machine):
    """A `Machine` that also builds tensors.

    Args:
        storage: gives the `Storage` of a persistent id's fields: key, dtype, number of elements.
    """

    def __init__(self, file: IO[bytes], length: int, storage: Callable[..., Storage]) -> None:
        super().__init__(file, length)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] != "torch":
            return super().find_class(module, name)
        kind = name.removesuffix("Storage")
        if kind != name and kind in _STORAGES:
            return _STORAGES[kind]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        full = f"{module}.{name}"
        return Known(full, _TENSORS[full]) if full in _TENSORS else super().find_class(module, name)

    def persistent_load(self, fields: Any) -> Any:
        kind, what, *more = fields
        if kind == "module":  # a network with its source code, which nobody needs
            return what
        if kind != "storage" or not isinstance(what, torch.dtype | Inert):
            raise Damaged("a reference to something unknown")
        return what if isinstance(what, Inert) else self.storage(what, *more)


def _tensor(
    machine: Machine,
    storage: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: Any,
    dtype: torch.dtype | None = None,
) -> Any:
    """The tensor that lies so in a storage; all of it must lie there."""
    if not isinstance(storage, Storage):
        return Inert("torch.Tensor")
    dtype = dtype or storage.dtype
    whole = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or not 0 <= n < 2**40 for n in whole):
        raise Damaged("a tensor of an impossible shape")
    count = math.prod(size)
    end = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) + 1 if count else 0
    held = storage.content.numel()
    if end * dtype.itemsize > held:
        raise Damaged("a tensor that is larger than its bytes")
    before, storage.used = storage.used, storage.used + count * dtype.itemsize
    machine.spend(storage.used - max(before, held))
    offset += int(storage.content.storage_offset()) // dtype.itemsize
    return torch.empty(0, dtype=dtype).set_(storage.content.untyped_storage(), offset, size, stride)


def _tensor_v3(
    machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, *more: Any
) -> Any:
    return _tensor(machine, storage, offset, size, stride, dtype=more[0])


def _parameter(machine: Machine, data: Any, *_: Any) -> Any:
    return data


def _with_attributes(machine: Machine, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return machine.call(function, arguments)


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch.Size": KNOWN["torch.Size"],
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
}


# --- the zip


def _read_zip(file: IO[bytes], size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        if sum(info.file_size for info in records.values()) > 4 * size + 2**26:
            raise OtherFile("is a small file that unpacks to a large one")
        name = next((name for name in records if name.count("/") <= 1 and name.endswith("data.pkl")), None)
        if name is None:
            raise OtherFile("is a zip archive without tensors of torch")
        root = name.removesuffix("data.pkl")
        if f"{root}constants.pkl" in records:
            raise OtherFile("is a TorchScript archive, which holds code")
        if f"{root}byteorder" in records and _bytes_of(archive, records[f"{root}byteorder"]) != b"little":
            raise OtherFile("was written on a big-endian machine")
        storages: dict[str, Storage] = {}

        def storage(dtype: torch.dtype, key: Any, location: Any, count: int) -> Storage:
            if key not in storages:
                storages[key] = Storage(_record(archive, records[f"{root}data/{key}"]), dtype)
            found = storages[key]
            if found.content.numel() != count * dtype.itemsize:
                raise Damaged("a storage of another size than its bytes")
            return found if found.dtype == dtype else Storage(found.content, dtype)

        content = _bytes_of(archive, records[name])
        return TensorMachine(io.BytesIO(content), len(content), storage).read_value()


def _bytes_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    return _record(archive, info).numpy().tobytes()


def _record(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    """The bytes (N,) of a record, as a tensor that torch itself has aligned."""
    content = torch.empty(info.file_size, dtype=torch.uint8)
    view = memoryview(content.numpy().data)
    at = 0
    with archive.open(info) as stream:
        if info.CRC == 0:  # written without sums (torch.serialization.set_crc32_options)
            stream._expected_crc = None  # type: ignore[attr-defined]
        while at < len(view):
            part = stream.read(min(PART, len(view) - at))
            if not part:
                raise Damaged("a record that is cut short")
            view[at : at + len(part)] = part
            at += len(part)
    return content


# --- the format before the zip, and plain pickles


def _read_stream(file: IO[bytes], size: int) -> Any:
    def left() -> int:
        return size - file.tell()

    def no_storage(*_: Any) -> Storage:
        raise Damaged("a reference in a plain pickle")

    first = TensorMachine(file, left(), no_storage).read_value()
    if first != MAGIC:
        return first
    _, about = (TensorMachine(file, left(), no_storage).read_value() for _ in range(2))
    if not about.get("little_endian", True):
        raise OtherFile("was written on a big-endian machine")
    storages: dict[Any, Storage] = {}
    claimed = 0

    def storage(dtype: torch.dtype, key: Any, location: Any, count: int, view: Any = None) -> Storage:
        nonlocal claimed
        if key not in storages:
            claimed += count * dtype.itemsize
            if count < 0 or claimed > size:
                raise Damaged("storages that are larger than the file")
            storages[key] = Storage(torch.empty(count * dtype.itemsize, dtype=torch.uint8), dtype)
        found = storages[key]
        if view is not None:
            _, start, length = view
            end = (start + length) * dtype.itemsize
            if not 0 <= start <= start + length or end > found.content.numel():
                raise Damaged("a part of a storage that lies outside of it")
            return Storage(found.content[start * dtype.itemsize : end], dtype)
        return found if found.dtype == dtype else Storage(found.content, dtype)

    value = TensorMachine(file, left(), storage).read_value()
    for key in TensorMachine(file, left(), no_storage).read_value():
        found = storages[key]
        count = int.from_bytes(file.read(8), "little")
        if count * found.dtype.itemsize != found.content.numel():
            raise Damaged("a storage of another size than its tensors say")
        room = memoryview(found.content.numpy().data)
        if file.readinto(room) != len(room):  # type: ignore[attr-defined]
            raise Damaged("a storage that is cut short")
        storages.pop(key)
    if storages:
        raise Damaged("tensors without their storages")
    return value
