"""The numba engine: boxes of all components at all 256 levels in one pass, instead of one contour search a level.

Pixels are taken from bright to dark and joined to their brighter 8-neighbours by union-find: a component tree (max-tree), of which
only the living roots are kept. A root's box holds from the level where it took this shape down to the level where it changes or is
absorbed, so each box is scored once, for a range of slots. Three facts make it exact and cheap:

- Which of a pixel's neighbours came before it is an 8-bit mask, computed ahead for the whole map. Neighbours that touch each other
  are joined already, so a table names the few that need a union (in smooth maps one), and another the polygon area gained.
- A hole is a 4-connected dark component that does not reach the frame. The flood level of a pixel, the lowest maximum of a 4-path to
  the frame, says until when; where it equals the grey value there is no hole, which is nearly everywhere.
- A contour's polygon area ignores holes, so the largest contour is found on the flood levels (the map with its holes filled): a
  2×2 block with three pixels on adds ½, with four 1. Ties go to the component whose first raster pixel comes last, as in OpenCV's list.

Bit-equal to `contours`, which the tests prove. Loops are plain because numba compiles them; they release Python's lock.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

SLOTS = 257
_LOG = 9  # 2**8 <= 257 < 2**9

# Neighbours in the order of the mask's bits; the first four come before the pixel in raster order.
_OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def _neighbour_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each mask: the neighbours to unite with, one of each touching group (256, 5), -1 ends; and twice the area gained (256,)."""
    representatives, gained = np.full((256, 5), -1, dtype=np.int64), np.zeros(256, dtype=np.int64)
    for mask in range(256):
        left = [bit for bit in range(8) if mask >> bit & 1]
        count = 0
        while left:
            group = [left.pop(0)]
            representatives[mask, count], count = group[0], count + 1
            for a in group:
                near = [b for b in left if max(abs(_OFFSETS[a][0] - _OFFSETS[b][0]), abs(_OFFSETS[a][1] - _OFFSETS[b][1])) == 1]
                group += near
                left = [b for b in left if b not in near]
        on = {_OFFSETS[bit] for bit in range(8) if mask >> bit & 1}
        for dy in (-1, 1):
            for dx in (-1, 1):
                gained[mask] += sum(place in on for place in ((dy, 0), (0, dx), (dy, dx))) >= 2
    return representatives, gained


_REPRESENTATIVES, _GAINED = _neighbour_tables()


def largest_boxes(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(257, 4) box of the contour of largest polygon area at every slot; see `boxes.largest_boxes`."""
    return _largest_boxes(grey, _REPRESENTATIVES, _GAINED)


def best_iou(grey: NDArray[np.uint8], true_boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(257,) best IoU over all contours at every slot; see `boxes.best_iou`."""
    return _best_iou(grey, true_boxes, _REPRESENTATIVES)


@njit(cache=True, nogil=True)
def _flood_levels(grey):
    """For each pixel the lowest maximum of grey on a 4-path to the outside (H, W) uint8, and the number of pixels that lie below theirs.

    A priority flood from the frame. Levels only rise, so 256 stacks do for a priority queue.
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
                if side == 0:
                    if y == 0:
                        continue
                    q = p - width
                elif side == 1:
                    if y == height - 1:
                        continue
                    q = p + width
                elif side == 2:
                    if x == 0:
                        continue
                    q = p - 1
                else:
                    if x == width - 1:
                        continue
                    q = p + 1
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


@njit(cache=True, nogil=True)
def _earlier_neighbours(grey):
    """(H * W,) bit masks of the neighbours that come before each pixel in the order (bright first, then raster)."""
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
            out[x] = (np.uint8(above[x] >= v) | np.uint8(above[x + 1] >= v) << 1 | np.uint8(above[x + 2] >= v) << 2
                      | np.uint8(here[x] >= v) << 3 | np.uint8(here[x + 2] > v) << 4
                      | np.uint8(under[x] > v) << 5 | np.uint8(under[x + 1] > v) << 6 | np.uint8(under[x + 2] > v) << 7)
    return masks.ravel()


@njit(cache=True, nogil=True)
def _bright_first(flat):
    """Pixel numbers sorted by falling value, raster order among equals (a counting sort)."""
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


@njit(cache=True, nogil=True)
def _find(parent, p):
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@njit(cache=True, nogil=True)
def _iou(x0, y0, x1, y1, true_boxes):
    """Best inclusive IoU of one box with (N, 4) true boxes; the same operations in the same order as `contours.pairwise_iou`."""
    best = 0.0
    for n in range(true_boxes.shape[0]):
        side_x = min(x1, true_boxes[n, 2]) - max(x0, true_boxes[n, 0]) + 1
        side_y = min(y1, true_boxes[n, 3]) - max(y0, true_boxes[n, 1]) + 1
        if side_x > 0 and side_y > 0:
            overlap = side_x * side_y
            area = (x1 - x0 + 1) * (y1 - y0 + 1)
            true_area = (true_boxes[n, 2] - true_boxes[n, 0] + 1) * (true_boxes[n, 3] - true_boxes[n, 1] + 1)
            best = max(best, overlap / (area + true_area - overlap))
    return best


@njit(cache=True, nogil=True)
def _raise_range(table, first, last, value):
    """Note that slots first..last are worth at least ``value``: two overlapping ranges of a power of two."""
    k = int(math.log2(last - first + 1))
    if value > table[k, first]:
        table[k, first] = value
    other = last + 1 - (1 << k)
    if value > table[k, other]:
        table[k, other] = value


@njit(cache=True, nogil=True)
def _score(table, box, first, last, true_boxes, width, height, grow):
    """Score a component's box (x0, y0, x1, y1 inclusive) on slots first..last; ``grow`` is 1 for holes."""
    x0, y0 = float(box[0] - grow), float(box[1] - grow)
    x1, y1 = float(min(box[2] + grow + 1, width - 1)), float(min(box[3] + grow + 1, height - 1))
    _raise_range(table, first, last, _iou(x0, y0, x1, y1, true_boxes))


@njit(cache=True, nogil=True)
def _score_holes(grey, level, order, table, true_boxes):
    """Score the 4-connected components of {grey < slot} that do not reach the frame, from dark to bright."""
    height, width = grey.shape
    flat, until = grey.ravel(), level.ravel()
    parent = np.full(flat.size, -1, np.int32)
    since = np.empty(flat.size, np.int32)
    boxes = np.empty((flat.size, 4), np.int32)
    for i in range(flat.size - 1, -1, -1):
        p = order[i]
        value = flat[p]
        if until[p] == value:
            continue
        y = p // width
        x = p - y * width  # never on the frame, which is outside at once
        parent[p] = p
        since[p] = value
        boxes[p, 0], boxes[p, 1], boxes[p, 2], boxes[p, 3] = x, y, x, y
        root = p
        for side in range(4):
            q = p - width if side == 0 else p - 1 if side == 1 else p + 1 if side == 2 else p + width
            if parent[q] < 0:
                continue
            other = _find(parent, q)
            if other == root:
                continue
            for r in (root, other):
                if since[r] < value:
                    _score(table, boxes[r], since[r] + 1, value, true_boxes, width, height, 1)
            parent[root] = other
            boxes[other, 0], boxes[other, 1] = min(boxes[other, 0], boxes[root, 0]), min(boxes[other, 1], boxes[root, 1])
            boxes[other, 2], boxes[other, 3] = max(boxes[other, 2], boxes[root, 2]), max(boxes[other, 3], boxes[root, 3])
            root = other
            since[root] = value
    for p in range(flat.size):
        if parent[p] == p:
            _score(table, boxes[p], since[p] + 1, until[p], true_boxes, width, height, 1)


@njit(cache=True, nogil=True)
def _best_iou(grey, true_boxes, representatives):
    height, width = grey.shape
    flat = grey.ravel()
    masks, order = _earlier_neighbours(grey), _bright_first(flat)
    steps = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    parent = np.empty(flat.size, np.int32)
    since = np.empty(flat.size, np.int32)  # the highest slot at which a root had the box it has
    boxes = np.empty((flat.size, 4), np.int32)
    table = np.full((_LOG, SLOTS), -1.0)
    for i in range(flat.size):
        p = order[i]
        value = flat[p]
        y = p // width
        x = p - y * width
        mask = masks[p]
        if mask == 0:
            parent[p] = p
            since[p] = value
            boxes[p, 0], boxes[p, 1], boxes[p, 2], boxes[p, 3] = x, y, x, y
            continue
        root = _find(parent, p + steps[representatives[mask, 0]])
        parent[p] = root
        if x < boxes[root, 0] or y < boxes[root, 1] or x > boxes[root, 2] or y > boxes[root, 3]:
            if since[root] > value:
                _score(table, boxes[root], value + 1, since[root], true_boxes, width, height, 0)
                since[root] = value
            boxes[root, 0], boxes[root, 1] = min(boxes[root, 0], x), min(boxes[root, 1], y)
            boxes[root, 2], boxes[root, 3] = max(boxes[root, 2], x), max(boxes[root, 3], y)
        k = 1
        while representatives[mask, k] >= 0:
            other = _find(parent, p + steps[representatives[mask, k]])
            k += 1
            if other == root:
                continue
            for r in (root, other):
                if since[r] > value:
                    _score(table, boxes[r], value + 1, since[r], true_boxes, width, height, 0)
            parent[other] = root
            since[root] = value
            boxes[root, 0], boxes[root, 1] = min(boxes[root, 0], boxes[other, 0]), min(boxes[root, 1], boxes[other, 1])
            boxes[root, 2], boxes[root, 3] = max(boxes[root, 2], boxes[other, 2]), max(boxes[root, 3], boxes[other, 3])
    root = _find(parent, order[0])
    _score(table, boxes[root], 0, since[root], true_boxes, width, height, 0)
    level, below = _flood_levels(grey)
    if below:
        _score_holes(grey, level, order, table, true_boxes)
    for k in range(_LOG - 1, 0, -1):
        half = 1 << (k - 1)
        for s in range(SLOTS - (1 << k) + 1):
            value_here = table[k, s]
            table[k - 1, s] = max(table[k - 1, s], value_here)
            table[k - 1, s + half] = max(table[k - 1, s + half], value_here)
    result = table[0].copy()
    empty = _iou(0.0, 0.0, 0.0, 0.0, true_boxes)
    for s in range(int(flat[order[0]]) + 1, SLOTS):
        result[s] = empty
    return result


@njit(cache=True, nogil=True)
def _raise_key(keys, boxes_of, key, box, first, last):
    """Note that on slots first..last a contour of rank ``key`` has this box."""
    k = int(math.log2(last - first + 1))
    for s in (first, last + 1 - (1 << k)):
        if key > keys[k, s]:
            keys[k, s] = key
            boxes_of[k, s, 0], boxes_of[k, s, 1], boxes_of[k, s, 2], boxes_of[k, s, 3] = box[0], box[1], box[2], box[3]


@njit(cache=True, nogil=True)
def _largest_boxes(grey, representatives, gained):
    height, width = grey.shape
    level, _ = _flood_levels(grey)
    flat = level.ravel()
    masks, order = _earlier_neighbours(level), _bright_first(flat)
    steps = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    parent = np.empty(flat.size, np.int32)
    since = np.empty(flat.size, np.int32)
    boxes = np.empty((flat.size, 4), np.int32)
    area = np.empty(flat.size, np.int64)  # twice the polygon area
    first = np.empty(flat.size, np.int64)  # first raster pixel
    keys = np.full((_LOG, SLOTS), np.int64(-1))
    boxes_of = np.zeros((_LOG, SLOTS, 4), np.int32)
    for i in range(flat.size):
        p = order[i]
        value = flat[p]
        y = p // width
        x = p - y * width
        mask = masks[p]
        if mask == 0:
            parent[p] = p
            since[p] = value
            boxes[p, 0], boxes[p, 1], boxes[p, 2], boxes[p, 3] = x, y, x, y
            area[p], first[p] = 0, p
            continue
        root = _find(parent, p + steps[representatives[mask, 0]])
        parent[p] = root
        if since[root] > value:
            _raise_key(keys, boxes_of, area[root] << 32 | first[root], boxes[root], value + 1, since[root])
            since[root] = value
        boxes[root, 0], boxes[root, 1] = min(boxes[root, 0], x), min(boxes[root, 1], y)
        boxes[root, 2], boxes[root, 3] = max(boxes[root, 2], x), max(boxes[root, 3], y)
        area[root] += gained[mask]
        first[root] = min(first[root], p)
        k = 1
        while representatives[mask, k] >= 0:
            other = _find(parent, p + steps[representatives[mask, k]])
            k += 1
            if other == root:
                continue
            if since[other] > value:
                _raise_key(keys, boxes_of, area[other] << 32 | first[other], boxes[other], value + 1, since[other])
            parent[other] = root
            boxes[root, 0], boxes[root, 1] = min(boxes[root, 0], boxes[other, 0]), min(boxes[root, 1], boxes[other, 1])
            boxes[root, 2], boxes[root, 3] = max(boxes[root, 2], boxes[other, 2]), max(boxes[root, 3], boxes[other, 3])
            area[root] += area[other]
            first[root] = min(first[root], first[other])
    root = _find(parent, order[0])
    _raise_key(keys, boxes_of, area[root] << 32 | first[root], boxes[root], 0, since[root])
    for k in range(_LOG - 1, 0, -1):
        half = 1 << (k - 1)
        for s in range(SLOTS - (1 << k) + 1):
            for t in (s, s + half):
                if keys[k, s] > keys[k - 1, t]:
                    keys[k - 1, t] = keys[k, s]
                    boxes_of[k - 1, t] = boxes_of[k, s]
    result = np.zeros((SLOTS, 4), np.int64)
    for s in range(int(flat[order[0]]) + 1):
        result[s, 0], result[s, 1] = boxes_of[0, s, 0], boxes_of[0, s, 1]
        result[s, 2], result[s, 3] = min(boxes_of[0, s, 2] + 1, width - 1), min(boxes_of[0, s, 3] + 1, height - 1)
    return result
