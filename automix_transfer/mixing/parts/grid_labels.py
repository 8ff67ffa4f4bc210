"""Labels 0 to n-1 on a grid, with a price for each label and one for the squared difference of neighbours:
solved exactly by a minimum cut.

Ishikawa's construction: each cell is a chain of n-1 nodes between source and sink, of which the first l are
on the source's side where the cell has label l. The squared difference is the sum of what two chains cut of
each other, up to terms of single cells.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from automix_transfer.host.compiled import compiled
from automix_transfer.mixing.parts.mincut import UNIT, Ints, adjacency, in_threads, max_flow

Floats = NDArray[np.float64]
#: fewer cells in a batch than this are cut in one thread: starting others costs 2 ms, and gained nothing on
#: two cores
FEW_CELLS = 10_000


def solve_grid(unary: Floats, down: Floats, right: Floats, threads: int | None = None) -> Ints:
    """Labels (N, h, w) of the least Σ unary + Σ w·((l - l')/(n-1))², the grids in parallel threads; where
    several are least, the lowest labels.

    ``unary`` (N, h, w, n); w are ``down`` (N, h-1, w) and ``right`` (N, h, w-1), which must not be negative.
    ``threads``: None for as many as torch has, or one for `FEW_CELLS`.
    """
    count, height, width, levels = unary.shape
    heads, start, arcs = _graph(height, width, levels)
    left = _capacities(unary, down, right)
    labels = np.zeros((count, height, width), np.int64)

    def work(begin: int, end: int) -> None:
        _solve(left[begin:end], heads, start, arcs, labels.reshape(count, -1)[begin:end])

    in_threads(work, count, threads or (1 if labels.size < FEW_CELLS else None))
    return labels


@lru_cache(maxsize=16)
def _graph(height: int, width: int, levels: int) -> tuple[Ints, Ints, Ints]:
    """The arcs' heads, and the arcs by node, of grids of one size; the order of arcs is `_capacities`'."""
    inner = levels - 1
    source, sink = height * width * inner, height * width * inner + 1
    nodes = np.arange(source).reshape(height, width, inner)
    border = np.full((height, width, 1), source)
    ends = [(np.concatenate([border, nodes], axis=2), np.concatenate([nodes, border + 1], axis=2))]
    for one, other in ((nodes[:-1], nodes[1:]), (nodes[:, :-1], nodes[:, 1:])):
        ends.append((np.repeat(one, inner, axis=2), np.tile(other, inner)))
    # an arc, then its reverse
    heads = np.concatenate([np.stack([head, tail], axis=-1).ravel() for tail, head in ends])
    return heads, *adjacency(heads, sink + 1)


def _capacities(unary: Floats, down: Floats, right: Floats) -> Ints:
    """The capacities (N, arcs) of the arcs of `_graph`, as shares of each grid's largest price."""
    inner, levels = unary.shape[3] - 1, np.arange(unary.shape[3])
    around = np.zeros(unary.shape[:3])
    around[:, :-1] += down
    around[:, 1:] += down
    around[:, :, :-1] += right
    around[:, :, 1:] += right
    price = unary - around[..., None] * levels * (inner - levels) / inner**2
    price -= price.min(axis=3, keepdims=True)
    largest = np.maximum(price.max(axis=(1, 2, 3)), around.max(axis=(1, 2)))
    scale = np.divide(UNIT, largest, out=np.zeros_like(largest), where=largest > 0)[:, None, None]
    price = np.rint(price * scale[..., None]).astype(np.int64)
    never = np.where((levels > 0) & (levels < inner), 1 << 60, 0)  # a chain is cut once
    parts = [np.stack([price, np.broadcast_to(never, price.shape)], axis=-1).reshape(len(unary), -1)]
    for weight in (down, right):
        once = np.rint(weight / inner**2 * scale).astype(np.int64).reshape(len(unary), -1)
        parts.append(np.repeat(once, 2 * inner**2, axis=1))
    return np.concatenate(parts, axis=1)


@compiled
def _solve(capacity: Ints, heads: Ints, start: Ints, arcs: Ints, labels: Ints) -> None:
    """Cut the grids of ``capacity`` (N, arcs), which becomes what is left of it; ``labels`` (N, cells)."""
    inner = (len(start) - 3) // labels.shape[1]
    source = labels.shape[1] * inner
    for n in range(len(labels)):
        _, level = max_flow(start, arcs, heads, capacity[n], source, source + 1)
        for node in range(source):
            labels[n, node // inner] += level[node] >= 0
