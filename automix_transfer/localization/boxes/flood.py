"""Until which level a pixel lies inside a hole: a flood from the frame."""

from __future__ import annotations

import numpy as np

from automix_transfer.host.compiled import compiled


@compiled
def flood_levels(grey):
    """The lowest maximum of grey on any 4-path from each pixel to the outside, (H, W) uint8, and how many
    pixels lie below theirs.

    A pixel of grey g and level l is part of a hole of every mask {grey > T} with g <= T < l; nearly
    everywhere g = l: of none. The map of levels is the map with its holes filled. A priority flood; levels
    only rise, so 256 stacks do for a priority queue.
    """
    height, width = grey.shape
    size = height * width
    flat = grey.ravel()
    level = np.zeros(size, np.uint8)
    seen = np.zeros(size, np.bool_)
    heads = np.full(256, -1, np.int32)
    following = np.empty(size, np.int32)
    for y in range(height):
        step = 1 if y == 0 or y == height - 1 or width == 1 else width - 1
        for x in range(0, width, step):
            p = y * width + x
            seen[p] = True
            value = flat[p]
            level[p] = value
            following[p] = heads[value]
            heads[value] = p
    below = 0
    for current in range(256):
        while heads[current] >= 0:
            p = heads[current]
            heads[current] = following[p]
            y = p // width
            x = p - y * width
            for side in range(4):
                if (
                    (side == 0 and y == 0)
                    or (side == 1 and y == height - 1)
                    or (side == 2 and x == 0)
                    or (side == 3 and x == width - 1)
                ):
                    continue
                q = p - width if side == 0 else p + width if side == 1 else p - 1 if side == 2 else p + 1
                if seen[q]:
                    continue
                seen[q] = True
                value = flat[q]
                if value < current:
                    value = np.uint8(current)
                    below += 1
                level[q] = value
                following[q] = heads[value]
                heads[value] = q
    return level.reshape((height, width)), below
