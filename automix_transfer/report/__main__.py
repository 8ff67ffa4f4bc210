"""python -m automix_transfer.report page FOLDER -o report.html: one file to look at; table FOLDER: the numbers in the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from automix_transfer.errors import UserError, run_script


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m automix_transfer.report", description="Look at what a chain of runs has measured.")
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page", help="write one HTML file with tables, pictures and where every number comes from",
                               description="Write one HTML file that opens from disk and asks nothing of the network. It shows what "
                                           "FOLDER holds, and says what is missing.")
    page.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a demo, e.g. runs/demo, or of a single run")
    page.add_argument("-o", "--output", type=Path, default=None, metavar="FILE", help="default: FOLDER/report.html")
    table = commands.add_parser("table", help="print the numbers of FOLDER/summary.json with their gains")
    table.add_argument("folder", type=Path, metavar="FOLDER")
    args = parser.parse_args(arguments)
    if args.command == "page":
        from automix_transfer.report.page import build

        print(f"written: {build(args.folder, args.output)}")
    else:
        from automix_transfer.io import read_json
        from automix_transfer.report.table import print_table

        summary = read_json(args.folder / "summary.json")
        if not isinstance(summary, dict):
            raise UserError(f"{args.folder / 'summary.json'} is not a JSON object; run the demo again to write it")
        print_table(summary)
    return 0


if __name__ == "__main__":
    run_script(main)
