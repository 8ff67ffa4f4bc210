"""Minimum cuts of small graphs, compiled, without Python's lock: the exact solver under PuzzleMix and the
moves under Co-Mixup.

A maximum flow by Dinic's algorithm on integer capacities. The tests hold it against scipy's, which gives the
same flows but holds the lock, so that the cuts of a batch could not run in parallel threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from automix_transfer.host.compiled import compiled

UNIT = 1e12  #: capacities are rounded to 1/UNIT of the largest
Ints = NDArray[np.int64]


@compiled
def adjacency(heads: Ints, nodes: int) -> tuple[Ints, Ints]:
    """Arcs by the node they leave, ``arcs[start[v]:start[v + 1]]``. heads[a] is where arc a ends; a ^ 1 is
    its reverse."""
    start = np.zeros(nodes + 1, np.int64)
    for arc in range(len(heads)):
        start[heads[arc ^ 1] + 1] += 1
    for node in range(nodes):
        start[node + 1] += start[node]
    place, arcs = start[:-1].copy(), np.empty(len(heads), np.int64)
    for arc in range(len(heads)):
        tail = heads[arc ^ 1]
        arcs[place[tail]] = arc
        place[tail] += 1
    return start, arcs


@compiled
def max_flow(
    start: Ints, arcs: Ints, heads: Ints, capacity: Ints, source: int, sink: int
) -> tuple[int, Ints]:
    """The flow's value, and for each node its distance from the source in the residual graph, -1 where it
    cannot be reached.

    ``capacity`` of each arc becomes what is left of it. The nodes that can be reached are the source's side
    of the smallest minimum cut.
    """
    nodes = len(start) - 1
    level, queue = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    at, path = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    total = 0
    while True:
        level[:] = -1
        level[source], queue[0], first, last = 0, source, 0, 1
        while first < last:
            node = queue[first]
            first += 1
            for k in range(start[node], start[node + 1]):
                arc = arcs[k]
                if capacity[arc] > 0 and level[heads[arc]] < 0:
                    level[heads[arc]] = level[node] + 1
                    queue[last] = heads[arc]
                    last += 1
        if level[sink] < 0:
            return total, level
        at[:] = start[:-1]
        node, depth = source, 0
        while True:
            if node == sink:
                flow = capacity[path[0]]
                for d in range(1, depth):
                    flow = min(flow, capacity[path[d]])
                back = depth
                for d in range(depth):
                    capacity[path[d]] -= flow
                    capacity[path[d] ^ 1] += flow
                    if capacity[path[d]] == 0 and d < back:
                        back = d
                total += flow
                depth = back
                node = heads[path[depth] ^ 1]
                continue
            moved = False
            while at[node] < start[node + 1]:
                arc = arcs[at[node]]
                if capacity[arc] > 0 and level[heads[arc]] == level[node] + 1:
                    path[depth] = arc
                    depth += 1
                    node = heads[arc]
                    moved = True
                    break
                at[node] += 1
            if not moved:
                if node == source:
                    break
                level[node] = -1  # a dead end in this phase
                depth -= 1
                node = heads[path[depth] ^ 1]


def in_threads(work: Callable[[int, int], None], count: int, threads: int | None = None) -> None:
    """``work(begin, end)`` on consecutive parts of ``count`` items, in as many threads as torch computes
    with."""
    threads = min(threads or min(torch.get_num_threads(), os.cpu_count() or 1), count)
    if threads <= 1:
        work(0, count)
        return
    edges = [count * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, begin, end) for begin, end in zip(edges, edges[1:], strict=False)]:
            done.result()
