"""Where the values of a column lie in an Arrow file, as Hugging Face's ``datasets`` writes them.

An Arrow file (the IPC format, streaming or not: arrow.apache.org/docs/format/Columnar.html) is a row of
messages. Each begins with a FlatBuffer that says what follows: the schema, then batches of rows, of whose
columns it holds where the buffers lie. So the bytes of an image are a span of the file, which is read as that
of a tar shard, in any order. Nothing is decoded, and what a file says is believed only as far as it reaches,
which readers that trust their files (pyarrow) do not promise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.errors import UserError

Bytes = NDArray[np.uint8]
INT, BOOL, STRUCT = 2, 6, 13  #: kinds of columns, as the format numbers them
TEXTS = {4: "<i4", 5: "<i4", 19: "<i8", 20: "<i8"}  #: bytes and text, and the numbers of their offsets
#: buffers of a column of each kind, without those of its children
_BUFFERS = {1: 0, INT: 2, 3: 2, BOOL: 2, 12: 2, STRUCT: 1, 15: 2, 16: 1, 17: 2, 18: 2, 21: 2}
_BUFFERS |= dict.fromkeys((7, 8, 9, 10, 11), 2) | dict.fromkeys(TEXTS, 3)
DAMAGED = "is no Arrow file, or a damaged one; restore it"
_MOST_METADATA, _MOST_COLUMNS, _MOST_DEPTH = 1 << 26, 10_000, 32


class ArrowError(Exception):
    """What is wrong with a file, as the end of a sentence about it."""


@dataclass(frozen=True)
class Column:
    """A column of the schema; ``coded`` says that a dictionary holds its values."""

    name: str
    kind: int
    number: str = ""  # of an `INT`: its type, as numpy writes it
    coded: bool = False
    children: tuple[Column, ...] = ()


@dataclass
class Values:
    """The N values of a column.

    Attributes:
        there: (N,), false where the value is null.
        numbers: (N,) int64 of `INT` and `BOOL`.
        spans: (N, 2) of `TEXTS`: first byte in the file, and bytes.
        children: of a `STRUCT`, by name.
    """

    there: NDArray[np.bool_]
    numbers: NDArray[np.int64] | None = None
    spans: NDArray[np.int64] | None = None
    children: dict[str, Values] = field(default_factory=dict)


def arrow_batches(file: Path, wanted: Sequence[str]) -> Iterator[dict[str, Values]]:
    """The columns ``wanted`` of each batch of rows of a file.

    One whose values are neither numbers, nor text or bytes, nor a struct of these is left out.

    Raises:
        UserError: the file is missing, damaged or compressed, or has no such column.
    """
    try:
        yield from _batches(np.memmap(file, dtype=np.uint8, mode="r"), wanted)
    except ArrowError as error:
        raise UserError(f"{file} {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); restore it") from error
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
        raise UserError(f"{file} {DAMAGED}") from error


def text_of(file: Path, spans: NDArray[np.int64]) -> list[str]:
    """The text at each span (N, 2) of a file; what is no UTF-8 is replaced."""
    data = np.memmap(file, dtype=np.uint8, mode="r") if len(spans) else np.empty(0, np.uint8)
    return [data[at : at + size].tobytes().decode("utf-8", "replace") for at, size in spans.tolist()]


def _batches(data: Bytes, wanted: Sequence[str]) -> Iterator[dict[str, Values]]:
    columns: list[Column] = []
    for kind, header, body in _messages(data):
        if kind == 1:
            left = [_MOST_COLUMNS]
            columns = [_column(part, _MOST_DEPTH, left) for part in header.tables(1)]
            if lacking := set(wanted) - {column.name for column in columns}:
                raise ArrowError(f"has no column '{min(lacking)}'; restore it")
        elif kind == 3:
            if header.has(3):
                raise ArrowError("is compressed; write it again with save_to_disk of Hugging Face's datasets")
            rows = _Rows(data, header, body)
            found = {column.name: rows.take(column, column.name in wanted) for column in columns}
            yield {name: values for name in wanted if (values := found[name]) is not None}
    if not columns:
        raise ArrowError(DAMAGED)


def _messages(data: Bytes) -> Iterator[tuple[int, _Table, int]]:
    """(kind, header, first byte of the body) of each message."""
    at = 8 if data[:6].tobytes() == b"ARROW1" else 0
    while at + 8 <= len(data):
        mark, size = struct.unpack("<Ii", data[at : at + 8].tobytes())
        if mark != 0xFFFFFFFF or not 0 <= size <= min(_MOST_METADATA, len(data) - at - 8):
            raise ArrowError(DAMAGED)
        if size == 0:
            return
        buffer = data[at + 8 : at + 8 + size].tobytes()
        message = _Table(buffer, struct.unpack_from("<I", buffer)[0])
        body, length = at + 8 + size, message.number(3, "<q")
        if not 0 <= length <= len(data) - body:
            raise ArrowError("ends before its last row; restore it")
        header = message.table(2)
        if header is not None:
            yield message.number(1, "<B"), header, body
        at = body + length
    raise ArrowError("ends before its last row; restore it")


class _Table:
    """A table of a FlatBuffer: fields by number, each of which may be absent."""

    def __init__(self, buffer: bytes, at: int) -> None:
        self.buffer, self.at = buffer, at
        self._fields = at - struct.unpack_from("<i", buffer, at)[0]
        if self._fields < 0:
            raise ArrowError(DAMAGED)
        self._size = struct.unpack_from("<H", buffer, self._fields)[0]

    def _place(self, number: int) -> int:
        slot = 4 + 2 * number
        offset = struct.unpack_from("<H", self.buffer, self._fields + slot)[0] if slot < self._size else 0
        return self.at + offset if offset else 0

    def has(self, number: int) -> bool:
        return self._place(number) > 0

    def number(self, number: int, form: str) -> int:
        """A field that is a number; 0 where it is absent."""
        place = self._place(number)
        return int(struct.unpack_from(form, self.buffer, place)[0]) if place else 0

    def _far(self, place: int) -> int:
        return place + int(struct.unpack_from("<I", self.buffer, place)[0])

    def table(self, number: int) -> _Table | None:
        place = self._place(number)
        return _Table(self.buffer, self._far(place)) if place else None

    def vector(self, number: int, size: int) -> tuple[int, int]:
        """(place, length) of a field that is a vector of items of ``size`` bytes."""
        if not (place := self._place(number)):
            return 0, 0
        place = self._far(place)
        length = int(struct.unpack_from("<I", self.buffer, place)[0])
        if place + 4 + length * size > len(self.buffer):
            raise ArrowError(DAMAGED)
        return place + 4, length

    def tables(self, number: int) -> list[_Table]:
        place, length = self.vector(number, 4)
        return [_Table(self.buffer, self._far(place + 4 * item)) for item in range(length)]

    def text(self, number: int) -> str:
        place, length = self.vector(number, 1)
        return self.buffer[place : place + length].decode("utf-8")

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """A vector of structs of two numbers."""
        place, length = self.vector(number, 16)
        return list(struct.iter_unpack("<qq", self.buffer[place : place + 16 * length]))


def _column(table: _Table, depth: int, left: list[int]) -> Column:
    left[0] -= 1
    if not depth or left[0] < 0:
        raise ArrowError(f"has more than {_MOST_COLUMNS:,} columns, or some within {_MOST_DEPTH} others")
    kind, number, about = table.number(2, "<B"), "", table.table(3)
    if kind == INT:
        if about is None or (bits := about.number(0, "<i")) not in (8, 16, 32, 64):
            raise ArrowError(DAMAGED)
        number = f"<{'i' if about.number(1, '<?') else 'u'}{bits // 8}"
    children = tuple(_column(child, depth - 1, left) for child in table.tables(5))
    return Column(table.text(0), kind, number, table.has(4), children)


class _Rows:
    """A batch of rows: its columns are taken in the order of the schema."""

    def __init__(self, data: Bytes, header: _Table, body: int) -> None:
        self.data, self.body = data, body
        self.nodes, self.buffers = iter(header.pairs(1)), iter(header.pairs(2))

    def take(self, column: Column, wanted: bool) -> Values | None:
        """The values of the next column, which this is; None where they are not wanted, or of another
        kind."""
        kind = INT if column.coded else column.kind
        if kind not in _BUFFERS:
            raise ArrowError(f"has a column '{column.name}' of a kind that is not read here; leave it out")
        count, nulls = next(self.nodes, (-1, 0))
        if not 0 <= count <= 8 * len(self.data):
            raise ArrowError(DAMAGED)
        places = [self._buffer() for _ in range(_BUFFERS[kind])]
        values = None
        if wanted and not column.coded and (kind in (INT, BOOL, STRUCT) or kind in TEXTS):
            all_there = np.broadcast_to(np.True_, count)
            values = Values(self._bits(*places[0], count) if nulls else all_there)
            if kind == BOOL:
                values.numbers = self._bits(*places[1], count).astype(np.int64)
            elif kind == INT:
                values.numbers = self._array(*places[1], column.number, count).astype(np.int64)
            elif kind in TEXTS:
                values.spans = self._spans(places[1], places[2], TEXTS[kind], count)
        for child in () if column.coded else column.children:
            found = self.take(child, values is not None)
            if values is not None and found is not None and len(found.there) == count:
                values.children[child.name] = found
        return values

    def _buffer(self) -> tuple[int, int]:
        """(first byte in the file, bytes)."""
        offset, size = next(self.buffers, (-1, 0))
        if offset < 0 or size < 0 or self.body + offset + size > len(self.data):
            raise ArrowError(DAMAGED)
        return self.body + offset, size

    def _array(self, at: int, size: int, form: str, count: int) -> NDArray[Any]:
        kind = np.dtype(form)
        if count * kind.itemsize > size:
            raise ArrowError(DAMAGED)
        return np.frombuffer(self.data[at : at + count * kind.itemsize].tobytes(), dtype=kind)

    def _bits(self, at: int, size: int, count: int) -> NDArray[np.bool_]:
        packed = self._array(at, size, "u1", -(-count // 8))
        return np.unpackbits(packed, count=count, bitorder="little").astype(bool)

    def _spans(
        self, offsets: tuple[int, int], text: tuple[int, int], form: str, count: int
    ) -> NDArray[np.int64]:
        if not count:
            return np.empty((0, 2), dtype=np.int64)
        ends = self._array(*offsets, form, count + 1).astype(np.int64)
        sizes = np.diff(ends)
        if ends[0] < 0 or ends[-1] > text[1] or (sizes < 0).any():
            raise ArrowError(DAMAGED)
        return np.stack([text[0] + ends[:-1], sizes], axis=1)
