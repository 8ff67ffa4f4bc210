"""Parts of a split, so that settings can be chosen on training images that were not trained on.

``train[:80%]`` is the first 80 % of the images of each class in the order of the list, ``train[80%:]`` the
rest: the notation of TensorFlow Datasets and of Hugging Face, but class by class. Of images with several
labels it is the first 80 % of all.
"""

from __future__ import annotations

import re
from collections import Counter

from automix_transfer.data.listing import Listing
from automix_transfer.errors import UserError

_PART = re.compile(r"(.+)\[(?:(\d{1,3})%)?:(?:(\d{1,3})%)?\]")


def sliced(split: str) -> tuple[str, tuple[int, int] | None]:
    """The split that a name is about, and which percent of it: (first, last); None: all of it.

    Raises:
        UserError: a part that is empty, or beyond 100 %.
    """
    found = _PART.fullmatch(split)
    if found is None:
        return split, None
    name, first, last = found[1], int(found[2] or 0), int(found[3] or 100)
    if not first < last <= 100:
        raise UserError(f"split {split} is no part of '{name}'; give one as {name}[:80%] or {name}[80%:]")
    return name, (first, last)


def bounds(count: int, part: tuple[int, int]) -> tuple[int, int]:
    """(begin, end) of ``part`` among ``count`` images in order. They are rounded up, so that of a single
    image the first part has it."""
    begin, end = (-(-count * percent // 100) for percent in part)
    return begin, end


def take(listing: Listing, part: tuple[int, int], split: str) -> Listing:
    """The images of ``part`` of each class.

    Raises:
        UserError: there is none.
    """
    labels = listing.labels if listing.vectors is None else [0] * len(listing)
    counts, seen = Counter(labels), Counter[int]()
    limits = {label: bounds(count, part) for label, count in counts.items()}
    chosen = []
    for index, label in enumerate(labels):
        begin, end = limits[label]
        if begin <= seen[label] < end:
            chosen.append(index)
        seen[label] += 1
    if not chosen:
        raise UserError(f"split {split} has no image: its classes are too small; give a larger part")
    return listing.select(chosen)
