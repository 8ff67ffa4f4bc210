"""``tables``, ``plan`` and ``run`` of python -m automix_transfer.report."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError

FORMATS = ("text", "markdown", "latex", "csv", "json")
TABLES = """
Prints the paper's tables that the runs are about, in the paper's own form,
ours beside the paper's numbers: the mean over trials (runs of the same
settings and other seeds) of the median top-1 of the last 10 epochs, ± the
standard deviation (n - 1), and the gain of AutoMix over the best of the
others. Runs are known by their settings, never by their folders' names.

A figure that is not of the paper's experiment (fewer epochs or images, other
settings, another version) has a footnote that says so, and is neither
averaged nor compared with figures of other footnotes. Runs that have not
finished, or whose files contradict each other, give no figure and are named.

  report tables runs/                           every table that has a run
  report tables runs/ --table 14 --where        where each figure is from
  report tables runs/ --table table1 --format latex -o table1.tex
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
    measured = measure(args.folders, lambda line: print(line, file=sys.stderr, flush=True))
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
        print(text, end="", flush=True)
    for line in remarks(measured, bool(filled), args.folders):
        print(line, file=sys.stderr)
    return 0


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
    import shutil

    return max(60, shutil.get_terminal_size((80, 24)).columns)


def data_roots(given: Sequence[str]) -> dict[str, str]:
    """``[NAME=]DIR`` of each --data.root; the empty name is for every data set.

    Raises:
        UserError: no folder, or a name of no data set of the tables.
    """
    from automix_transfer.paper.references import SETS

    known = list(dict.fromkeys(["imagenet", *(data.layout for data in SETS.values()), *map(str.lower, SETS)]))
    roots = {}
    for text in given:
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals and "/" not in name else ("", text)
        if not folder:
            raise UserError(
                f"--data.root {text} names no folder; write DIR, or NAME=DIR for one data set, e.g. "
                "cifar100=/data/cifar"
            )
        if name and name.lower() not in known:
            close = difflib.get_close_matches(name.lower(), known, n=1)
            raise UserError(
                f"--data.root {text} names no data set of the tables; "
                + (
                    f"did you mean {close[0]}?"
                    if close
                    else f"choose from {', '.join(known)}, or write ./{text} for a folder"
                )
            )
        roots[name.lower()] = folder
    return roots


#: settings that each run has its own of, and what says them
OWN_OPTION = {"output": "--output DIR", "seed": "--trials N", "data.root": "--data.root DIR"}
PLAN = """
Lists the runs that tables or ablations of the paper need, each as a command,
with what is already done in --output and how long the rest takes on this
machine: a few steps of each network and method are measured, and kept in
OUTPUT/step_times.json.

  report plan table1 --data.root cifar10=/data/c10 --data.root cifar100=...
  report plan table2 --only R-50 "100 epochs" mixup,automix --trials 1
  report plan table9 --no-measure               an ablation, without times
  report plan table1 --scale 0.01               a hundredth of epochs and images
"""
RUN = """
Runs or resumes what plan lists, one after another, with the same options.
What is done is not done again; Ctrl-C keeps a checkpoint, and the same command
goes on. --print writes the commands for a scheduler instead: one run a line,
or with --print slurm an array script.
"""


def add_plan(commands: Any) -> None:
    """The parsers of ``plan`` and ``run``, which take the same options."""
    for name, text, call in (("plan", PLAN, plan), ("run", RUN, run)):
        parser = commands.add_parser(
            name,
            help={
                "plan": "list the runs that a table needs, with commands and times",
                "run": "run or resume them, or print them for a scheduler",
            }[name],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "tables", nargs="+", metavar="TABLE", help="table1 to table11, table13, table14, fig9, fig10"
        )
        parser.add_argument(
            "--data.root",
            dest="data_root",
            action="append",
            default=[],
            metavar="[NAME=]DIR",
            help="folder of the data; NAME= for one data set (cifar100, tiny_imagenet, ImageNet-1k, ...); "
            "may be repeated",
        )
        parser.add_argument(
            "--weights",
            action="append",
            default=[],
            metavar="NAME=FILE",
            help="what fine-tuning starts from, by encoder: R-18=resnet18.pth; teacher=FILE: AttentiveMix's",
        )
        parser.add_argument(
            "--output",
            type=Path,
            default=Path("runs"),
            metavar="DIR",
            help="folder of the runs (default: runs)",
        )
        parser.add_argument(
            "--trials",
            type=int,
            default=3,
            metavar="N",
            help="seeds 0 to N-1 of each (default: 3, as the paper)",
        )
        parser.add_argument(
            "--only",
            nargs="+",
            default=[],
            metavar="WORD",
            help='only cells with all these words: "CIFAR-100" R-18 "100 epochs"; mixup,automix means either',
        )
        parser.add_argument(
            "--scale",
            default="1",
            metavar="F",
            help="shrink epochs and images, marked: 0.01, or epochs=0.05,data=0.1",
        )
        parser.add_argument(
            "--set",
            nargs="+",
            default=[],
            metavar="key=value",
            help="settings over every recipe's, e.g. data.workers=8",
        )
        parser.add_argument(
            "--launcher",
            default="",
            metavar="COMMAND",
            help='starts trainings, e.g. "torchrun --nproc-per-node 8"',
        )
        parser.add_argument(
            "--num-gpus",
            type=int,
            default=0,
            metavar="N",
            help="table7: GPUs of a detector (default: 0, the CPU)",
        )
        parser.add_argument(
            "--corrupted",
            default="",
            metavar="DIR",
            help="table6: CIFAR-100-C as released (default: made here)",
        )
        parser.add_argument(
            "--times",
            type=Path,
            metavar="FILE",
            help="where measured times are kept (default: OUTPUT/step_times.json)",
        )
        parser.add_argument(
            "--no-measure",
            dest="measure",
            action="store_false",
            help="give only times that were measured before",
        )
        if name == "run":
            parser.add_argument(
                "--print",
                nargs="?",
                const="lines",
                choices=("lines", "slurm"),
                help="write the commands instead",
            )
            parser.add_argument(
                "-o", dest="file", type=Path, metavar="FILE", help="with --print: write to FILE"
            )
        parser.set_defaults(call=call)


def plan(args: argparse.Namespace) -> int:
    """Print the plan."""
    from automix_transfer.paper.run_plan import make_plan, plan_text

    settings = plan_settings(args)
    found, times = make_plan(args, settings, lambda line: print(line, file=sys.stderr, flush=True))
    print(plan_text(found, times, settings.scale))
    return 0


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from automix_transfer.paper.run_plan import make_plan, print_commands, run_plan, summary

    args.measure = args.measure and not args.print
    settings = plan_settings(args)
    found, times = make_plan(args, settings, lambda line: print(line, file=sys.stderr, flush=True))
    if args.print:
        return print_commands(found, settings, args.tables, args.print, args.file)
    print("\n".join(summary(found, times, settings.scale)), flush=True)
    return run_plan(found, settings, args.tables)


def plan_settings(args: argparse.Namespace) -> Any:
    """What the options say, checked."""
    import shlex

    from automix_transfer.paper.plan import Settings
    from automix_transfer.paper.scale import parse_scale

    if not 1 <= args.trials <= 100:
        raise UserError(f"--trials {args.trials} must be from 1 to 100")
    if args.num_gpus < 0:
        raise UserError(f"--num-gpus {args.num_gpus} must be 0 or more")
    wrong = [text for text in args.set if "=" not in text]
    if wrong:
        raise UserError(f"--set {wrong[0]} is not of the form key=value, e.g. --set data.workers=8")
    for text in args.set:
        key = text.partition("=")[0].strip()
        if key in OWN_OPTION:
            raise UserError(f"--set {text} would be the same for all runs; give {OWN_OPTION[key]} instead")
        if "." not in key:
            raise UserError(
                f"--set {text} names no setting; write SECTION.KEY=VALUE, e.g. --set data.workers=8"
            )
    try:
        launcher = tuple(shlex.split(args.launcher))
    except ValueError as error:
        raise UserError(f"--launcher {args.launcher} has an open quote; close it") from error
    nameless = [text for text in args.weights if not all(text.partition("=")[::2])]
    if nameless:
        raise UserError(f"--weights {nameless[0]} is not of the form NAME=FILE, e.g. R-18=resnet18.pth")
    weights = {name.lower(): file for name, _, file in (text.partition("=") for text in args.weights)}
    return Settings(
        args.output,
        args.trials,
        parse_scale(args.scale),
        data_roots(args.data_root),
        weights,
        launcher,
        tuple(args.set),
        args.corrupted,
        args.num_gpus,
    )
