"""Text files, and YAML that is only data.

Devices and pipes are not opened. In YAML, tags, which may build objects, are refused, and so are aliases that
unfold to more than a config holds; the types of plain scalars are those of `OmegaConf.load`.
"""

from __future__ import annotations

import codecs
import dataclasses
import errno
import functools
import os
import stat
import typing
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from automix_transfer.errors import UserError

#: UTF-32 first, since its mark begins with that of UTF-16
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PIECE, NOTHING = 1 << 24, bytes(4)  # UTF-32 has three null bytes in a row
MOST_BYTES = 1 << 20  # the largest recipe has 5 kB
MOST_VALUES, MOST_DEPTH, MOST_DIGITS = 20_000, 50, 80
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
#: what reading a YAML text may raise
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def read_bytes(path: str | Path, most: int | None = None, text: bool = False) -> bytes:
    """The content of a regular file of at most ``most`` bytes. A device or a pipe, which may never end, is
    not opened.

    Args:
        text: refuse a large file at the first `NOTHING`, which no text holds and sparse files consist of.

    Raises:
        UserError: the file is missing, not regular, too large or may not be read.
    """
    try:
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{path} is a device or a pipe; give a regular file")
        with open(path, "rb") as file:
            if text and about.st_size > PIECE:
                while piece := file.read(PIECE):
                    if NOTHING in piece:
                        raise UserError(f"{path} holds null bytes and is no text; restore it")
                file.seek(0)
            content = file.read() if most is None else file.read(most + 1)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; correct the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UserError(
            f"{path} could not be read ({getattr(error, 'strerror', None) or error}); give a file that can"
        ) from error
    if most is not None and len(content) > most:
        raise UserError(f"{path} has more than {most:,} bytes; give a smaller file")
    return content


def read_text(path: str | Path, most: int | None = None) -> str:
    """The text of a regular file in UTF-8, or in the UTF-16 or UTF-32 that its byte order mark announces; the
    mark is left out, and lines end in a line feed alone.

    Raises:
        UserError: see `read_bytes`; the bytes are no text.
    """
    content = read_bytes(path, most, text=True)
    try:
        text = content.decode(_encoding_of(content))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); save it so"
        ) from error
    if "\0" in text:
        raise UserError(f"{path} holds null characters, as UTF-16 without its mark does; save it in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_name(name: str) -> str:
    """A name as it is compared: composed (NFC), which macOS decomposes, and without blanks at its ends."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def same_names(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    """Whether two lists of names are the same, in the same order."""
    return [*map(plain_name, ours)] == [*map(plain_name, theirs)]


def _encoding_of(content: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding
    return "utf-8"


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, problem: str, node: Any) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


class _Loader(get_yaml_loader()):  # type: ignore[misc]
    """OmegaConf's, whose keys are unique, with a budget."""

    values = depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _Refused(f"the tag {event.tag[:80]} is not read; leave it out", event)
        self.values, self.depth = self.values + 1, self.depth + 1
        if self.values > MOST_VALUES or self.depth > MOST_DEPTH:
            raise _Refused(_too_much(self.values > MOST_VALUES), event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > MOST_DIGITS:
            raise _Refused(f"a number has {len(node.value):,} digits", node)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str, schema: type | None = None) -> Any:
    """The value of a YAML text as dicts, lists, text, numbers, booleans and None.

    Args:
        schema: a dataclass; where it has text, a number or a boolean stays the text that was written, such as
            ``2024_01``.

    Raises:
        yaml.YAMLError and others of `YAML_ERRORS`; `yaml_problem` says what is wrong.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _unfolded(node, {})
        if schema is not None:
            _keep_text(node, schema)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML text and where, as the end of a sentence about it."""
    mark = getattr(error, "problem_mark", None)
    where = f" at line {mark.line + 1}" if mark else ""
    says = getattr(error, "problem", None) or str(error) or type(error).__name__
    verb = "is refused" if isinstance(error, _Refused) else "is not valid YAML"
    return f"{verb}{where} ({says.splitlines()[0][:200]})"


@functools.cache
def field_types(schema: type) -> dict[str, Any]:
    """The types of the fields of a dataclass by name."""
    return typing.get_type_hints(schema)


def is_text(kind: Any) -> bool:
    """Whether a field of type ``kind`` takes text, or text or None."""
    return kind is str or set(typing.get_args(kind)) == {str, type(None)}


def _keep_text(node: Any, schema: type) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    types = field_types(schema)
    for number, (key, value) in enumerate(node.value):
        kind = types.get(key.value) if isinstance(key, yaml.ScalarNode) else None
        if dataclasses.is_dataclass(kind):
            _keep_text(value, typing.cast(type, kind))
        elif is_text(kind) and isinstance(value, yaml.ScalarNode) and value.tag != _NULL:
            # another node, since an alias may use this one as a number
            node.value[number] = key, yaml.ScalarNode(_TEXT, value.value, value.start_mark)


def _unfolded(node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values ``node`` holds with its aliases written out, and how many levels."""
    if id(node) in known:
        if (found := known[id(node)]) is None:
            raise _Refused("an alias stands inside of what it names", node)
        return found
    known[id(node)] = None
    inner = () if isinstance(node, yaml.ScalarNode) else node.value
    pairs = isinstance(node, yaml.MappingNode)
    count = depth = 1
    for child in (part for pair in inner for part in pair) if pairs else inner:
        size, levels = _unfolded(child, known)
        count, depth = count + size, max(depth, levels + 1)
        if count > MOST_VALUES or depth > MOST_DEPTH:
            raise _Refused(_too_much(count > MOST_VALUES), child)
    known[id(node)] = count, depth
    return count, depth


def _too_much(values: bool) -> str:
    what = f"{MOST_VALUES:,} values" if values else f"{MOST_DEPTH} levels"
    return f"more than {what}, those of aliases counted each time; a config has fewer"
