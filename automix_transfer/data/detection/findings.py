"""What the readers of detection data find: problems, which are refused, and habits, which are read and told.

Things of one kind are one line with their number, since an exporter's habit is in every object of its file.
"""

from __future__ import annotations

from automix_transfer.data.problems import Problems

EACH = 3  # of one kind, as many problems have a line of their own


class Findings:
    """Problems and habits of one data set or file, by kind."""

    def __init__(self, subject: object) -> None:
        self.subject = subject
        self.problems: dict[str, list[str]] = {}
        self.habits: dict[str, list[str]] = {}

    def refuse(self, where: object, what: str, kind: str = "") -> None:
        """Note a problem at ``where`` (a file or a field); those of equal ``kind``, or else ``what``, are
        counted together."""
        self.problems.setdefault(kind or what, []).append(f"{where}: {what}")

    def note(self, where: object, what: str) -> None:
        """Note a habit; ``what`` is the rest of a sentence that begins with a number: ``boxes stick out``."""
        self.habits.setdefault(what, []).append(str(where))

    def note_if(self, known: str, what: str, number: int) -> None:
        """Note ``what`` of ``number`` things where the habit ``known`` was met."""
        if known in self.habits:
            self.habits[what] = self.habits[known][:1] * number

    @property
    def count(self) -> int:
        """How many problems there are."""
        return sum(map(len, self.problems.values()))

    def raise_if_any(self, remedy: str) -> None:
        """One `ListError` with all problems, where there are any."""
        lines = []
        for found in self.problems.values():
            more = len(found) - EACH
            rest = [f"{found[0]} (and {len(found) - 1:,} more of this kind)"]
            lines += rest if more > 0 else found
        Problems(str(self.subject), lines).raise_if_any(remedy)

    def notes(self) -> list[str]:
        """A sentence for each kind of habit, with their number and the first place."""
        return [
            f"{self.subject}: {len(places):,} {what} ({places[0]}{', ...' if len(places) > 1 else ''})"
            for what, places in self.habits.items()
        ]
