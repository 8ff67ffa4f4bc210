"""CIFAR-10 and CIFAR-100: the released archive for Python, the binary one, or folders of images.

torchvision reads the archive for Python alone, and unaltered, and unpickles it by Python's own unpickler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.layouts.folders import FOLDER_LAYOUT, imagefolder, require_folder, require_split
from automix_transfer.data.layouts.walking import find_root
from automix_transfer.data.listing import Listing
from automix_transfer.errors import UserError
from automix_transfer.io import load_arrays
from automix_transfer.text_files import MOST_BYTES, read_text

SIDE = 32
PIXELS = 3 * SIDE * SIDE
_RESTORE = "restore it from the released archive"


@dataclass(frozen=True)
class Release:
    """One of the two data sets: its files, and where labels and names lie in them."""

    classes: int
    python: str  # folder of the archive for Python
    binary: str  # folder of the binary archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    label_key: str
    names_key: str
    names_file: str  # of the binary archive
    label_bytes: int  # before each image of the binary archive; the last one is the label

    @property
    def layout(self) -> str:
        return (
            f"ROOT/{self.python}/ or ROOT/{self.binary}/ of cs.toronto.edu/~kriz/cifar.html, or folders "
            f"of images: {FOLDER_LAYOUT}"
        )


CIFAR10 = Release(
    10,
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{n}" for n in range(1, 6)),
    ("test_batch",),
    "batches.meta",
    "labels",
    "label_names",
    "batches.meta.txt",
    1,
)
CIFAR100 = Release(
    100,
    "cifar-100-python",
    "cifar-100-binary",
    ("train",),
    ("test",),
    "meta",
    "fine_labels",
    "fine_label_names",
    "fine_label_names.txt",
    2,
)


def cifar10(root: Path, split: str, **options: Any) -> Listing:
    """CIFAR-10; splits ``train`` and ``test``; ``val`` means test, unless there are folders with a val/.

    Args:
        options: of `imagefolder`.
    """
    return _read(CIFAR10, root, split, **options)


def cifar100(root: Path, split: str, **options: Any) -> Listing:
    """CIFAR-100 with its 100 fine classes; splits as `cifar10`."""
    return _read(CIFAR100, root, split, **options)


def _read(release: Release, root: Path, split: str, **options: Any) -> Listing:
    require_folder(root, release.layout)
    usual = (release.python, release.binary)
    place, notes = find_root(root, lambda folder: _batches(release, folder) is not None, usual)
    binary = _batches(release, place)
    if binary is None:
        chosen = "test" if split == "val" and not (root / "val").is_dir() else split
        return imagefolder(root, chosen, **options)
    require_split("CIFAR", split, ("train", "test", "val"), " (val means test)")
    names = release.train if split == "train" else release.test
    classes = _class_names(release, place, binary)
    files = [place / f"{name}.bin" if binary else place / name for name in names]
    parts = [(_binary_part if binary else _python_part)(release, file) for file in files]
    labels = np.concatenate([part[1] for part in parts])
    paths = [
        file / str(number) for file, part in zip(files, parts, strict=True) for number in range(len(part[1]))
    ]
    images = np.concatenate([part[0] for part in parts]).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    pixels = np.ascontiguousarray(images)
    return Listing(paths, labels.tolist(), classes, pixels=pixels, notes=tuple(notes))


def _batches(release: Release, folder: Path) -> bool | None:
    """Whether the batches in ``folder`` are the binary ones; None where there are none."""
    for end in ("", ".bin"):
        if any((folder / f"{name}{end}").is_file() for name in (release.test[0], release.train[0])):
            return bool(end)
    return None


def _class_names(release: Release, folder: Path, binary: bool) -> list[str]:
    file = folder / (release.names_file if binary else release.meta)
    if binary:
        try:
            names: Any = read_text(file, MOST_BYTES).split()
        except UserError as error:
            raise UserError(f"{file} with the names of the classes could not be read; {_RESTORE}") from error
    else:
        names = dict(_mapping(file)).get(release.names_key)
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not good or len(names) != release.classes:
        raise UserError(f"{file} does not hold the names of {release.classes} classes; {_RESTORE}")
    return names


def _python_part(release: Release, file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of one pickled batch."""
    content = dict(_mapping(file))
    data, labels = content.get("data"), content.get(release.label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (PIXELS,):
        raise UserError(f"{file} has no 'data' of uint8 (images, {PIXELS}); {_RESTORE}")
    if (
        not isinstance(labels, Sequence)
        or len(labels) != len(data)
        or not all(type(label) is int and 0 <= label < release.classes for label in labels)
    ):
        raise UserError(
            f"{file} has no '{release.label_key}' with a class of 0 to {release.classes - 1} for each of its "
            f"{len(data)} images; {_RESTORE}"
        )
    return data, np.asarray(labels, dtype=np.int64)


def _mapping(file: Path) -> Iterator[tuple[str, Any]]:
    content = load_arrays(file, _RESTORE)
    if not isinstance(content, dict):
        raise UserError(f"{file} is no batch of CIFAR; {_RESTORE}")
    for key, value in content.items():  # written by Python 2: bytes in some copies
        yield key.decode("latin1") if isinstance(key, bytes) else str(key), value


def _binary_part(release: Release, file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of a binary batch: of each image its label bytes, then its pixels."""
    try:
        content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{file} could not be read ({error.strerror}); {_RESTORE}") from error
    row = release.label_bytes + PIXELS
    if not len(content) or len(content) % row:
        wanted = f"no multiple of {row:,} for an image and its label"
        raise UserError(f"{file} has {len(content):,} bytes, {wanted}; {_RESTORE}")
    rows = content.reshape(-1, row)
    labels = rows[:, release.label_bytes - 1].astype(np.int64)
    if labels.max() >= release.classes:
        classes = f"the classes are 0 to {release.classes - 1}"
        raise UserError(f"{file} has label {labels.max()}, but {classes}; {_RESTORE}")
    return rows[:, release.label_bytes :], labels
