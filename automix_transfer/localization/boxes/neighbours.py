"""The order in which a component tree takes pixels, and which of a pixel's 8 neighbours came before it.

Neighbours that touch each other are joined already, so a table names the few that need a union (in smooth
maps one), and another the
polygon area that the pixel adds: a 2×2 block with three pixels on counts ½, with four 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automix_transfer.host.compiled import compiled

# In the order of the mask's bits; the first four come before the pixel in raster order.
OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def neighbour_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each mask: the neighbours to unite with, one of each touching group (256, 5), -1 ends; and twice
    the area gained (256,)."""
    representatives, gained = np.full((256, 5), -1, dtype=np.int64), np.zeros(256, dtype=np.int64)
    for mask in range(256):
        left = [bit for bit in range(8) if mask >> bit & 1]
        on = {OFFSETS[bit] for bit in left}
        count = 0
        while left:
            group = [left.pop(0)]
            representatives[mask, count], count = group[0], count + 1
            for a in group:
                near = [
                    b
                    for b in left
                    if max(abs(OFFSETS[a][0] - OFFSETS[b][0]), abs(OFFSETS[a][1] - OFFSETS[b][1])) == 1
                ]
                group += near
                left = [b for b in left if b not in near]
        for dy in (-1, 1):
            for dx in (-1, 1):
                gained[mask] += sum(place in on for place in ((dy, 0), (0, dx), (dy, dx))) >= 2
    return representatives, gained


@compiled
def earlier_neighbours(grey):
    """(H · W,) bit masks of the neighbours that come before each pixel in the order (bright first, then
    raster) of `bright_first`."""
    height, width = grey.shape
    padded = np.full((height + 2, width + 2), -1, np.int16)  # outside never comes
    for y in range(height):
        for x in range(width):
            padded[y + 1, x + 1] = grey[y, x]
    masks = np.empty((height, width), np.uint8)
    for y in range(height):
        above, here, under, out = padded[y], padded[y + 1], padded[y + 2], masks[y]
        for x in range(width):
            v = here[x + 1]
            out[x] = (
                np.uint8(above[x] >= v)
                | np.uint8(above[x + 1] >= v) << 1
                | np.uint8(above[x + 2] >= v) << 2
                | np.uint8(here[x] >= v) << 3
                | np.uint8(here[x + 2] > v) << 4
                | np.uint8(under[x] > v) << 5
                | np.uint8(under[x + 1] > v) << 6
                | np.uint8(under[x + 2] > v) << 7
            )
    return masks.ravel()


@compiled
def bright_first(flat):
    """(H · W,) pixel numbers sorted by falling value, raster order among equals (a counting sort)."""
    starts = np.zeros(257, np.int64)
    for p in range(flat.size):
        starts[flat[p]] += 1
    total = 0
    for value in range(255, -1, -1):
        count = starts[value]
        starts[value] = total
        total += count
    order = np.empty(flat.size, np.int32)
    for p in range(flat.size):
        value = flat[p]
        order[starts[value]] = p
        starts[value] += 1
    return order
