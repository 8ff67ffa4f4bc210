"""Randomness is derived, never stored.

Every random number of a run is a function of (seed, purpose, coordinates), where the coordinates are the
step, the epoch, the rank or the sample's index. Nothing has to be saved to resume exactly, and no draw
depends on how many draws came before it.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

import numpy as np
import torch

from automix_transfer.errors import UserError

MAX_SEED = 2**31 - 1  #: of a command line: NumPy takes 32 bits, and every process adds its rank
MOST_SEEDS = 1000  #: that are asked for by their number; more is a slip


def derive_seed(seed: int, purpose: str, *coordinates: int) -> int:
    """A 63-bit seed for one purpose at one place, e.g. ``derive_seed(seed, "sample", epoch, index)``.

    BLAKE2 rather than Python's ``hash``: the same on every machine and in every process, and neighbouring
    coordinates share nothing. Costs about 2 µs.
    """
    key = ":".join([str(int(seed)), purpose, *(str(int(c)) for c in coordinates)])
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_generator(seed: int, purpose: str, *coordinates: int) -> torch.Generator:
    """A generator for one purpose at one place; on the CPU, so that draws are equal on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *coordinates))


def reseed_globals(seed: int, purpose: str, *coordinates: int) -> None:
    """Reseed the global generators of torch (all devices), NumPy and Python.

    For code that draws from them and takes no generator: dropout, stochastic depth, torchvision's and timm's
    augmentations.
    """
    value = derive_seed(seed, purpose, *coordinates)
    if _has_accelerator():
        torch.manual_seed(value)
    else:  # the same, but torch.manual_seed spends up to 3 ms on notes to devices that are not there
        torch.default_generator.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


@cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


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
