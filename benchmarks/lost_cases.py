"""Which test cases were there before and are gone: for a change that moves or rewrites many tests.

    python -m pytest --collect-only -q > before.txt       # on the old commit
    python benchmarks/lost_cases.py before.txt            # on the new one; exit code 1 if a case is gone

A case is known by its name and parameters, so a test may move to another file. Where several files had a case
of one name, as many must be left.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def cases(lines: Iterable[str]) -> Counter[str]:
    """Cases by name and parameters, without file and class, from pytest's node ids."""
    ids = (line.strip() for line in lines)
    named = (node.partition("::")[2] for node in ids if node.startswith("tests/") and "::" in node)
    return Counter(
        name[name.rfind("::", 0, (name + "[").index("[")) + 2 :] if "::" in name else name for name in named
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="what pytest --collect-only -q printed on the old commit")
    before = cases(parser.parse_args().before.read_text(encoding="utf-8").splitlines())
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q"], capture_output=True, text=True
    )
    now = cases(collected.stdout.splitlines())
    if not now:
        sys.exit(f"pytest collected nothing:\n{collected.stdout[-2000:]}{collected.stderr[-2000:]}")
    gone = before - now
    print(
        f"{before.total()} cases before, {now.total()} now, {gone.total()} gone, {(now - before).total()} new"
    )
    for name, count in sorted(gone.items()):
        print(f"  {name}" + (f"  ({count} times)" if count > 1 else ""))
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())
