"""What runs have measured, as a page, as tables and as figures; and the runs that a table of the paper needs.

automix-transfer report page runs/demo -o report.html            one file to look at
automix-transfer report tables runs/ --table table1              the paper's table, ours beside its numbers
automix-transfer report figure fig4 --runs runs/* -o fig4.png    a figure, and its numbers as JSON
automix-transfer report plan table1 --data.root /data            the runs that it needs, and their times
automix-transfer report run table1 --data.root /data             runs or resumes them
"""

from __future__ import annotations

import argparse
from pathlib import Path

from automix_transfer.console import show
from automix_transfer.errors import UserError
from automix_transfer.figures.cli import add_figures
from automix_transfer.owner import owned_file
from automix_transfer.paper.cli import add_tables
from automix_transfer.paper.plans.cli import add_plan


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="automix-transfer report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_page(commands)
    add_tables(commands)
    add_plan(commands)
    add_figures(commands)
    add_table(commands)
    args = parser.parse_args(arguments)
    return args.call(args) or 0


def add_page(commands: argparse._SubParsersAction) -> None:
    page = commands.add_parser(
        "page",
        help="write one HTML file with tables, pictures and where every number comes from",
        description="Write one HTML file that opens from disk and asks nothing of the network. It shows what "
        "the folders hold, at any depth: runs, results of the evaluators, figures, timings; and says "
        "what is missing. Runs of AutoMix get a λ slider, drawn from their checkpoints where their "
        "data lie (seconds).",
    )
    page.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="RUNS",
        help="folders of a demo, e.g. runs/demo, of runs, or of results",
    )
    page.add_argument(
        "-o",
        "--output",
        type=Path,
        default=None,
        metavar="FILE",
        help="default: report.html in the first folder",
    )
    page.add_argument(
        "--no-mixes", action="store_true", help="draw no mixed samples, where none were drawn before"
    )
    page.set_defaults(call=write_page)


def is_report(path: Path) -> bool:
    """Whether ``path`` is a page of this command, by its title."""
    with path.open("rb") as file:
        return b"AutoMix transfer report</title>" in file.read(4096)


def write_page(args: argparse.Namespace) -> None:
    from automix_transfer.report.page import build

    output = args.output or args.folders[0] / "report.html"
    with owned_file(output, is_report, "page of a report"):
        print(f"written: {build(args.folders, output, not args.no_mixes)}")


def add_table(commands: argparse._SubParsersAction) -> None:
    table = commands.add_parser(
        "table", help="print the numbers of a demo's FOLDER/summary.json with their gains"
    )
    table.add_argument("folder", type=Path, metavar="FOLDER")
    table.set_defaults(call=print_summary)


def print_summary(args: argparse.Namespace) -> None:
    from automix_transfer.io import read_json
    from automix_transfer.transfer.chain_table import chain_table

    summary = read_json(args.folder / "summary.json")
    if not isinstance(summary, dict):
        raise UserError(
            f"{args.folder / 'summary.json'} is not a JSON object; run the demo again to write it"
        )
    show(chain_table(summary))
