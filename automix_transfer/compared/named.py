"""Names of what is compared, and the seeds over which it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from automix_transfer.errors import UserError

MAX_SEED = 2**31 - 1  #: of a command line: NumPy takes 32 bits, and every process adds its rank
MOST_SEEDS = 1000  #: that are asked for by their number; more is a slip


def folder_name(name: str, otherwise: str) -> str:
    """``name`` as a folder and a word of a job's name: neither a path nor several words."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or otherwise


def split_name(value: str, is_path: Callable[[Path], bool], usual: str) -> tuple[str, str]:
    """``NAME=SOURCE`` as both; a path, also one with ``=`` in it, and a bare source are called ``usual``.

    A shell leaves ``~`` behind ``=`` as it is.
    """
    name, equals, source = value.partition("=")
    return (name, os.path.expanduser(source)) if equals and not is_path(Path(value)) else (usual, value)


def refuse_twins(option: str, kind: str, name: str, folder: str, others: Sequence[str], form: str) -> None:
    """Raise a `UserError` where ``folder``, that of ``name``, is one of ``others``."""
    if folder in others:
        raise UserError(
            f"{option} has two {kind}called '{name}' or nearly so; give each a name of its own: "
            f"{option} a={form} b={form}"
        )


def parse_seeds(text: str) -> tuple[int, ...]:
    """``3`` is the seeds 1, 2, 3; ``5,7`` is these two; a single seed 5 is ``5,``."""
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UserError(
            f"--seeds {text} must be a number of seeds (3 is 1, 2, 3) or a list (5,7,9)"
        ) from error
    if "," not in text and numbers and numbers[0] > MOST_SEEDS:
        raise UserError(
            f"--seeds {text} is a number of seeds, at most {MOST_SEEDS}; one seed has a comma behind it: 5,"
        )
    seeds = numbers if "," in text else tuple(range(1, max(numbers, default=0) + 1))
    if not seeds or len(set(seeds)) != len(seeds) or not 0 <= min(seeds) <= max(seeds) <= MAX_SEED:
        raise UserError(f"--seeds {text} must be different seeds from 0 to {MAX_SEED}, at least one")
    return seeds
