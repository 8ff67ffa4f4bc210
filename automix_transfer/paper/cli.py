"""``automix-transfer report tables``: the paper's tables from runs."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from automix_transfer.console import show
from automix_transfer.owner import refuse_foreign
from automix_transfer.progress import to_stderr

#: how a table in each format begins
FORMATS = {
    "text": "(Table|Figure) ",
    "markdown": r"\*\*(Table|Figure) ",
    "latex": r"\\begin{table}",
    "csv": ",.* ours",
    "json": r"\[(\]|\s*{\s*\"table\")",
}
TABLES = """
Prints the paper's tables that the runs are about, in the paper's own form,
ours beside the paper's numbers: the mean over trials (runs of the same
settings and other seeds) of the median top-1 of the last 10 epochs, ± the
standard deviation (n - 1), and the gain of AutoMix over the best of the
others. A run's cell is that of the recipe that its run.json names.

A figure that is not of the paper's experiment (fewer epochs or images, other
settings, another version) has a footnote that says so, and is neither
averaged nor compared with figures of other footnotes. Runs that have not
finished, or whose files contradict each other, give no figure and are named.

  automix-transfer report tables runs/                     all that have a run
  automix-transfer report tables runs/ --table 14 --where  where each figure is from
  automix-transfer report tables runs/ --table 1 --format latex -o table1.tex
"""


def add_tables(commands: Any) -> None:
    """The parser of ``tables``."""
    parser = commands.add_parser(
        "tables",
        help="print tables of the paper, ours beside the paper's numbers",
        description=TABLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUNS", help="folders that hold runs, at any depth"
    )
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME",
        help="table1 to table14, fig9 or fig10; may be repeated (default: those that have a run)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="default: text, as wide as the terminal"
    )
    parser.add_argument(
        "--where",
        action="store_true",
        help="name run folder, seed and commit of every figure (json always does)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to FILE instead of the terminal"
    )
    parser.set_defaults(call=print_tables)


def print_tables(args: argparse.Namespace) -> int:
    """Fill and print; what no table could take goes to stderr."""
    from automix_transfer.io import write_text
    from automix_transfer.paper import published as paper
    from automix_transfer.paper import render
    from automix_transfer.paper.measured import measure
    from automix_transfer.paper.tables import fill, with_runs

    wanted = [paper.table(name) for name in args.table]
    if args.output is not None:
        refuse_foreign(args.output, partial(begins_as, args.format), f"table in {args.format}")
    measured = measure(args.folders, to_stderr)
    filled = [fill(table, measured) for table in wanted] if wanted else with_runs(measured)
    if args.format == "json":
        text = render.to_json(filled)
    elif args.format == "text":
        pages = [
            render.to_text(one, terminal_width())
            + (f"\n\n{render.where_text(one)}" if args.where and one.count else "")
            for one in filled
        ]
        text = "\n\n\n".join(pages) + "\n" if pages else ""
    else:
        make = {"markdown": render.to_markdown, "latex": render.to_latex, "csv": render.to_csv}[args.format]
        text = "\n".join(make(one) for one in filled)
    if args.output is not None:
        write_text(args.output, text)
        print(f"written: {args.output}", file=sys.stderr)
    elif text:
        show(text, end="")
    for line in remarks(measured, bool(filled), args.folders):
        print(line, file=sys.stderr)
    return 0


def begins_as(form: str, file: Path) -> bool:
    """Whether ``file`` begins as a table in this format does."""
    with file.open(encoding="utf-8") as opened:
        return re.match(FORMATS[form], opened.read(1000)) is not None


def remarks(measured: Any, any_table: bool, folders: Sequence[Path], most: int = 20) -> list[str]:
    """What is there besides the tables: runs that give no figure, and runs that no table is about."""
    lines = [f"left out: {problem}" for problem in measured.problems[:most]]
    if len(measured.problems) > most:
        lines.append(f"left out: {len(measured.problems) - most} more, of the same kinds")
    for runs, what in (
        (measured.elsewhere, "are of a data set, encoder or method of no table"),
        (measured.without_recipe, "name no recipe in run.json, so no cell is theirs"),
    ):
        if runs:
            named = ", ".join(map(str, runs[:3])) + (", ..." if len(runs) > 3 else "")
            lines.append(f"{len(runs)} of {measured.runs} runs {what} ({named})")
    if not any_table:
        names = ", ".join(map(str, folders))
        lines.append(
            f"no run in {names} is about a table of the paper; `plan table1` lists the runs that a table "
            "needs"
        )
    return lines


def terminal_width() -> int:
    """Columns of the terminal, at least 60; 80 where there is none."""
    return max(60, shutil.get_terminal_size((80, 24)).columns)
