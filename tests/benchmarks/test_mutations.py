"""A few damaged files before every reader, as benchmarks/mutations.py tries them by the thousand."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import mutations
from mutation_targets import TARGETS, Target

from automix_transfer.errors import UserError


@pytest.mark.slow
def test_damaged_files_are_read_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(count=8 * len(TARGETS), seed=1, readers=list(TARGETS), output=None)
    assert mutations.in_process(options) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "error, kind",
    [
        (UserError("x"), "refused"),
        (OSError(5, "broken", "file"), "refused"),
        (OSError("no file"), "traceback"),
        (ValueError("x"), "traceback"),
        (MemoryError(), "memory"),
    ],
)
def test_what_a_reader_may_raise(tmp_path: Path, error: Exception, kind: str) -> None:
    def read(_folder: Path) -> None:
        raise error

    target = Target(lambda folder: None, read, ())
    assert mutations.attempt(target, tmp_path)[0].kind == kind


def test_changes_follow_the_seed_and_change_something(tmp_path: Path) -> None:
    target = Target(lambda folder: None, lambda folder: None, ("*.json",))
    seen = set()
    for number in [*range(20), 0]:
        (tmp_path / "a.json").write_text('{"width": 40, "boxes": [1, 2.5]}\n')
        mutations.change(target, tmp_path, random.Random(number))
        seen.add((tmp_path / "a.json").read_bytes())
    assert 10 < len(seen) <= 20
