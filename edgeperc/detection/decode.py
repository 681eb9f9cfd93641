"""Network outputs to candidate boxes, one decoder for each family of detectors.

A decoder is made for a number of classes and a network size, and called with the first output and
the lowest score of interest. It gives boxes in network pixels, before any suppression. A box with a
coordinate that is not finite, or without area, is dropped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel

F32: TypeAlias = NDArray[np.float32]
FINDER_STRIDE_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Boxes that may overlap. boxes: (N, 4) xyxy px; scores: (N,); class_ids: (N,) int64.

    variance: (N, 4) px² of each edge, or None where the network states none.
    """

    boxes: F32
    scores: F32
    class_ids: NDArray[np.int64]
    variance: F32 | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Candidates:
        """Those of an index or mask, in its order."""
        return Candidates(
            boxes=self.boxes[index],
            scores=self.scores[index],
            class_ids=self.class_ids[index],
            variance=None if self.variance is None else self.variance[index],
        )


@dataclass(frozen=True, slots=True)
class Decoder:
    """shape: of the first output for (classes, height_px, width_px). decode: (output, score)."""

    shape: Callable[[int, int, int], tuple[int, ...]]
    decode: Callable[[F32, float, int, int], Candidates]


def fastestdet(output: F32, score: float, height_px: int, width_px: int) -> Candidates:
    """output: (1, 5 + K, h, w): objectness, box, classes.

    score = objectness^0.6 · class^0.4; centre = (cell + tanh) / cells, size = sigmoid, both
    relative to the picture. Source: dog-qiuqiu/FastestDet, its training-side post-processing (the
    sample for onnxruntime multiplies the two plainly).
    """
    return _plain(*_fastestdet(output[0], score, width_px, height_px))


def yolox(output: F32, score: float, height_px: int, width_px: int) -> Candidates:
    """output: (1, cells, 5 + K), strides 8, 16, 32 in order and cells row by row.

    xy = (p + cell) · stride, wh = exp(p) · stride, score = objectness · class, both already behind
    their sigmoid. Source: Megvii-BaseDetection/YOLOX, `demo_postprocess`.
    """
    return _plain(*_yolox(output[0], score, width_px, height_px))


def finder(output: F32, score: float, height_px: int, width_px: int) -> Candidates:
    """output: (1, K + 8, h, w): class logits, distances to the four edges, their log variances.

    score = sigmoid of the largest logit; an edge is the cell's centre ∓ stride · distance; the
    variance is stride² · exp(log variance). Source: ours (edgeperc/offline/nets/finder.py), after
    FCOS (arXiv 1904.01355) and the variance of KL-Loss (arXiv 1809.08545).
    """
    boxes, scores, class_ids, variance = _finder(output[0], score)
    kept = _kept(boxes, scores) & np.isfinite(variance).all(axis=1)
    return Candidates(boxes=boxes, scores=scores, class_ids=class_ids, variance=variance).take(kept)


DECODERS: dict[str, Decoder] = {
    "fastestdet": Decoder(lambda k, h, w: (1, 5 + k, h // 16, w // 16), fastestdet),
    "yolox": Decoder(
        lambda k, h, w: (1, sum((h // s) * (w // s) for s in (8, 16, 32)), 5 + k), yolox
    ),
    "finder": Decoder(
        lambda k, h, w: (1, k + 8, h // FINDER_STRIDE_PX, w // FINDER_STRIDE_PX), finder
    ),
}
"""`[detect] decode` of a model card -> decoder."""


def _plain(boxes: F32, scores: F32, class_ids: NDArray[np.int64]) -> Candidates:
    found = Candidates(boxes=boxes, scores=scores, class_ids=class_ids)
    return found.take(_kept(boxes, scores))


def _kept(boxes: F32, scores: F32) -> NDArray[np.bool_]:
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    kept: NDArray[np.bool_] = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & has_area
    return kept


@kernel()
def _fastestdet(
    cells: F32, score: float, width_px: int, height_px: int
) -> tuple[F32, F32, NDArray[np.int64]]:
    channels, rows, columns = cells.shape
    boxes = np.empty((rows * columns, 4), np.float32)
    scores = np.empty(rows * columns, np.float32)
    class_ids = np.empty(rows * columns, np.int64)
    # A class is at most 1: most cells are out before their 80 classes are looked at.
    least = score ** (1 / 0.6)
    found = 0
    for row in range(rows):
        for column in range(columns):
            objectness = cells[0, row, column]
            if not objectness >= least:
                continue
            best = 5
            for k in range(6, channels):
                if cells[k, row, column] > cells[best, row, column]:
                    best = k
            value = objectness**0.6 * cells[best, row, column] ** 0.4
            if not value >= score:
                continue
            x = (column + math.tanh(cells[1, row, column])) / columns * width_px
            y = (row + math.tanh(cells[2, row, column])) / rows * height_px
            half_width = 0.5 * width_px / (1 + math.exp(-cells[3, row, column]))
            half_height = 0.5 * height_px / (1 + math.exp(-cells[4, row, column]))
            boxes[found, 0], boxes[found, 1] = x - half_width, y - half_height
            boxes[found, 2], boxes[found, 3] = x + half_width, y + half_height
            scores[found], class_ids[found] = value, best - 5
            found += 1
    return boxes[:found], scores[:found], class_ids[:found]


@kernel()
def _yolox(
    cells: F32, score: float, width_px: int, height_px: int
) -> tuple[F32, F32, NDArray[np.int64]]:
    count, channels = cells.shape
    boxes = np.empty((count, 4), np.float32)
    scores = np.empty(count, np.float32)
    class_ids = np.empty(count, np.int64)
    found, stride, first = 0, 8, 0
    for i in range(count):
        if i - first == (width_px // stride) * (height_px // stride):
            first, stride = i, stride * 2
        objectness = cells[i, 4]
        if not objectness >= score:
            continue
        best = 5
        for k in range(6, channels):
            if cells[i, k] > cells[i, best]:
                best = k
        value = objectness * cells[i, best]
        if not value >= score:
            continue
        row, column = divmod(i - first, width_px // stride)
        x, y = (cells[i, 0] + column) * stride, (cells[i, 1] + row) * stride
        half_width = 0.5 * math.exp(cells[i, 2]) * stride
        half_height = 0.5 * math.exp(cells[i, 3]) * stride
        boxes[found, 0], boxes[found, 1] = x - half_width, y - half_height
        boxes[found, 2], boxes[found, 3] = x + half_width, y + half_height
        scores[found], class_ids[found] = value, best - 5
        found += 1
    return boxes[:found], scores[:found], class_ids[:found]


@kernel()
def _finder(cells: F32, score: float) -> tuple[F32, F32, NDArray[np.int64], F32]:
    channels, rows, columns = cells.shape
    classes = channels - 8
    boxes = np.empty((rows * columns, 4), np.float32)
    variance = np.empty((rows * columns, 4), np.float32)
    scores = np.empty(rows * columns, np.float32)
    class_ids = np.empty(rows * columns, np.int64)
    least = -np.inf if score <= 0 else (np.inf if score >= 1 else math.log(score / (1 - score)))
    found = 0
    for row in range(rows):
        for column in range(columns):
            best = 0
            for k in range(1, classes):
                if cells[k, row, column] > cells[best, row, column]:
                    best = k
            logit = cells[best, row, column]
            if not logit >= least:
                continue
            for edge in range(4):
                centre = ((row if edge % 2 else column) + 0.5) * FINDER_STRIDE_PX
                reach = cells[classes + edge, row, column] * FINDER_STRIDE_PX
                boxes[found, edge] = centre - reach if edge < 2 else centre + reach
                spread = math.exp(cells[classes + 4 + edge, row, column])
                variance[found, edge] = spread * FINDER_STRIDE_PX**2
            scores[found], class_ids[found] = 1 / (1 + math.exp(-logit)), best
            found += 1
    return boxes[:found], scores[:found], class_ids[:found], variance[:found]
