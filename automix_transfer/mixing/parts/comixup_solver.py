"""Which input each cell of each output of Co-Mixup shows: output by output, round by round."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from automix_transfer.mixing.draw import Size
from automix_transfer.mixing.parts.mincut import Ints
from automix_transfer.mixing.parts.potts import label_output, neighbour_pairs

Floats = NDArray[np.float64]
#: by how much a cell that shows two inputs by halves is cheaper than their mean, as published
HALF_BONUS = 5e-4


def objective(shares: Floats, costs: Floats, similar: Floats, size: Size, beta: float, gamma: float) -> float:
    """Σ c·z + β/2·Σ |z - z'|² over neighbours + γ·Σ z_jᵀ A z_j' over pairs of outputs j ≠ j', z_j the counts
    of output j.

    ``shares`` z (outputs, cells, inputs); ``costs`` c (inputs, cells); ``similar`` A (inputs, inputs);
    ``size`` (h, w) of the grid.
    """
    grid, counts = shares.reshape(len(shares), *size, -1), shares.sum(axis=1)
    smooth = np.square(np.diff(grid, axis=1)).sum() + np.square(np.diff(grid, axis=2)).sum()
    together = counts.sum(axis=0)
    same = (together @ similar @ together) - np.einsum("jk,kl,jl->", counts, similar, counts, optimize=True)
    return float((costs.T * shares).sum() + beta / 2 * smooth + gamma * same)


def label_outputs(
    costs: Floats,
    similar: Floats,
    start: Ints,
    size: Size,
    beta: float,
    gamma: float,
    threshold: float,
    rounds: int,
) -> Floats:
    """Shares z (outputs, cells, inputs), each cell one input or two by halves.

    Args:
        costs: (inputs, cells). ``similar``: A (inputs, inputs). ``start``: the random first labels (outputs,
            cells).
        threshold: an input costs an output more where the other outputs use it, weighed by A, more than so
            many cells.

    From the second round on the inputs that an output uses may also share a cell; before the last one,
    outputs that show the same inputs are pushed apart. Stops early when the objective stands still. Where it
    ends above its start, the start is given back.
    """
    inputs = len(costs)
    pairs = neighbour_pairs(*size)
    shares = np.eye(inputs)[start]
    first, extra = shares.copy(), np.zeros((len(start), inputs))
    began = before = now = objective(shares, costs, similar, size, beta, gamma)
    counts = shares.sum(axis=1)
    for number in range(rounds):
        for j in range(len(start)):
            rest = similar @ (counts.sum(axis=0) - counts[j])
            price = 2 * gamma * np.where(rest > threshold, rest, 0) + gamma * extra[j]
            shares[j] = one_output(costs.T + price, shares[j], pairs, beta, halves=number > 0)
            counts[j] = shares[j].sum(axis=0)
        if number == rounds - 2:
            extra = push_apart(counts)
        now = objective(shares, costs, similar, size, beta, gamma)
        if abs(before - now) < 1e-6 * abs(now):
            break
        before = now
    return shares if now <= began else first


def one_output(unary: Floats, current: Floats, pairs: Ints, beta: float, halves: bool) -> Floats:
    """The best shares (cells, inputs) of one output by prices (cells, inputs).

    With ``halves`` its two, or three most used, inputs may also share a cell: such a label costs their mean
    less a little, and differs from either of them by a quarter of what two inputs differ by.
    """
    inputs = unary.shape[1]
    counts = current.sum(axis=0)
    used = np.argsort(-counts, kind="stable")[: min(int((counts > 0).sum()), 3)]
    mixes = list(combinations(used.tolist(), 2)) if halves else []
    meaning = np.concatenate([np.eye(inputs), np.zeros((len(mixes), inputs))])
    distance = np.full((len(meaning), len(meaning)), beta)
    np.fill_diagonal(distance, 0)
    for at, two in enumerate(map(list, mixes), start=inputs):
        meaning[at, two] = 0.5
        unary = np.concatenate([unary, unary[:, two].mean(axis=1, keepdims=True) - HALF_BONUS], axis=1)
        distance[at, two] = distance[two, at] = beta / 4
    return meaning[label_output(unary, current.argmax(axis=1), distance, pairs)]


def push_apart(counts: Floats) -> Floats:
    """Prices (outputs, inputs): of two outputs that use the same inputs, two or more, one pays for the first
    of them, the other for the second."""
    extra = np.zeros_like(counts)
    shown = counts > 0
    for one, two in combinations(range(len(counts)), 2):
        if (shown[one] == shown[two]).all() and shown[one].sum() > 1:
            used = np.flatnonzero(shown[one])
            extra[one, used[0]] = extra[two, used[1]] = 1
    return extra
