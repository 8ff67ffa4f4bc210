"""Labels 0 to n-1 on a grid, with a price for each label and one for the squared difference of neighbours:
solved exactly by a minimum cut.

Ishikawa's construction: each cell is a chain of n-1 nodes between source and sink, of which the first l are
on the source's side where the cell has label l. The squared difference is the sum of what two chains cut of
each other, up to terms of single cells.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from automix_transfer.mixing.parts.mincut import UNIT, Ints, adjacency, in_threads, max_flow

Floats = NDArray[np.float64]
#: fewer cells in a batch than this are cut in one thread: starting others costs 2 ms, and gained nothing on
#: two cores
FEW_CELLS = 10_000


def energy(labels: NDArray, unary: Floats, down: Floats, right: Floats) -> Floats:
    """Σ unary + Σ w·((l - l')/(n-1))² of labels (N, h, w); unary (N, h, w, n), ``down`` (N, h-1, w) and
    ``right`` (N, h, w-1) are w."""
    share = labels / (unary.shape[3] - 1)
    cells = np.take_along_axis(unary, labels[..., None].astype(np.int64), axis=3)[..., 0].sum(axis=(1, 2))
    return (
        cells
        + (down * np.diff(share, axis=1) ** 2).sum(axis=(1, 2))
        + (right * np.diff(share, axis=2) ** 2).sum(axis=(1, 2))
    )


def solve_grid(unary: Floats, down: Floats, right: Floats, threads: int | None = None) -> Ints:
    """Labels (N, h, w) of the least `energy`, the grids in parallel threads; where several are least, the
    lowest labels.

    ``down`` and ``right`` must not be negative. ``threads``: None for as many as torch has, or one for
    `FEW_CELLS`.
    """
    count, height, width, levels = unary.shape
    heads, start, arcs = _graph(height, width, levels)
    labels = np.zeros((count, height, width), np.int64)
    unary, down, right = (np.ascontiguousarray(values, dtype=np.float64) for values in (unary, down, right))

    def work(begin: int, end: int) -> None:
        _solve(unary[begin:end], down[begin:end], right[begin:end], heads, start, arcs, labels[begin:end])

    in_threads(work, count, threads or (1 if labels.size < FEW_CELLS else None))
    return labels


@lru_cache(maxsize=16)
def _graph(height: int, width: int, levels: int) -> tuple[Ints, Ints, Ints]:
    """The arcs' heads, and the arcs by node, of grids of one size; the order of arcs is `_solve`'s."""
    cells, inner = height * width, levels - 1
    source, sink = cells * inner, cells * inner + 1
    ends: list[tuple[int, int]] = []
    for cell in range(cells):
        first = cell * inner
        ends += [
            (source, first),
            *((first + k, first + k + 1) for k in range(inner - 1)),
            (first + inner - 1, sink),
        ]
    for cell in range(cells):
        for other, there in ((cell + width, cell + width < cells), (cell + 1, (cell + 1) % width != 0)):
            if there:
                ends += [(cell * inner + i, other * inner + j) for i in range(inner) for j in range(inner)]
    # an arc, then its reverse
    heads = np.array([node for tail, head in ends for node in (head, tail)], np.int64)
    start, arcs = adjacency(heads, sink + 1)
    return heads, start, arcs


@njit(nogil=True, cache=True)
def _solve(
    unary: Floats, down: Floats, right: Floats, heads: Ints, start: Ints, arcs: Ints, labels: Ints
) -> None:
    count, height, width, levels = unary.shape
    inner = levels - 1
    source, sink = height * width * inner, height * width * inner + 1
    price, capacity = np.empty((height, width, levels)), np.empty(len(heads), np.int64)
    for n in range(count):
        largest = 0.0
        for y in range(height):
            for x in range(width):
                around = 0.0
                around += down[n, y, x] if y + 1 < height else 0.0
                around += down[n, y - 1, x] if y > 0 else 0.0
                around += right[n, y, x] if x + 1 < width else 0.0
                around += right[n, y, x - 1] if x > 0 else 0.0
                least = np.inf
                for k in range(levels):
                    price[y, x, k] = unary[n, y, x, k] - around * k * (inner - k) / inner**2
                    least = min(least, price[y, x, k])
                for k in range(levels):
                    price[y, x, k] -= least
                    largest = max(largest, price[y, x, k])
                largest = max(largest, around)
        scale = UNIT / largest if largest > 0 else 0.0
        arc = 0
        for y in range(height):
            for x in range(width):
                for k in range(levels):
                    capacity[arc] = np.int64(np.rint(price[y, x, k] * scale))
                    capacity[arc + 1] = np.int64(1) << 60 if 0 < k < inner else 0  # never cut a chain twice
                    arc += 2
        for y in range(height):
            for x in range(width):
                for side in range(2):
                    if (y + 1 < height) if side == 0 else (x + 1 < width):
                        weight = (down[n, y, x] if side == 0 else right[n, y, x]) / inner**2
                        for _ in range(inner * inner):
                            capacity[arc] = capacity[arc + 1] = np.int64(np.rint(weight * scale))
                            arc += 2
        _, level = max_flow(start, arcs, heads, capacity, source, sink)
        for y in range(height):
            for x in range(width):
                first, label = (y * width + x) * inner, 0
                for k in range(inner):
                    label += level[first + k] >= 0
                labels[n, y, x] = label
