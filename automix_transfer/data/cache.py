"""When work counts as done: the marks by which verdicts on images, indices of shards and shards are known.

A mark is a digest of what the work was done on: names, labels or settings, and of each file its size and the
times of its last change. The second of those times (ctime) is set by the system, so a file that was put right
with its old size and date has another mark.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from automix_transfer.data.listing import names_of


def stamp(path: str | Path) -> tuple[int, int, int] | None:
    """(bytes, time of the last write, time of the last change) of a file in ns; None where it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def mark(about: str, files: Iterable[str | Path]) -> str:
    """A digest of ``about``, and of the path and `stamp` of each file."""
    digest = hashlib.blake2b(about.encode(errors="surrogateescape"), digest_size=16)
    for path in names_of(files):
        digest.update(f"{path}\0{stamp(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def cache_file(name: str, about: str, files: Iterable[str | Path]) -> Path:
    """``<cache>/automix_transfer/<name>`` with the `mark` of ``about`` and ``files`` in place of ``*``.

    So what was computed from files that have changed since is not found again.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "automix_transfer" / name.replace("*", mark(about, files))
