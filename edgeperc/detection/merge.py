"""One box for each object: suppression within a picture, and merging across tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeperc.detection.decode import F32, Candidates
from edgeperc.jit import kernel

MOST = 1000
"""Of more candidates than this only the best are looked at, so that a flood costs no more."""

_INSIDE = 0.7
_BORDER = 0.02


def suppress(found: Candidates, *, iou: float, most: int = MOST) -> Candidates:
    """Keep, of boxes of a class that overlap by more than `iou`, the one with the best score.

    The answer is in order of score, best first.
    """
    best = found.take(np.argsort(-found.scores, kind="stable")[:most])
    return best.take(_suppress(best.boxes, best.class_ids, iou))


def merge_tiles(
    found: Candidates, tiles: F32, tile_of: NDArray[np.int64], *, iou: float, most: int = MOST
) -> Candidates:
    """Join what several tiles say about an object. Boxes and tiles are in the frame's pixels.

    tiles: (T, 4) xyxy; tile_of: (N,) the tile of each box. Two boxes of a class are of one object
    if they agree where both tiles see: their parts inside the common rectangle overlap by more than
    `iou`. So does a box that a border cut agree with one that holds 70 % of it. A whole box stands
    for all that agree with it; where all are cut, their union does, through as many tiles as it
    takes. Best first.
    """
    cut = _cut(found.boxes, tiles[tile_of], _bounds(tiles))
    order = np.lexsort((-found.scores, cut))[:most]  # whole ones first, each by score
    best = found.take(order)
    boxes, scores, leader = _merge(
        best.boxes, best.scores, best.class_ids, cut[order], tiles, tile_of[order], iou
    )
    led = best.take(leader)
    merged = Candidates(boxes=boxes, scores=scores, class_ids=led.class_ids, variance=led.variance)
    return merged.take(np.argsort(-scores, kind="stable"))


def _bounds(tiles: F32) -> F32:
    return np.concatenate((tiles[:, :2].min(axis=0), tiles[:, 2:].max(axis=0)))


def _cut(boxes: F32, tiles: F32, frame: F32) -> NDArray[np.bool_]:
    """Whether a border of its own tile, inside the frame, cuts a box. tiles: (N, 4)."""
    near = _BORDER * (tiles[:, 2:] - tiles[:, :2])
    low = (boxes[:, :2] <= tiles[:, :2] + near) & (tiles[:, :2] > frame[:2])
    high = (boxes[:, 2:] >= tiles[:, 2:] - near) & (tiles[:, 2:] < frame[2:])
    return np.asarray((low | high).any(axis=1), np.bool_)


@kernel()
def _overlap(a: F32, b: F32) -> float:
    """Area that two boxes share, in px²."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(max(width, np.float32(0)) * max(height, np.float32(0)))


@kernel()
def _area(box: F32) -> float:
    return float(max(box[2] - box[0], np.float32(0)) * max(box[3] - box[1], np.float32(0)))


@kernel()
def _suppress(boxes: F32, class_ids: NDArray[np.int64], iou: float) -> NDArray[np.bool_]:
    kept = np.ones(len(boxes), np.bool_)
    for i in range(len(boxes)):
        if not kept[i]:
            continue
        for j in range(i + 1, len(boxes)):
            if kept[j] and class_ids[i] == class_ids[j]:
                common = _overlap(boxes[i], boxes[j])
                if common > iou * (_area(boxes[i]) + _area(boxes[j]) - common):
                    kept[j] = False
    return kept


@kernel()
def _agree(a: F32, b: F32, tile_a: F32, tile_b: F32, b_is_cut: bool, iou: float, seen: F32) -> bool:
    """Whether box b, seen in tile b, is of the same object as box a; `seen` is room for 3 boxes."""
    if _overlap(a, b) <= 0:
        return False
    if b_is_cut and _overlap(a, b) >= _INSIDE * _area(b):
        return True
    for axis in range(2):
        low = max(tile_a[axis], tile_b[axis])
        high = min(tile_a[axis + 2], tile_b[axis + 2])
        seen[0, axis], seen[0, axis + 2] = max(a[axis], low), min(a[axis + 2], high)
        seen[1, axis], seen[1, axis + 2] = max(b[axis], low), min(b[axis + 2], high)
    common = _overlap(seen[0], seen[1])
    return common > iou * (_area(seen[0]) + _area(seen[1]) - common)


@kernel()
def _merge(
    boxes: F32,
    scores: F32,
    class_ids: NDArray[np.int64],
    cut: NDArray[np.bool_],
    tiles: F32,
    tile_of: NDArray[np.int64],
    iou: float,
) -> tuple[F32, F32, NDArray[np.int64]]:
    """Boxes come whole ones first. Returns merged boxes, their best scores and their leaders."""
    count = len(boxes)
    free = np.ones(count, np.bool_)
    merged, best = np.empty_like(boxes), np.empty_like(scores)
    leader = np.empty(count, np.int64)
    queue = np.empty(count, np.int64)
    seen = np.empty((2, 4), np.float32)
    groups = 0
    for i in range(count):
        if not free[i]:
            continue
        free[i] = False
        merged[groups], best[groups], leader[groups] = boxes[i], scores[i], i
        queue[0], waiting, done = i, 1, 0
        while done < waiting:
            a = queue[done]
            done += 1
            for b in range(i + 1, count):
                if not free[b] or class_ids[a] != class_ids[b]:
                    continue
                if not _agree(
                    boxes[a], boxes[b], tiles[tile_of[a]], tiles[tile_of[b]], cut[b], iou, seen
                ):
                    continue
                free[b] = False
                best[groups] = max(best[groups], scores[b])
                if cut[i]:  # then all of the group are
                    for axis in range(2):
                        merged[groups, axis] = min(merged[groups, axis], boxes[b, axis])
                        merged[groups, axis + 2] = max(merged[groups, axis + 2], boxes[b, axis + 2])
                    queue[waiting] = b
                    waiting += 1
        groups += 1
    return merged[:groups], best[:groups], leader[:groups]
