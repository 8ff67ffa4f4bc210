"""``automix-transfer report plan`` and ``run``: the runs that a table of the paper needs."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automix_transfer.console import show
from automix_transfer.errors import UserError
from automix_transfer.owner import refuse_foreign
from automix_transfer.progress import to_stderr


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

  automix-transfer report plan table1 --data.root cifar10=/data/c10 --data.root cifar100=...
  automix-transfer report plan table2 --only R-50 "100 epochs" mixup,automix --trials 1
  automix-transfer report plan table9 --no-measure               an ablation, without times
  automix-transfer report plan table1 --scale 0.01               a hundredth of epochs and images
"""
RUN = """
Runs or resumes what plan lists, one after another, with the same options.
What is done is not done again; Ctrl-C keeps a checkpoint, and the same command
goes on. --print writes the commands for a scheduler instead: one run a line,
or with --print slurm an array script.
"""


#: option -> what argparse is told of it; ``plan`` and ``run`` take the same
OPTIONS: dict[str, dict[str, Any]] = {
    "tables": dict(nargs="+", metavar="TABLE", help="table1 to table11, table13, table14, fig9, fig10"),
    "--data.root": dict(
        dest="data_root",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="folder of the data; NAME= for one data set (cifar100, ImageNet-1k, ...); may be repeated",
    ),
    "--weights": dict(
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="what fine-tuning starts from, by encoder: R-18=resnet18.pth; teacher=FILE: AttentiveMix's",
    ),
    "--output": dict(
        type=Path, default=Path("runs"), metavar="DIR", help="folder of the runs (default: runs)"
    ),
    "--trials": dict(
        type=int, default=3, metavar="N", help="seeds 0 to N-1 of each (default: 3, as the paper)"
    ),
    "--only": dict(
        nargs="+",
        default=[],
        metavar="WORD",
        help='only cells with all these words: "CIFAR-100" R-18 "100 epochs"; mixup,automix means either',
    ),
    "--scale": dict(
        default="1", metavar="F", help="shrink epochs and images, marked: 0.01, or epochs=0.05,data=0.1"
    ),
    "--set": dict(
        nargs="+", default=[], metavar="key=value", help="settings over every recipe's, e.g. data.workers=8"
    ),
    "--launcher": dict(
        default="", metavar="COMMAND", help='starts trainings, e.g. "torchrun --nproc-per-node 8"'
    ),
    "--num-gpus": dict(
        type=int, default=0, metavar="N", help="table7: GPUs of a detector (default: 0, the CPU)"
    ),
    "--corrupted": dict(
        default="", metavar="DIR", help="table6: CIFAR-100-C as released (default: made here)"
    ),
    "--times": dict(
        type=Path, metavar="FILE", help="where measured times are kept (default: OUTPUT/step_times.json)"
    ),
    "--no-measure": dict(
        dest="measure", action="store_false", help="give only times that were measured before"
    ),
}
#: options of ``run`` alone
PRINTING: dict[str, dict[str, Any]] = {
    "--print": dict(nargs="?", const="lines", choices=("lines", "slurm"), help="write the commands instead"),
    "-o": dict(dest="file", type=Path, metavar="FILE", help="with --print: write to FILE"),
}


def add_plan(commands: Any) -> None:
    """The parsers of ``plan`` and ``run``."""
    for name, summary, text, options, call in (
        ("plan", "list the runs that a table needs, with commands and times", PLAN, OPTIONS, plan),
        ("run", "run or resume them, or print them for a scheduler", RUN, OPTIONS | PRINTING, run),
    ):
        parser = commands.add_parser(
            name, help=summary, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for flag, told in options.items():
            parser.add_argument(flag, **told)
        parser.set_defaults(call=call)


def plan(args: argparse.Namespace) -> int:
    """Print the plan."""
    from automix_transfer.paper.plans.run_plan import make_plan, plan_text

    settings = plan_settings(args)
    found, times = make_plan(args, settings, to_stderr)
    show(plan_text(found, times, settings.scale))
    return 0


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from automix_transfer.paper.plans.run_plan import is_list, make_plan, print_commands, run_plan, summary

    if args.print and args.file is not None:
        refuse_foreign(args.file, is_list, "list of commands")
    args.measure = args.measure and not args.print
    settings = plan_settings(args)
    found, times = make_plan(args, settings, to_stderr)
    if args.print:
        return print_commands(found, settings, args.tables, args.print, args.file)
    print("\n".join(summary(found, times, settings.scale)), flush=True)
    return run_plan(found, settings, args.tables)


def plan_settings(args: argparse.Namespace) -> Any:
    """What the options say, checked."""
    from automix_transfer.paper.plans.plan import Settings
    from automix_transfer.paper.plans.scale import parse_scale

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
