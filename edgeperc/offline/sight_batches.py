"""Batches of sights: drawn by (seed, step), altered, and with what each cell should answer."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.offline.nets.finder import STRIDE_PX
from edgeperc.offline.samples import IGNORE
from edgeperc.offline.sights import SEARCH, SIDE_PX, WIDE, Sights, cut_boxes

SEEN, UNSEEN = 0.3, 0.08
"""Things of which a picture shows this share are to be found; below the second they are nothing;
in between nobody asks."""
CELLS = SIDE_PX // STRIDE_PX
BACKGROUND, NOBODY_ASKS = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxBatch:
    """Pictures and what each cell should answer.

    pictures: (N, 1, 224, 224) float32, 0..1. class_ids: (N, 28, 28) int64, BACKGROUND, NOBODY_ASKS
    or a class. Where there is a class: boxes (N, 28, 28, 4) float32 xyxy px, and weights (N, 28,
    28) float32, which keep large things, that many cells answer for, from outvoting small ones.
    """

    pictures: Tensor
    class_ids: Tensor
    boxes: Tensor
    weights: Tensor


def box_batch(sights: Sights, key: tuple[int, int], count: int) -> BoxBatch:
    """Half from each camera, altered at random; the same for the same key (seed, step)."""
    rng = np.random.default_rng(key)
    pictures, class_ids, boxes, weights = [], [], [], []
    for index in _indices(sights, rng, count):
        held, ids, visible = sights.things(index)
        image, _, held, visible = _moved(rng, sights.images[index], None, held, visible)
        image, visible = _covered(rng, image, held, visible)
        owner = assign(held, visible)
        asked = owner >= 0
        pictures.append(_lit(rng, image))
        class_ids.append(np.where(asked, np.append(ids, 0)[owner], owner))
        boxes.append(np.concatenate([held, np.zeros((1, 4), np.float32)])[owner])
        cells = np.bincount(owner[asked], minlength=len(held) + 1)
        weights.append(np.maximum(cells, 1)[owner].astype(np.float32) ** -0.5)
    return BoxBatch(
        pictures=_stacked(pictures),
        class_ids=torch.from_numpy(np.stack(class_ids)),
        boxes=torch.from_numpy(np.stack(boxes)),
        weights=torch.from_numpy(np.stack(weights)),
    )


def region_batch(sights: Sights, key: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Wide cuts, altered at random, (N, 1, 224, 224), and their regions, (N, 224, 224) int64."""
    rng = np.random.default_rng(key)
    wide = np.flatnonzero(sights.sensors == WIDE)
    pictures, regions = [], []
    nothing = np.zeros((0, 4), np.float32)
    for index in rng.choice(wide, count):
        image, labels, _, _ = _moved(
            rng, sights.images[index], sights.regions[index], nothing, nothing[:, 0]
        )
        pictures.append(_lit(rng, image))
        regions.append(labels)
    return _stacked(pictures), torch.from_numpy(np.stack(regions)).long()


def assign(boxes: NDArray[np.float32], visible: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which thing each cell is to answer for, (28, 28): a row of boxes, or one of the two others.

    Cells near the middle of a thing answer for it, at least the one that holds its middle; the
    smaller thing wins.
    """
    owner = np.full((CELLS, CELLS), BACKGROUND, np.int64)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for k in np.argsort(-areas, kind="stable"):
        if visible[k] < UNSEEN or areas[k] < 2:
            continue
        middle, half = (boxes[k, :2] + boxes[k, 2:]) / 2, (boxes[k, 2:] - boxes[k, :2]) / 2
        reach = np.clip(half, STRIDE_PX / 2, 1.5 * STRIDE_PX)
        low = np.ceil((middle - reach) / STRIDE_PX - 0.5).astype(int).clip(0)
        high = np.floor((middle + reach) / STRIDE_PX - 0.5).astype(int)
        owner[low[1] : high[1] + 1, low[0] : high[0] + 1] = k if visible[k] >= SEEN else NOBODY_ASKS
    return owner


def _indices(sights: Sights, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    search = rng.choice(np.flatnonzero(sights.sensors == SEARCH), count - count // 2)
    wide = rng.choice(np.flatnonzero(sights.sensors == WIDE), count // 2)
    return np.concatenate([search, wide])


def _moved(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    regions: NDArray[np.uint8] | None,
    boxes: NDArray[np.float32],
    visible: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Mirror, enlarge or shrink, and shift; what comes in from outside is mirrored in."""
    zoom = float(np.exp(rng.uniform(np.log(0.8), np.log(1.3)))) if rng.random() < 0.6 else 1.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    offset = SIDE_PX / 2 * (1 - zoom * np.array([flip, 1.0])) + rng.uniform(-12, 12, 2)
    # Pixel centres lie at half numbers, which is where boxes are measured from.
    matrix = np.array([[flip * zoom, 0, offset[0]], [0, zoom, offset[1]]])
    half = np.array([0.5, 0.5])
    pixels = matrix.copy()
    pixels[:, 2] += matrix[:, :2] @ half - half
    size, border = (SIDE_PX, SIDE_PX), cv2.BORDER_REFLECT
    moved = cv2.warpAffine(image, pixels, size, flags=cv2.INTER_LINEAR, borderMode=border)
    labels = np.full((SIDE_PX, SIDE_PX), IGNORE, np.uint8)
    if regions is not None:
        labels = cv2.warpAffine(
            regions, pixels, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE
        ).astype(np.uint8)
    corners = boxes.reshape(-1, 2, 2) * [flip * zoom, zoom] + offset
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    boxes, visible = cut_boxes(boxes, visible)
    return moved.astype(np.uint8), labels, boxes, visible


def _covered(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    visible: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Hide parts of some pictures behind upright rectangles cut from elsewhere in them."""
    if rng.random() < 0.7:
        return image, visible
    image = image.copy()
    for _ in range(int(rng.integers(1, 4))):
        size = np.array([rng.integers(4, 30), rng.integers(12, 90)])
        x, y = rng.integers(0, SIDE_PX - size)
        from_x, from_y = rng.integers(0, SIDE_PX - size)
        patch = image[from_y : from_y + size[1], from_x : from_x + size[0]].copy()
        image[y : y + size[1], x : x + size[0]] = patch
        common = np.minimum(boxes[:, 2:], [x + size[0], y + size[1]])
        common = (common - np.maximum(boxes[:, :2], [x, y])).clip(0).prod(axis=1)
        area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
        # The patch may bring a piece of somebody along; it is too small to be asked for.
        visible = (visible * (1 - common / area)).astype(np.float32)
    return image, visible


def _lit(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Other light, contrast and sharpness, and more noise; (224, 224) float32, 0..1."""
    light = image.astype(np.float32) / 255
    if rng.random() < 0.25:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 1.3)).astype(np.float32)
    if rng.random() < 0.8:
        light = np.power(light.clip(1e-3), np.float32(np.exp(rng.uniform(-0.5, 0.5))))
        middle = light.mean()
        light = (light - middle) * rng.uniform(0.6, 1.4) + middle * rng.uniform(0.6, 1.4)
    if rng.random() < 0.6:
        light = light + rng.normal(0, rng.uniform(0, 0.03), light.shape)
    bright: NDArray[np.float32] = light.clip(0, 1).astype(np.float32)
    return bright


def _stacked(pictures: list[NDArray[np.float32]]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pictures)[:, None])
    return stacked.contiguous(memory_format=torch.channels_last)
