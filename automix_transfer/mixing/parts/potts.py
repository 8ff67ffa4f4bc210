"""Labels on a grid with a price for each label and one for neighbours that differ, compiled: Co-Mixup's inner
problem.

Improved by alpha-beta swaps, each of them an exact minimum cut. Without Python's lock, so that the partitions
of a batch run in parallel.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from automix_transfer.mixing.parts.mincut import UNIT, Ints, adjacency, max_flow

Floats = NDArray[np.float64]


@njit(nogil=True, cache=True)
def neighbour_pairs(height: int, width: int) -> Ints:
    """Pairs of neighbouring cells (E, 2), cells numbered row by row."""
    pairs, at = np.empty((height * (width - 1) + (height - 1) * width, 2), np.int64), 0
    for y in range(height):
        for x in range(width):
            cell = y * width + x
            if x + 1 < width:
                pairs[at, 0], pairs[at, 1] = cell, cell + 1
                at += 1
            if y + 1 < height:
                pairs[at, 0], pairs[at, 1] = cell, cell + width
                at += 1
    return pairs


@njit(nogil=True, cache=True)
def labelling_energy(labels: Ints, unary: Floats, distance: Floats, pairs: Ints) -> float:
    """Σ unary[cell, label] + Σ distance[label, label'] over neighbours."""
    total = 0.0
    for cell in range(len(labels)):
        total += unary[cell, labels[cell]]
    for e in range(len(pairs)):
        total += distance[labels[pairs[e, 0]], labels[pairs[e, 1]]]
    return total


@njit(nogil=True, cache=True)
def swap(labels: Ints, unary: Floats, distance: Floats, pairs: Ints, a: int, b: int) -> None:
    """Share out the cells that have label a or b between both at the least energy, in place; the others
    stay."""
    node, active = np.full(len(labels), -1, np.int64), 0
    for cell in range(len(labels)):
        if labels[cell] == a or labels[cell] == b:
            node[cell] = active
            active += 1
    price, inside = np.zeros((active, 2)), 0
    for cell in range(len(labels)):
        if node[cell] >= 0:
            price[node[cell], 0], price[node[cell], 1] = unary[cell, a], unary[cell, b]
    for e in range(len(pairs)):
        p, q = pairs[e, 0], pairs[e, 1]
        if node[p] >= 0 and node[q] >= 0:
            inside += 1
        elif node[p] >= 0:
            price[node[p], 0] += distance[a, labels[q]]
            price[node[p], 1] += distance[b, labels[q]]
        elif node[q] >= 0:
            price[node[q], 0] += distance[labels[p], a]
            price[node[q], 1] += distance[labels[p], b]
    source, sink = active, active + 1
    heads, weights, arc = (
        np.empty(2 * (2 * active + inside), np.int64),
        np.zeros(2 * (2 * active + inside)),
        0,
    )
    for n in range(active):
        least = min(price[n, 0], price[n, 1])
        # cut where the cell takes b
        heads[arc], heads[arc + 1], weights[arc] = n, source, price[n, 1] - least
        heads[arc + 2], heads[arc + 3], weights[arc + 2] = sink, n, price[n, 0] - least
        arc += 4
    for e in range(len(pairs)):
        p, q = node[pairs[e, 0]], node[pairs[e, 1]]
        if p >= 0 and q >= 0:
            heads[arc], heads[arc + 1] = q, p
            weights[arc] = weights[arc + 1] = distance[a, b]
            arc += 2
    largest = weights.max()
    if largest <= 0:
        return
    capacity = np.empty(len(heads), np.int64)
    for k in range(len(heads)):
        capacity[k] = np.int64(np.rint(weights[k] / largest * UNIT))
    start, arcs = adjacency(heads, active + 2)
    _, level = max_flow(start, arcs, heads, capacity, source, sink)
    for cell in range(len(labels)):
        if node[cell] >= 0:
            labels[cell] = a if level[node[cell]] >= 0 else b


@njit(nogil=True, cache=True)
def improve(labels: Ints, unary: Floats, distance: Floats, pairs: Ints) -> float:
    """Swaps between all pairs of labels until none helps; the labels' energy, which never rises."""
    best = labelling_energy(labels, unary, distance, pairs)
    count = unary.shape[1]
    used = np.zeros(count, np.bool_)
    for _ in range(10):
        before = best
        for a in range(count - 1):
            for b in range(a + 1, count):
                used[:] = False
                for cell in range(len(labels)):
                    used[labels[cell]] = True
                if used[a] or used[b]:
                    kept = labels.copy()
                    swap(labels, unary, distance, pairs, a, b)
                    now = labelling_energy(labels, unary, distance, pairs)
                    if now < best - 1e-12:
                        best = now
                    else:
                        labels[:] = kept
        if best >= before:
            break
    return best


@njit(nogil=True, cache=True)
def label_output(unary: Floats, current: Ints, distance: Floats, pairs: Ints) -> Ints:
    """The better of two descents: from the current labels, and from each cell's cheapest."""
    labels, other = current.copy(), np.empty_like(current)
    for cell in range(len(other)):
        other[cell] = np.argmin(unary[cell])
    return (
        labels if improve(labels, unary, distance, pairs) <= improve(other, unary, distance, pairs) else other
    )
