"""automix-transfer COMMAND: every script of the project by one name, from any folder.

A command becomes the script (the process is replaced, so signals, exit codes, torchrun's environment and
spawned processes are the script's own); nothing is parsed here.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.errors import UserError, run_script

ROOT = Path(__file__).resolve().parents[1]

#: command -> (script of the checkout, or module of the library; what it does)
COMMANDS = {
    "pretrain": ("pretrain/train.py", "train an encoder by any method, from a recipe"),
    "export": ("pretrain/export.py", "a checkpoint for torchvision, timm, safetensors, Detectron2"),
    "detect": ("detection/train_net.py", "train a detector; also: detect compare, detect predict"),
    "localize": ("wsol/evaluate.py", "weakly supervised localization: MaxBoxAcc, MaxBoxAccV2"),
    "supermix": ("pretrain/supermix.py", "mix a training split offline, to pretrain by SuperMix"),
    "finetune": ("finegrained/train.py", "fine-tune on CUB-200, FGVC-Aircraft or your own folders"),
    "evaluate": ("automix_transfer.evaluation", "accuracy, calibration, robustness of any classifier"),
    "report": ("automix_transfer.report", "page, figures and tables of runs; plans of the paper's tables"),
    "demo": ("automix_transfer.demo", "the whole chain on embedded data, in minutes"),
    "doctor": ("automix_transfer.doctor", "versions, devices, Detectron2, data, disk: for issue reports"),
}
DETECT = {
    "train": "detection/train_net.py",
    "compare": "detection/compare.py",
    "predict": "detection/predict.py",
}
HELP = """usage: automix-transfer COMMAND [arguments]

commands:
{commands}

automix-transfer COMMAND --help explains each. Scripts of ours take
--config-file YAML and key=value overrides, detect takes KEY VALUE.

on several GPUs:
  torchrun --nproc-per-node 8 --no-python automix-transfer pretrain ...
  automix-transfer detect --num-gpus 8 --config-file ...

exit codes: 0 finished, 2 bad input (one line says what), 130 Ctrl-C and
143 SIGTERM (a checkpoint was written; --resume goes on)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the script of a command; returns only for help."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(
            HELP.format(
                commands="\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items())
            )
        )
        return 0
    if given[0] == "--version":
        from automix_transfer import __version__

        print(__version__)
        return 0
    command, name = command_of(given)
    if any(argument in ("-h", "--help") for argument in command):
        return show_help(command, name)
    sys.stdout.flush()
    os.execv(sys.executable, command)


def command_of(given: Sequence[str]) -> tuple[list[str], str]:
    """What to execute for ``given``, and the name that help has for it.

    Raises:
        UserError: an unknown command (the closest is suggested), or a script that is not there.
    """
    name, *rest = given
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(COMMANDS)}"
        raise UserError(f"there is no command '{name}'; {hint}")
    target = COMMANDS[name][0]
    if name == "detect" and rest and rest[0] in DETECT:
        target = DETECT[rest[0]]
        name, rest = f"detect {rest[0]}", rest[1:]
    if not target.endswith(".py"):
        return [sys.executable, "-m", target, *rest], name
    script = ROOT / target
    if not script.is_file():
        raise UserError(
            f"automix-transfer {name} runs {target} of a checkout, which is not in {ROOT}; clone the "
            "repository and run "
            "'pip install -e .' in it"
        )
    return [sys.executable, str(script), *rest], name


def show_help(command: Sequence[str], name: str) -> int:
    """The script's own help, under this program's name."""
    columns = str(shutil.get_terminal_size((80, 24)).columns)  # the script's output is a pipe
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": columns})
    target = command[1] if command[1] != "-m" else command[2]
    usage, blank, rest = done.stdout.partition("\n\n")
    for written in (f"usage: {Path(target).name}", f"usage: python -m {target}"):
        if usage.startswith(written):
            ours = f"usage: automix-transfer {name}"
            usage = (ours + usage.removeprefix(written)).replace(
                "\n" + " " * max(0, len(written) - len(ours)), "\n"
            )
            usage = usage.replace("\n", "\n" + " " * max(0, len(ours) - len(written)))
    text = usage + blank + rest
    print(text, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def console() -> None:
    """The entry point of the console script."""
    run_script(main)
