"""What a report of a problem needs: versions, devices, Detectron2's build, data folders and free disk."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.console import show
from automix_transfer.io import read_json, write_json
from automix_transfer.owner import refuse_foreign


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="automix-transfer doctor", description=__doc__)
    roots = "a folder of data sets, may be repeated"
    parser.add_argument("--data-root", type=Path, action="append", default=[], metavar="DIR", help=roots)
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the report as JSON, too")
    options = parser.parse_args(arguments)
    from automix_transfer.commands.doctor_report import examine, text

    if options.output is not None:
        refuse_foreign(options.output, is_report, "report of doctor")
    report = examine(options.data_root)
    if options.output is not None:
        write_json(options.output, report)
        print(f"written: {options.output}", file=sys.stderr)
    show(text(report))
    return 0


def is_report(path: Path) -> bool:
    """Whether ``path`` is an output of this command."""
    content = read_json(path)
    return isinstance(content, dict) and {"automix_transfer", "packages", "free disk"} <= content.keys()
