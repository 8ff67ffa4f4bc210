"""What a layout reader returns, and how it reads a list file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError
from automix_transfer.text_files import read_bytes, read_text

Box = tuple[float, float, float, float]
Table = dict[str, tuple[int, Any]]


class Paths(Sequence[Path]):
    """File names in one buffer.

    As a list of `Path` those of ImageNet take 15 s and 300 MB to make, and a worker that only looks at one
    copies its memory page.
    """

    def __init__(self, names: Iterable[str]) -> None:
        text = "".join(f"{name}\0" for name in names)  # no file name holds a zero
        self._text = np.frombuffer(text.encode("utf-8", errors="surrogateescape"), dtype=np.uint8)
        self._ends = np.flatnonzero(self._text == 0)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """File ``index`` as text."""
        index = range(len(self))[index]
        start = self._ends[index - 1] + 1 if index else 0
        return self._text[start : self._ends[index]].tobytes().decode("utf-8", errors="surrogateescape")

    def names(self) -> list[str]:
        """All files as text."""
        return self._text.tobytes().decode("utf-8", errors="surrogateescape").split("\0")[:-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Path(self.name(number)) for number in range(*index.indices(len(self)))]
        return Path(self.name(index))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Paths of {len(self)} files"


def names_of(paths: Iterable[str | Path]) -> Iterable[str]:
    """Files as text, without a `Path` for each that `Paths` holds."""
    return paths.names() if isinstance(paths, Paths) else map(str, paths)


def leads_out(name: str) -> bool:
    """Whether a relative path from a file leaves the folder that it is joined to."""
    return not name.strip() or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name


@dataclass(frozen=True)
class Packed:
    """Where images lie inside larger files.

    Attributes:
        files: the larger files.
        spans: (N, 3) int64: number of the file, first byte, bytes.
    """

    files: tuple[Path, ...]
    spans: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        """The bytes of image ``index``.

        Raises:
            UserError: the file cannot be read, or has become shorter.
        """
        number, offset, size = (int(value) for value in self.spans[index])
        try:
            # opened for each image: a thousand open files are more than most systems allow
            with self.files[number].open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise UserError(
                f"{self.files[number]} could not be read ({error.strerror}); restore it"
            ) from error
        if len(content) < size:
            raise UserError(f"{self.files[number]} has become shorter since it was indexed; restore it")
        return content


@dataclass(frozen=True)
class Listing:
    """The images of one split, in a fixed order.

    Attributes:
        paths: image files.
        labels: class number of each image, 0 <= label < len(classes); none of images with `vectors`.
        classes: class names in label order; the same for every split of a data set.
        boxes: for each image its boxes (x0, y0, x1, y1) in pixels of the image as stored; None where the
            layout has none.
        crop_bottom: rows to cut off the bottom of each image when it is read (the banner of Aircraft).
        pixels: (N, H, W, 3) uint8, where the images lie in a few files together; ``paths`` then say where:
            FILE/NUMBER.
        packed: where the images lie in larger files; ``paths`` then say where: SHARD/MEMBER, FILE/ROW.
        vectors: (N, K) int8, where an image shows several classes: 1 there, 0 not there, -1 unknown.
        notes: what the reader found worth saying, e.g. files that it left aside.
    """

    paths: Sequence[Path]
    labels: list[int]
    classes: list[str]
    boxes: list[list[Box]] | None = None
    crop_bottom: int = 0
    pixels: NDArray[np.uint8] | None = None
    packed: Packed | None = None
    vectors: NDArray[np.int8] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self, root: str | Path) -> str:
        """How many images, and a hash of their names below ``root`` and their labels, in order."""
        names = "\0".join(names_of(self.paths)).replace(f"{root}/", "")
        return f"{len(self):,} images ({self._hash(names)[:12]})"

    def digest(self) -> str:
        """A hash of the images' names, each with the folder that it lies in, and of their labels, in order:
        the same wherever the data set lies."""
        return self._hash("\0".join("/".join(name.rsplit("/", 2)[-2:]) for name in names_of(self.paths)))

    def _hash(self, names: str) -> str:
        labels = np.asarray(self.labels, dtype=np.int64) if self.vectors is None else self.vectors
        return hashlib.sha256(names.encode("utf-8", errors="surrogateescape") + labels.tobytes()).hexdigest()

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the images."""
        if self.packed is not None:
            return self.packed.files
        return self.paths if self.pixels is None else sorted({path.parent for path in self.paths})

    def size(self, index: int) -> int:
        """Bytes of image ``index`` as it is stored; -1 where it is not there."""
        if self.packed is not None:
            return int(self.packed.spans[index, 2])
        try:
            return self.paths[index].stat().st_size
        except OSError:
            return -1

    def content(self, index: int) -> bytes:
        """The bytes of image ``index`` as it is stored; none where it cannot be read."""
        try:
            return self.packed.read(index) if self.packed is not None else read_bytes(self.paths[index])
        except UserError:
            return b""

    def select(self, indices: Sequence[int]) -> Listing:
        """The images at ``indices``, in that order, with the same classes."""
        return replace(
            self,
            paths=[self.paths[i] for i in indices],
            labels=[self.labels[i] for i in indices] if self.vectors is None else [],
            vectors=None if self.vectors is None else self.vectors[list(indices)],
            boxes=None if self.boxes is None else [self.boxes[i] for i in indices],
            pixels=None if self.pixels is None else self.pixels[list(indices)],
            packed=self.packed and replace(self.packed, spans=self.packed.spans[list(indices)]),
        )


def read_lines(
    path: Path,
    columns: int,
    problems: Problems,
    *,
    separator: str | None = None,
    exact: bool = True,
    form: str,
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a list file without blank lines; malformed ones go to ``problems``.

    Args:
        columns: fields a line; with ``exact=False`` the last field takes the rest of the line, spaces
            included.
        form: what a line looks like, for the message, e.g. ``<image id> <path>``.
    """
    if not path.exists():
        return problems.add(path, "the file is missing")
    try:
        lines = read_text(path).splitlines()
    except UserError as error:
        return problems.found.append(str(error))
    filled = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        problems.add(path, "the file is empty")
    for number, line in filled:
        fields = line.split(separator, -1 if exact else columns - 1)
        if len(fields) == columns:
            yield number, fields
        else:
            problems.add(path, f"'{line[:60]}' is not of the form {form}", number)


def read_table(
    path: Path,
    problems: Problems,
    form: str,
    known: Container[str] | None = None,
    source: object = "images.txt",
    rest: bool = False,
    box: Callable[..., Box | None] | None = None,
) -> Table:
    """Lines ``<id> <value>`` as {id: (line, value)}; the value of a line without one is its id.

    Args:
        form: of a line, with each field in angle brackets.
        known: the ids that may be there, those of ``source``.
        rest: the last field is the rest of the line, spaces included.
        box: makes a box of the four numbers behind the id, or None of those that are none.
    """
    table: Table = {}
    for line, (key, *fields) in read_lines(path, form.count("<"), problems, exact=not rest, form=form):
        value: Any = [key, *fields][-1] if box is None else box(*parse_box(fields) or [math.nan] * 4)
        if value is None:
            shape = form.partition("> ")[2]
            problems.add(path, f"'{' '.join(fields)}' is not a box {shape} inside an image", line)
        elif key in table:
            problems.add(path, f"id '{key}' is listed twice", line)
        elif known is not None and key not in known:
            problems.add(path, f"image id '{key}' is not in {source}", line)
        else:
            table[key] = (line, value)
    return table


def parse_box(fields: Sequence[str]) -> tuple[float, float, float, float] | None:
    """Four finite numbers, or None."""
    try:
        a, b, c, d = (float(f) for f in fields)
    except ValueError:
        return None
    return (a, b, c, d) if all(map(math.isfinite, (a, b, c, d))) else None
