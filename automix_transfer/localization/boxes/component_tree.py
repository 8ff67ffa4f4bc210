"""The numba engine: boxes of all components at all 256 levels in one pass, instead of one contour search a
level.

Pixels are taken from bright to dark and joined to their brighter 8-neighbours by union-find: a component tree
(max-tree), of which only the living roots are kept. What a root is holds from the level where it took this
shape down to the level where it changes or is absorbed, so each component is ranked once, for a range of
slots. What makes it exact and cheap:

- V2 ranks a component by its box's IoU, so only a change of the box counts. Holes are candidates too:
  4-connected dark components that do not reach the frame, joined from dark to bright among the few pixels
  that lie below their `flood_levels`.
- V1 ranks by polygon area, which ignores holes, so it looks at the map with its holes filled. Ties go to the
  component whose first raster pixel comes last, as in OpenCV's list: rank = area · (H · W) + first pixel,
  exact in float64 up to 2²⁵ pixels.

Bit-equal to `contours`, which the tests prove. Loops are plain because numba compiles them; they release
Python's lock. numba notices a
change of the file that a compiled function stands in, not of files it calls into: so no compiled function
here calls one of another file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automix_transfer.host.compiled import compiled
from automix_transfer.localization.boxes.contours import pairwise_iou
from automix_transfer.localization.boxes.flood import flood_levels
from automix_transfer.localization.boxes.neighbours import bright_first, earlier_neighbours, neighbour_tables

SLOTS = 257
_RANGES = 9  # 2**8 <= 257 < 2**9
_REPRESENTATIVES, _GAINED = neighbour_tables()
_NO_BOXES = np.empty((0, 4))


def largest_boxes(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(257, 4) box of the contour of largest polygon area at every slot; see `boxes.largest_boxes`."""
    filled, _ = flood_levels(grey)
    candidates = _rank_components(
        filled, earlier_neighbours(filled), bright_first(filled.ravel()), _NO_BOXES, _REPRESENTATIVES, _GAINED
    )
    _spread(*candidates)
    result = candidates[1][0].astype(np.int64)
    result[:, 2:] = np.minimum(result[:, 2:] + 1, (grey.shape[1] - 1, grey.shape[0] - 1))
    result[int(grey.max()) + 1 :] = 0
    return result


def best_iou(grey: NDArray[np.uint8], true_boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(257,) best IoU over all contours at every slot; see `boxes.best_iou`."""
    order = bright_first(grey.ravel())
    candidates = _rank_components(
        grey, earlier_neighbours(grey), order, true_boxes, _REPRESENTATIVES, _GAINED
    )
    levels, below = flood_levels(grey)
    if below:
        _rank_holes(grey, levels, order, true_boxes, candidates)
    _spread(*candidates)
    result = candidates[0][0]
    result[int(grey.max()) + 1 :] = pairwise_iou(np.zeros((1, 4)), true_boxes).max()
    return result


@compiled
def _find(parent, p):
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@compiled
def _widen(boxes, root, other):
    """Make the box (x0, y0, x1, y1) of ``root`` hold that of ``other`` too."""
    boxes[root, 0], boxes[root, 1] = (
        min(boxes[root, 0], boxes[other, 0]),
        min(boxes[root, 1], boxes[other, 1]),
    )
    boxes[root, 2], boxes[root, 3] = (
        max(boxes[root, 2], boxes[other, 2]),
        max(boxes[root, 3], boxes[other, 3]),
    )


@compiled
def _iou(box, grow, width, height, true_boxes):
    """Best inclusive IoU with (N, 4) true boxes of a component's box, as the reference writes it: its end one
    pixel further, but inside the map; ``grow`` is 1 for holes, whose contour runs around them. The same
    operations in the same order as `contours.pairwise_iou`."""
    x0, y0 = float(box[0] - grow), float(box[1] - grow)
    x1, y1 = float(min(box[2] + grow + 1, width - 1)), float(min(box[3] + grow + 1, height - 1))
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


@compiled
def _note(ranks, boxes_of, rank, box, first, last):
    """Note a candidate for slots first..last: two overlapping ranges whose length is a power of two;
    `_spread` brings them down."""
    k = 0
    while 2 << k <= last - first + 1:
        k += 1
    for s in (first, last + 1 - (1 << k)):
        if rank > ranks[k, s]:
            ranks[k, s] = rank
            boxes_of[k, s, 0], boxes_of[k, s, 1], boxes_of[k, s, 2], boxes_of[k, s, 3] = (
                box[0],
                box[1],
                box[2],
                box[3],
            )


@compiled
def _spread(ranks, boxes_of):
    """From ranges to slots: afterwards row 0 has the best candidate of every slot."""
    for k in range(ranks.shape[0] - 1, 0, -1):
        half = 1 << (k - 1)
        for s in range(ranks.shape[1] - (1 << k) + 1):
            for t in (s, s + half):
                if ranks[k, s] > ranks[k - 1, t]:
                    ranks[k - 1, t] = ranks[k, s]
                    boxes_of[k - 1, t] = boxes_of[k, s]


@compiled
def _close(tree, root, value, candidates, true_boxes, shape):
    """A root is about to change at slot ``value``: note what it was above. Ranked by IoU, or without true
    boxes by polygon area.

    Callers ask whether it was anything, since[root] > value, because a call counts references to all these
    arrays, which costs more.
    """
    _, since, boxes, area, head = tree
    if true_boxes.shape[0]:
        rank = _iou(boxes[root], 0, shape[1], shape[0], true_boxes)
    else:
        rank = float(area[root]) * (shape[0] * shape[1]) + head[root]
    _note(candidates[0], candidates[1], rank, boxes[root], value + 1, since[root])
    since[root] = value


@compiled
def _rank_components(grey, masks, order, true_boxes, representatives, gained):
    """Candidates (ranks and boxes by range of slots) of all 8-connected components of {grey >= slot}."""
    width, size = grey.shape[1], grey.size
    flat = grey.ravel()
    steps = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    parent = np.empty(size, np.int32)
    since = np.empty(size, np.int32)  # the highest slot at which a root was what it is
    boxes = np.empty((size, 4), np.int32)
    by_area = true_boxes.shape[0] == 0
    area = np.zeros(size if by_area else 0, np.int32)  # twice the polygon area
    head = np.empty(size if by_area else 0, np.int32)  # first raster pixel
    tree = (parent, since, boxes, area, head)
    candidates = (np.full((_RANGES, SLOTS), -1.0), np.zeros((_RANGES, SLOTS, 4), np.int32))
    for i in range(size):
        p = order[i]
        value = flat[p]
        y = p // width
        x = p - y * width
        mask = masks[p]
        if mask == 0:
            parent[p], since[p] = p, value
            if by_area:
                head[p] = p
            boxes[p, 0], boxes[p, 1], boxes[p, 2], boxes[p, 3] = x, y, x, y
            continue
        root = _find(parent, p + steps[representatives[mask, 0]])
        parent[p] = root
        if by_area or x < boxes[root, 0] or y < boxes[root, 1] or x > boxes[root, 2] or y > boxes[root, 3]:
            if since[root] > value:
                _close(tree, root, value, candidates, true_boxes, grey.shape)
            boxes[root, 0], boxes[root, 1] = min(boxes[root, 0], x), min(boxes[root, 1], y)
            boxes[root, 2], boxes[root, 3] = max(boxes[root, 2], x), max(boxes[root, 3], y)
            if by_area:
                area[root] += gained[mask]
                head[root] = min(head[root], p)
        k = 1
        while representatives[mask, k] >= 0:
            other = _find(parent, p + steps[representatives[mask, k]])
            k += 1
            if other != root:
                for r in (root, other):
                    if since[r] > value:
                        _close(tree, r, value, candidates, true_boxes, grey.shape)
                parent[other] = root
                _widen(boxes, root, other)
                if by_area:
                    area[root] += area[other]
                    head[root] = min(head[root], head[other])
    _close(tree, _find(parent, order[0]), -1, candidates, true_boxes, grey.shape)
    return candidates


@compiled
def _rank_holes(grey, levels, order, true_boxes, candidates):
    """Add the 4-connected components of {grey < slot} that do not reach the frame, from dark to bright."""
    height, width = grey.shape
    flat, until = grey.ravel(), levels.ravel()
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
        parent[p], since[p] = p, value
        boxes[p, 0], boxes[p, 1], boxes[p, 2], boxes[p, 3] = x, y, x, y
        root = p
        for side in range(4):
            q = p - width if side == 0 else p - 1 if side == 1 else p + 1 if side == 2 else p + width
            other = _find(parent, q) if parent[q] >= 0 else root
            if other == root:
                continue
            for r in (root, other):
                if since[r] < value:
                    _note(
                        candidates[0],
                        candidates[1],
                        _iou(boxes[r], 1, width, height, true_boxes),
                        boxes[r],
                        since[r] + 1,
                        value,
                    )
            parent[root] = other
            _widen(boxes, other, root)
            root = other
            since[root] = value
    for p in range(flat.size):
        if parent[p] == p:
            _note(
                candidates[0],
                candidates[1],
                _iou(boxes[p], 1, width, height, true_boxes),
                boxes[p],
                since[p] + 1,
                until[p],
            )
