"""What is kept of each image, in a file, so that memory stays flat and an interrupted run goes on from it.

A record holds what an image contributes at every threshold (see `box_task` and `mask_task`), so any question
about thresholds can be answered without evaluating a map again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.errors import UserError
from automix_transfer.owner import refuse_foreign

TOP = 5
#: what every record begins with: whether it is complete, and the predicted classes, best first (-1 where
#: unknown)
COMMON = [("done", "u1"), ("top", "i4", (TOP,))]


class Records:
    """A file of one record an image.

    Args:
        n_images: number of records.
        dtype: of a record; its first fields are `COMMON`.
        path: where the file lies while the run lasts; ``None`` for a nameless temporary file that cannot be
            continued.
        signature: everything the records depend on; a file of another signature is not continued but begun
            anew.

    Raises:
        UserError: the disk has no room for it, or ``path`` is somebody else's file.
    """

    def __init__(self, n_images: int, dtype: np.dtype, path: Path | None, signature: dict[str, Any]) -> None:
        self.path = path
        self._signature_path = None if path is None else path.with_name(path.name + ".json")
        digest = hashlib.sha256(
            json.dumps([signature, n_images, dtype.descr], sort_keys=True).encode()
        ).hexdigest()
        size = n_images * dtype.itemsize
        beside, goes_on = self._signature_path, False
        if path and beside:
            refuse_foreign(path, lambda _: beside.is_file(), "file of an interrupted evaluation")
            goes_on = path.is_file() and path.stat().st_size == size and _text(beside) == digest
        try:
            if path is None or beside is None:
                self._file: Any = tempfile.TemporaryFile(prefix="wsol")
            elif goes_on:
                self._file = open(path, "r+b")
            else:  # of a process that is killed here, nothing is gone on with
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                beside.write_text(digest)
                self._file = open(path, "w+b")
            if not goes_on and size:
                _allocate(self._file, size)
        except OSError as error:
            raise UserError(
                f"{path or tempfile.gettempdir()} has no room for {size:,} bytes of intermediate results "
                f"({error.strerror}); free space or choose another --output"
            ) from error
        self._rows: NDArray = np.memmap(self._file, dtype=dtype, mode="r+", shape=(n_images,))
        self.n_continued = int(self._rows["done"].sum())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def missing(self) -> list[int]:
        """Indices of the images still to be evaluated."""
        return np.flatnonzero(self._rows["done"] == 0).tolist()

    def put(self, index: int, top: NDArray | None, fields: dict[str, Any]) -> None:
        """Store one image's record; it counts only once it is complete."""
        row = self._rows[index]
        row["top"] = -1
        if top is not None:
            row["top"][: len(top)] = top[:TOP]
        for name, value in fields.items():
            row[name] = value
        row["done"] = 1

    def remove(self) -> None:
        """Delete the file; the results have been written."""
        del self._rows
        self._file.close()
        for path in (self.path, self._signature_path):
            if path is not None:
                path.unlink(missing_ok=True)


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.is_file() else ""


def _allocate(file: Any, size: int) -> None:
    """``size`` bytes, so that a full disk shows here and not as a crash in the middle."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
