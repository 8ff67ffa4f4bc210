"""Our own commands: how a process of one is started, and how a person types it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "automix-transfer"
_MODULE = "automix_transfer"


def command(name: str, *arguments: str) -> list[str]:
    """What starts ``automix-transfer NAME ARGUMENTS`` as a process of this interpreter."""
    return [sys.executable, "-m", _MODULE, *name.split(), *arguments]


def command_parser(name: str, description: str | None, epilog: str = "") -> argparse.ArgumentParser:
    """The parser of ``automix-transfer NAME``, whose help keeps the lines of its texts."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        f"{PROGRAM} {name}", description=description, epilog=epilog, formatter_class=raw
    )


def typed(command: Sequence[str]) -> list[str]:
    """A command of `command`, perhaps behind a launcher, as a person types it; others as they are."""
    words = list(command)
    for place in range(len(words) - 2):
        if words[place : place + 3] == [sys.executable, "-m", _MODULE]:
            return [*words[:place], PROGRAM, *words[place + 3 :]]
    return words


def this_command() -> list[str]:
    """The command that started this process, torchrun included, as a person types it.

    Under srun it is that of a task.
    """
    program = Path(sys.argv[0])
    ours = program.name == PROGRAM or (program.parent.name, program.name) == (_MODULE, "__main__.py")
    words = [PROGRAM, *sys.argv[1:]] if ours else list(sys.argv)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        local = os.environ.get("LOCAL_WORLD_SIZE", str(size))
        nodes = size // max(int(local), 1)
        launcher = ["torchrun", *([f"--nnodes={nodes}"] if nodes > 1 else []), f"--nproc-per-node={local}"]
        return [*launcher, *(["--no-python"] if ours else []), *words]
    return words if ours else ["python", *words]
