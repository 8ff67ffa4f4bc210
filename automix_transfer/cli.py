"""automix-transfer COMMAND: everything that the library does, by one name, from any folder.

A command is a function of this process, whose module is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from automix_transfer import __version__
from automix_transfer.command_line import PROGRAM
from automix_transfer.errors import EXIT_USER_ERROR, UserError, did_you_mean, run_script
from automix_transfer.host.launched import by_launcher, speaks_for_all

#: command -> (module with ``main(arguments)``, what it does); an empty module has subcommands only
COMMANDS = {
    "pretrain": ("commands.pretrain", "train an encoder by any method, from a recipe"),
    "export": ("commands.export", "a checkpoint for torchvision, timm, Detectron2"),
    "detect": ("commands.detect", "train a detector; also: detect compare, detect predict"),
    "localize": ("commands.localize", "weakly supervised localization: MaxBoxAccV2, PxAP"),
    "finetune": ("commands.finetune", "fine-tune on CUB-200, FGVC-Aircraft, your folders"),
    "evaluate": ("evaluation.cli", "accuracy, calibration, robustness of any classifier"),
    "probe": ("commands.probe", "linear classifier, nearest neighbours on fixed features"),
    "transfer": ("commands.transfer", "any backbones x every task: who is ahead, and by how much"),
    "report": ("report.cli", "page, figures, tables of runs; plans of the paper's"),
    "supermix": ("commands.write_supermix", "mix a training split offline, to pretrain on it"),
    "data": ("", "data check, data pack (into shards), data synthetic"),
    "demo": ("commands.demo", "the whole chain on embedded data, in minutes"),
    "doctor": ("commands.doctor", "versions, devices, data, disk: for issue reports"),
    "install-detectron2": ("commands.install_detectron2", "Detectron2 itself, without compiling"),
}
SUBCOMMANDS = {
    "detect": {
        "train": "commands.detect",
        "compare": "commands.detect_compare",
        "predict": "commands.detect_predict",
    },
    "data": {"check": "data.check", "pack": "data.shards.packing", "synthetic": "synthetic.write"},
}
#: commands that the processes of a launcher do together
SHARED = ("pretrain", "finetune", "evaluate", "localize", "probe")
HELP = """usage: automix-transfer COMMAND [arguments]

commands:
{commands}

automix-transfer COMMAND --help explains each. Trainings take a recipe or a file
and key=value overrides: --config-file NAME key=value; detect takes KEY VALUE.

on several GPUs:
  torchrun --nproc-per-node 8 --no-python automix-transfer pretrain ...
  the same for finetune, evaluate, localize, probe
  automix-transfer detect --num-gpus 8 --config-file ...

exit codes: 0 finished, 2 bad input (one line says what); 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP, 138 SIGUSR1 (what is done is kept, and the last line
says how to go on)."""


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        return 0
    if given[0] == "--version":
        print(__version__)
        return 0
    if not COMMANDS.get(given[0], "?")[0] and given[1:] in (["-h"], ["--help"]):
        name, below = given[0], ",".join(SUBCOMMANDS[given[0]])
        print(f"usage: {PROGRAM} {name} {{{below}}} [arguments]\n\n{COMMANDS[name][1]}; --help explains each")
        return 0
    module, rest = command_of(given)
    size = os.environ.get("WORLD_SIZE", "1")
    if given[0] not in SHARED and size != "1" and by_launcher():
        if not speaks_for_all():
            return EXIT_USER_ERROR  # the first process says why
        how = "with --num-gpus" if given[0] == "detect" else "as one process"
        raise UserError(
            f"{given[0]} was started {size} times by a launcher such as torchrun; start it without one, {how}"
        )
    return importlib.import_module(f"automix_transfer.{module}").main(rest)


def command_of(given: Sequence[str]) -> tuple[str, list[str]]:
    """The module of the command that ``given`` begins with, and the arguments that are left for it.

    Raises:
        UserError: an unknown command; the closest is suggested.
    """
    name, *rest = given
    check_known("command", name, COMMANDS)
    module, below = COMMANDS[name][0], SUBCOMMANDS.get(name, {})
    if rest and rest[0] in below:
        return below[rest[0]], rest[1:]
    if not module:
        check_known(f"command {name}", rest[0] if rest else "", below)
    return module, rest


def check_known(what: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        hint = did_you_mean(name, known, f"choose one of {', '.join(known)}")
        raise UserError(f"there is no {what} '{name}'; {hint}")


def console(*words: str) -> None:
    """The entry point of the console script, and of a script that stands for the command ``words``."""
    run_script(lambda: main([*words, *sys.argv[1:]]))
