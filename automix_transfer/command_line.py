"""Our own commands: how a process of one is started, and how a person types it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from automix_transfer.host.launched import by_launcher

PROGRAM = "automix-transfer"
_MODULE = "automix_transfer"
PYTHON = (sys.executable, "-P")  #: this interpreter, which does not import from the current folder
_COMMAND = [*PYTHON, "-m", _MODULE]


def leave_current_folder() -> None:
    """Import nothing from the current folder, where anybody's ``yaml.py`` may lie, and let no process that we
    start do so.

    ``python -m`` puts it before the installed packages, and so does an empty entry of ``PYTHONPATH``. The
    folder that holds this package stays.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    if not any(isinstance(finder, _Elsewhere) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Elsewhere())
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        return
    given = [entry for entry in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if entry not in ("", ".")]
    home = os.path.realpath(Path(__file__).parents[1])
    if here == home:
        given = [home, *(entry for entry in given if os.path.realpath(entry) != home)]
    elif here not in map(os.path.realpath, given):
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]
    if given:
        os.environ["PYTHONPATH"] = os.pathsep.join(given)


class _Elsewhere(MetaPathFinder):
    """Imports packages that read settings in the current folder from another one: ``matplotlibrc``, and
    ``.numba_config.yaml``, which names a folder of pickles that numba would load."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> Any:
        spec = PathFinder.find_spec(name, path) if name in ("matplotlib", "numba") else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_elsewhere(module: ModuleType) -> None:
            here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
            try:
                os.chdir("/")
                execute(module)
                if name == "numba":  # which reads the file again whenever it compiles
                    sys.modules["numba.core.config"].__dict__["_config_fname"] = ""
            finally:
                os.fchdir(here)
                os.close(here)

        vars(spec.loader)["exec_module"] = execute_elsewhere
        return spec


def command(name: str, *arguments: str) -> list[str]:
    """What starts ``automix-transfer NAME ARGUMENTS`` as a process of this interpreter."""
    return [*_COMMAND, *name.split(), *arguments]


def command_parser(name: str, description: str | None, epilog: str = "") -> argparse.ArgumentParser:
    """The parser of ``automix-transfer NAME``, whose help keeps the lines of its texts."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        f"{PROGRAM} {name}", description=description, epilog=epilog, formatter_class=raw
    )


def typed(command: Sequence[str]) -> list[str]:
    """A command of `command`, perhaps behind a launcher, as a person types it; others as they are."""
    words = list(command)
    for place in range(len(words)):
        if words[place : place + len(_COMMAND)] == _COMMAND:
            return [*words[:place], PROGRAM, *words[place + len(_COMMAND) :]]
    return words


def this_command() -> list[str]:
    """The command that started this process, torchrun included, as a person types it.

    Under srun it is that of a task.
    """
    program = Path(sys.argv[0])
    ours = program.name == PROGRAM or (program.parent.name, program.name) == (_MODULE, "__main__.py")
    words = [PROGRAM, *sys.argv[1:]] if ours else list(sys.argv)
    size = int(os.environ["WORLD_SIZE"]) if by_launcher() else 1
    if size > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        local = os.environ.get("LOCAL_WORLD_SIZE", str(size))
        nodes = size // max(int(local), 1)
        launcher = ["torchrun", *([f"--nnodes={nodes}"] if nodes > 1 else []), f"--nproc-per-node={local}"]
        return [*launcher, *(["--no-python"] if ours else []), *words]
    return words if ours else ["python", *words]
