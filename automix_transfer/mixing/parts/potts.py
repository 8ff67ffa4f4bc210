"""Labels on a grid with a price for each label and one for neighbours that differ, compiled: Co-Mixup's inner
problem.

Improved by alpha-beta swaps, each of them an exact minimum cut. Without Python's lock, so that the partitions
of a batch run in parallel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automix_transfer.host.compiled import compiled
from automix_transfer.mixing.parts.mincut import UNIT, Ints, adjacency, max_flow

Floats = NDArray[np.float64]


def neighbour_pairs(height: int, width: int) -> Ints:
    """Pairs of neighbouring cells (E, 2), cells numbered row by row."""
    cells = np.arange(height * width).reshape(height, width)
    sides = ((cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:]))
    return np.unique(np.concatenate([np.stack(ends, axis=-1).reshape(-1, 2) for ends in sides]), axis=0)


@compiled
def swap_graph(cells: int, pairs: Ints) -> tuple[Ints, Ints, Ints]:
    """The graph of `swap`: its arcs' heads, and the arcs by node. From each cell to the source and from the
    sink to it, then between neighbours; each arc is followed by its reverse."""
    heads, nodes, chains = np.empty(4 * cells + 2 * len(pairs), np.int64), np.arange(cells), 4 * cells
    heads[0:chains:4], heads[1:chains:4] = nodes, cells
    heads[2:chains:4], heads[3:chains:4] = cells + 1, nodes
    heads[chains::2], heads[chains + 1 :: 2] = pairs[:, 1], pairs[:, 0]
    start, arcs = adjacency(heads, cells + 2)
    return heads, start, arcs


@compiled
def labelling_energy(labels: Ints, unary: Floats, distance: Floats, pairs: Ints) -> float:
    """Σ unary[cell, label] + Σ distance[label, label'] over neighbours."""
    total = 0.0
    for cell in range(len(labels)):
        total += unary[cell, labels[cell]]
    for e in range(len(pairs)):
        total += distance[labels[pairs[e, 0]], labels[pairs[e, 1]]]
    return total


@compiled
def swap(
    labels: Ints, unary: Floats, distance: Floats, pairs: Ints, graph: tuple[Ints, Ints, Ints], a: int, b: int
) -> None:
    """Share out the cells that have label a or b between both at the least energy, in place; the others
    stay."""
    cells, (heads, start, arcs) = len(labels), graph
    active = (labels == a) | (labels == b)
    price, weights = np.zeros((cells, 2)), np.zeros(len(heads))
    for cell in range(cells):
        if active[cell]:
            price[cell, 0], price[cell, 1] = unary[cell, a], unary[cell, b]
    for e in range(len(pairs)):
        p, q = pairs[e, 0], pairs[e, 1]
        if active[p] and active[q]:
            weights[4 * cells + 2 * e : 4 * cells + 2 * e + 2] = distance[a, b]
        elif active[p]:
            price[p, 0] += distance[a, labels[q]]
            price[p, 1] += distance[b, labels[q]]
        elif active[q]:
            price[q, 0] += distance[labels[p], a]
            price[q, 1] += distance[labels[p], b]
    least = np.minimum(price[:, 0], price[:, 1])
    weights[0 : 4 * cells : 4] = price[:, 1] - least  # cut where the cell takes b
    weights[2 : 4 * cells : 4] = price[:, 0] - least
    largest = weights.max()
    if largest > 0:
        capacity = np.rint(weights / largest * UNIT).astype(np.int64)
        _, level = max_flow(start, arcs, heads, capacity, cells, cells + 1)
        for cell in range(cells):
            if active[cell]:
                labels[cell] = a if level[cell] >= 0 else b


@compiled
def improve(labels: Ints, unary: Floats, distance: Floats, pairs: Ints) -> float:
    """Swaps between all pairs of labels until none helps; the labels' energy, which never rises."""
    best, count = labelling_energy(labels, unary, distance, pairs), unary.shape[1]
    graph = swap_graph(len(labels), pairs)
    for _ in range(10):
        before = best
        for a in range(count - 1):
            for b in range(a + 1, count):
                if (labels == a).any() or (labels == b).any():
                    kept = labels.copy()
                    swap(labels, unary, distance, pairs, graph, a, b)
                    now = labelling_energy(labels, unary, distance, pairs)
                    if now < best - 1e-12:
                        best = now
                    else:
                        labels[:] = kept
        if best >= before:
            break
    return best


def label_output(unary: Floats, current: Ints, distance: Floats, pairs: Ints) -> Ints:
    """The better of two descents: from the current labels, and from each cell's cheapest."""
    unary = np.ascontiguousarray(unary)
    descents = [current.copy(), unary.argmin(axis=1)]
    return min(descents, key=lambda labels: improve(labels, unary, distance, pairs))
