"""Sets of a million images in a thousand tar files ("shards"), laid out as WebDataset's, read in any order.

The tar files are indexed once: which image lies in which file at which byte. So a sample is one read, as a
file in a folder is, and the order of samples is the same function of (seed, epoch) as everywhere: exact, the
same for any number of ranks and workers, entered at any batch. (The webdataset package streams shards through
shuffle buffers instead: less exact, and it cannot go back to where it was.)
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.cache import cache_file
from automix_transfer.data.images import MAX_BYTES, is_image_name
from automix_transfer.data.layouts.class_order import in_order, numbered, order_note
from automix_transfer.data.layouts.folders import require_folder
from automix_transfer.data.listing import Listing, Packed, Paths, read_table
from automix_transfer.data.problems import Problems
from automix_transfer.data.shards.tar import TarError, members
from automix_transfer.errors import UserError
from automix_transfer.io import atomic_write
from automix_transfer.progress import Progress
from automix_transfer.text_files import plain_name

CLASSES = "classes.txt"
SHARD_LAYOUT = (
    "ROOT/SPLIT-000000.tar, ... or ROOT/SPLIT/*.tar, each with KEY.jpg and KEY.cls (the class number as "
    "text; names in ROOT/classes.txt, one a line), or with CLASS/image.jpg; "
    "automix-transfer data pack writes them"
)
_LABEL_BYTES = 20  # a label file holds a number and perhaps a line end


@dataclass(frozen=True)
class _Index:
    """The images of one split as its shards hold them.

    Attributes:
        names: of the members, in order.
        spans: (N, 3): number of the shard, first byte, bytes.
        labels: (N,) numbers of ``.cls`` files, or positions in ``words``.
        words: sorted names of class folders; empty for shards with ``.cls`` files.
    """

    names: list[str]
    spans: NDArray[np.int64]
    labels: NDArray[np.int64]
    words: list[str]


def shards(
    root: Path, split: str, reference: str = "train", order: str = "auto", known: Sequence[str] = ()
) -> Listing:
    """The images of one split, in the order of shards and members.

    Classes are those of ``classes.txt``; where there is none, those of the ``reference`` split (its class
    folders, or 0 to its largest label).

    Args:
        order, known: of class folders, see `in_order`.

    Raises:
        UserError: no shards, a damaged one, an image without a label.
    """
    require_folder(root, SHARD_LAYOUT)
    files = shard_files(root, split)
    index = _load(files, f"shards of {split} at {root}")
    listed: Path | str = root / CLASSES
    notes: tuple[str, ...] = ()
    if (root / CLASSES).is_file():
        words = _class_names(root / CLASSES)
    else:
        listed, of_classes = reference, index
        if split != reference and (others := _find(root, reference)):
            of_classes = _load(others, f"shards of {reference} at {root}")
        if bool(of_classes.words) != bool(index.words):
            raise UserError(
                f"the shards of {split} and {reference} at {root} label their images in different ways "
                "(.cls files or folders); pack both in one way"
            )
        words = in_order(of_classes.words, order, known) if of_classes.words else []
        notes = order_note(words)
        words = words or numbered(int(of_classes.labels.max()), f"{reference} at {root}")
    labels = index.labels
    place = {plain_name(word): position for position, word in enumerate(words)}
    if unknown := sorted({plain_name(word) for word in index.words} - place.keys()):
        raise UserError(
            f"the shards of {split} at {root} have {len(unknown)} class folder(s) that are not among the "
            f"classes of {listed}, e.g. '{unknown[0]}'; both must use the same names"
        )
    if index.words:
        labels = np.asarray([place[plain_name(word)] for word in index.words], dtype=np.int64)[labels]
    elif labels.max() >= len(words):
        raise UserError(
            f"the shards of {split} at {root} have label {labels.max()}, but there are {len(words)} classes "
            f"(from {listed}); correct the labels or the list of classes"
        )
    paths = (
        f"{files[number]}/{name}"
        for number, name in zip(index.spans[:, 0].tolist(), index.names, strict=True)
    )
    packed = Packed(tuple(files), index.spans)
    return Listing(Paths(paths), labels.tolist(), words, packed=packed, notes=notes)


def shard_files(root: Path, split: str) -> list[Path]:
    """The tar files of a split, sorted by name.

    Raises:
        UserError: there is none.
    """
    found = _find(root, split)
    if not found:
        packed = sorted(path.name for path in root.glob("*.tar.*"))
        have = ", ".join(sorted(path.name for path in root.glob("*.tar"))[:4]) or "no tar files at all"
        remedy = "name another with data.train_split or data.val_split"
        raise UserError(
            f"data root {root} has no shards of split '{split}' (it has: {have}); expected {SHARD_LAYOUT}; "
            + (f"{packed[0]} is compressed: unpack it to .tar" if packed else remedy)
        )
    return found


def _find(root: Path, split: str) -> list[Path]:
    if split and (root / split).is_dir():
        return sorted((root / split).glob("*.tar"))
    return sorted(path for path in root.glob("*.tar") if split in re.split(r"[^A-Za-z0-9]+", path.stem))


def _class_names(path: Path) -> list[str]:
    problems = Problems(str(path.parent))
    names = list(read_table(path, problems, "<class>", rest=True))
    problems.raise_if_any("name each class once, one a line")
    return names


def _load(files: Sequence[Path], what: str) -> _Index:
    """The index from the user's cache folder, or built now and kept there."""
    memory = cache_file("shards_*.npz", "1", files)
    try:
        with np.load(memory, allow_pickle=False) as held:
            names, words = (
                bytes(held[key]).decode("utf-8", errors="surrogateescape").split("\0")
                for key in ("names", "words")
            )
            index = _Index(names, held["spans"], held["labels"], [word for word in words if word])
        if index.spans.shape == (len(names), 3) and index.labels.shape == (len(names),):
            return index
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or damaged
    index = _build(files, what)
    texts = {
        key: "\0".join(getattr(index, key)).encode("utf-8", "surrogateescape") for key in ("names", "words")
    }
    arrays: dict[str, Any] = {key: np.frombuffer(text, np.uint8) for key, text in texts.items()}
    arrays |= {"spans": index.spans, "labels": index.labels}
    with suppress(UserError):  # a cache that cannot be written costs time only
        atomic_write(memory, lambda file: np.savez(file, **arrays))
    return index


def _build(files: Sequence[Path], what: str) -> _Index:
    problems = Problems(what)
    names: list[str] = []
    spans: list[tuple[int, int, int]] = []
    raw: list[int | str] = []
    progress = Progress(f"{what}, indexing", "shards")
    for number, file in enumerate(files):
        for name, offset, size, label in _images(file, problems):
            names.append(name)
            spans.append((number, offset, size))
            raw.append(label)
        progress(number + 1, len(files), f"{len(names):,} images")
    if not names and not problems.found:
        problems.add(files[0].parent, "the shards hold no image")
    kinds = {type(label) for label in raw}
    if len(kinds) > 1:
        problems.add(files[0].parent, "some shards label images by .cls files and some by folders")
    problems.raise_if_any(f"restore or pack the shards again; the layout is {SHARD_LAYOUT}")
    words = sorted({label for label in raw if isinstance(label, str)})
    place = {word: position for position, word in enumerate(words)}
    labels = [place[label] if isinstance(label, str) else label for label in raw]
    return _Index(names, np.asarray(spans, np.int64).reshape(-1, 3), np.asarray(labels, np.int64), words)


def _images(file: Path, problems: Problems) -> list[tuple[str, int, int, int | str]]:
    """(member, offset, bytes, label) of each image of one shard; the label is a number or a folder's name."""
    images: list[tuple[str, int, int]] = []
    numbers: dict[str, tuple[int, int]] = {}
    links: list[str] = []
    try:
        for name, offset, size in members(file, links):
            name = name.removeprefix("./")
            if is_image_name(PurePosixPath(name).name) and size > MAX_BYTES:
                problems.add(file, f"'{name}' has {size:,} bytes; an image has at most {MAX_BYTES:,}")
            elif is_image_name(PurePosixPath(name).name):
                images.append((name, offset, size))
            elif name.endswith(".cls"):
                numbers[name.removesuffix(".cls")] = offset, size
        labels = _numbers(file, numbers, problems)
    except (TarError, OSError) as error:
        problems.add(
            file, str(error) if isinstance(error, TarError) else f"could not be read ({error.strerror})"
        )
        return []
    for name in links:
        if is_image_name(PurePosixPath(name).name) or name.endswith(".cls"):
            remedy = "pack files (GNU tar: --dereference --hard-dereference)"
            problems.add(file, f"'{name}' is a link without bytes; {remedy}")
    found: list[tuple[str, int, int, int | str]] = []
    seen: dict[str, str] = {}
    for name, offset, size in images:
        key = _key(name)
        if key in numbers:
            if seen.setdefault(key, name) != name:  # which of the two is the sample's is not ours to guess
                problems.add(file, f"sample '{key}' has two images, '{seen[key]}' and '{name}'; pack one")
            elif key in labels:
                found.append((name, offset, size, labels[key]))
        elif numbers or "/" not in name:
            wanted = f"{PurePosixPath(key).name}.cls, or a class folder"
            problems.add(file, f"image '{name}' has no label ({wanted})")
        else:
            found.append((name, offset, size, name.split("/", 1)[0]))
    return found


def _key(name: str) -> str:
    """A member's name up to the first dot behind its folders, as WebDataset groups members into samples."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _numbers(file: Path, places: dict[str, tuple[int, int]], problems: Problems) -> dict[str, int]:
    labels = {}
    with file.open("rb") as stream:
        for key, (offset, size) in places.items():
            stream.seek(offset)
            text = stream.read(min(size, _LABEL_BYTES)).strip()
            if size > _LABEL_BYTES or not text.isdigit() or len(text) > 9:
                problems.add(file, f"'{key}.cls' is '{text.decode(errors='replace')[:20]}', no class number")
            else:
                labels[key] = int(text)
    return labels
