"""Images that the training and the test split of a detection data set share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError, few


def refuse_leak(
    trained: Iterable[Mapping[str, Any]], tested: Iterable[Mapping[str, Any]], lists: str
) -> None:
    """An image in both splits would make the test a test of memory: the same file, or a file of the same name
    and content.

    Raises:
        UserError: there is one; ``lists`` says where the images are listed.
    """
    files = defaultdict(set)
    for record in trained:
        path = Path(record["file_name"])
        files[path.name].add(path)
    both = [
        path.name
        for path in (Path(record["file_name"]) for record in tested)
        if any(path == other or _equal(path, other) for other in files.get(path.name, ()))
    ]
    if both:
        raise UserError(
            f"{len(both)} images are in both the training and the test split ({few(sorted(both))}); "
            f"take them out of one of {lists}"
        )


def _equal(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
