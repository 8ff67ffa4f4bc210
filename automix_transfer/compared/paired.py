"""Differences between two things that were measured with the same seeds, and what they tell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

ROUNDING = 1e-9  #: percent; of differences of floats that are equal


@dataclass(frozen=True)
class Difference:
    """The mean of ``n`` differences, seed by seed.

    Attributes:
        std: their standard deviation (n - 1); None for one.
        interval: its 95 % interval, ± t(0.975, n - 1)·s/√n; None with fewer than two, or where all are equal.
        word: ahead, behind, not to be told apart, or what keeps from saying so.
    """

    mean: float
    std: float | None
    n: int
    interval: tuple[float, float] | None
    word: str


def difference(values: Sequence[float], more: bool = True) -> Difference:
    """Of at least one value.

    Args:
        more: whether more is better.
    """
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Difference(mean, None, n, None, "one pair")
    std = statistics.stdev(values)
    if std < ROUNDING:  # coarse figures of a few images; t would call it certain
        same = "equal" if abs(mean) < ROUNDING else "the same difference for each seed"
        return Difference(mean, std, n, None, same)
    half = float(student.ppf(0.975, n - 1)) * std / math.sqrt(n)
    ahead = (mean > 0) == more
    word = f"not to be told apart with {n} seeds" if abs(mean) <= half else "ahead" if ahead else "behind"
    return Difference(mean, std, n, (mean - half, mean + half), word)
