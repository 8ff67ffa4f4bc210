"""Files that can be computed again, in the user's cache folder: verdicts on images, indices of shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def cache_file(name: str, about: str, files: Iterable[Path]) -> Path:
    """``<cache>/automix_transfer/<name>`` with a digest of ``about`` and the ``files`` in place of ``*``.

    Each file counts with its path, size and time, so what was computed from other files is not found again.

    So what was computed from files that have changed since is not found again.
    """
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for path in files:
        try:
            status = path.stat()
            digest.update(
                f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        except OSError:
            digest.update(f"{path}\0missing\n".encode(errors="surrogateescape"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "automix_transfer" / name.replace("*", digest.hexdigest())
