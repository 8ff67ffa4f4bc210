"""What a launcher tells its processes. It is taken only where the launcher set all of it: one variable alone
was left behind in a shell, or belongs to another program."""

from __future__ import annotations

import os

#: what a launcher (torchrun, or a line of srun) sets in each process
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def by_launcher() -> bool:
    """Whether a launcher started this process."""
    return all(map(os.environ.get, LAUNCHER))


def speaks_for_all() -> bool:
    """Whether this is the process that says what concerns all processes of a launcher."""
    return not by_launcher() or os.environ["RANK"] == "0"


def processes_here() -> int:
    """How many processes a launcher started on this machine, as far as it says so."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "1") if by_launcher() else "1"
    return max(1, int(given)) if given.isdecimal() else 1


def cores() -> int:
    """Cores that this process may use; all where the system keeps no such list (macOS, Windows)."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
