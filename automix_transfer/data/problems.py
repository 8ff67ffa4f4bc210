"""All problems of a data set at once: one error that holds every one of them, and shows the first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from automix_transfer.errors import UserError
from automix_transfer.shown import clean

SHOWN, SHOWN_IN_ALL = 20, 200
_NAMES = re.compile(r"'[^']*'|\S*[\d/]\S*")  # what differs between problems of a kind


def bounded(problems: Sequence[str]) -> list[str]:
    """The first 20 of each kind, at most 200, and how many more there are."""
    kinds: Counter[str] = Counter()
    shown: list[str] = []
    for text in problems:
        kind = _NAMES.sub("", text)
        kinds[kind] += 1
        if kinds[kind] <= SHOWN and len(shown) < SHOWN_IN_ALL:
            shown.append(text)
    rest = len(problems) - len(shown)
    return [*shown, *([f"... and {rest:,} more"] if rest else [])]


class ListError(UserError):
    """A `UserError` that also holds every problem that was found, of which its message shows the first."""

    def __init__(self, *lines: str, found: Sequence[str] = ()) -> None:
        super().__init__(*lines)
        self.found = tuple(map(clean, found))


class Problems:
    """Collects what is wrong, so that a user sees all of it at once and not one item a run."""

    def __init__(self, subject: str, found: Iterable[str] = ()) -> None:
        self.subject = subject
        self.found = list(found)

    def add(self, where: object, what: str, line: int | None = None) -> None:
        """Note one problem at ``where`` (a file, or a field of it), at ``line`` counted from 1.

        ``what`` also says what was expected.
        """
        self.found.append(f"{where}:{line}: {what}" if line else f"{where}: {what}")

    def add_many(self, where: object, what: str, names: Sequence[str], total: int = 0) -> None:
        """Note in one sentence what is wrong with all of ``names``, of ``total``."""
        if names:
            count = f"{len(names):,} of {total:,}" if total else f"{len(names):,}"
            self.add(where, f"{count} {what}, e.g. {names[0]}")

    def add_empty(
        self, where: object, classes: Sequence[str], labels: Iterable[int], notes: list[str] | None = None
    ) -> None:
        """Note classes without an image: a problem of a split that is trained on, and where others are read
        one sentence in ``notes``."""
        used = set(labels)
        empty = [name for label, name in enumerate(classes) if label not in used]
        if notes is None:
            self.add_many(where, "classes have no image", empty, len(classes))
        elif empty:
            notes.append(
                f"{where}: {len(empty):,} of {len(classes):,} classes have no image, e.g. {empty[0]}"
            )

    def add_missing(self, missing: Sequence[tuple[object, str, int | None]], total: int, of: object) -> None:
        """Note each (where, what, line). More than 20, or all, are one sentence: another folder was meant."""
        if len(missing) > SHOWN or len(missing) == total > 1:
            where, what, line = missing[0]
            example = f"{where}:{line}: {what}" if line else f"{where}: {what}"
            return self.add(of, f"{len(missing):,} of {total:,} entries are not there, e.g. {example}")
        for where, what, line in missing:
            self.add(where, what, line)

    def raise_if_any(self, remedy: str, more: str = "") -> None:
        """Raise one `ListError`: a single problem with ``remedy``, or the first 20 and the number of all.

        ``more`` says where to read the others.
        """
        if not self.found:
            return
        ending = f"; {remedy}" if remedy else ""
        if len(self.found) == 1:
            raise ListError(f"{self.subject}: {self.found[0]}{ending}", found=self.found)
        rest = len(self.found) - SHOWN
        lines = [
            f"{self.subject}: {len(self.found):,} problems{ending}",
            *(f"  {text}" for text in self.found[:SHOWN]),
        ]
        if rest > 0:
            lines.append(f"  ... and {rest:,} more{more}")
        raise ListError(*lines, found=self.found)
