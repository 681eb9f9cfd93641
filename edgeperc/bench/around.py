"""What a promptable network's frame costs besides its networks: picture in, masks out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.bench.timing import core_ms
from edgeperc.config import Input
from edgeperc.picture import IMAGENET_MEAN, IMAGENET_STD, Picture
from edgeperc.prompting.enlarge import enlarge, to_picture

WIDTH_PX, HEIGHT_PX = 1920, 1080
"""SAM's: the three channels differ, as in any real card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Medians in ms of one core, for one frame. total_ms: all of them in one go, as in a session.

    picture_ms: resized, normalised, as a tensor. masks_ms: logits of the objects up to the
    picture's size and cut at 0. pack_ms: run lengths and boxes. memory_ms: logits of the objects up
    to the network's size, for the memory encoder.
    """

    total_ms: float
    picture_ms: float
    masks_ms: float
    pack_ms: float
    memory_ms: float


def around_ms_1080p(*, objects: int = 3, network_px: int = 1024, reps: int = 40) -> Around:
    """Time one full HD frame with so many objects, by the functions that sessions use.

    The time is that of this thread on its core: OpenCV is kept to one thread meanwhile.
    """
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    spec = Input(
        kind="frame",
        represent="stretch",
        width_px=network_px,
        height_px=network_px,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    picture = Picture(spec, smooth=True)
    picture(image)
    logits = [object_logits(number, side=network_px // 4) for number in range(objects)]

    def cut() -> list[NDArray[np.bool_]]:
        return [to_picture(each, WIDTH_PX, HEIGHT_PX, picture.zoom) for each in logits]

    found = cut()

    def pack() -> None:
        for mask in found:
            masks.box(masks.encode(mask))

    def remember() -> None:
        for each in logits:
            enlarge(each, network_px)

    def whole() -> None:
        picture(image)
        for each in logits:
            rle = masks.encode(to_picture(each, WIDTH_PX, HEIGHT_PX, picture.zoom))
            masks.box(rle)
            enlarge(each, network_px)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return Around(
            total_ms=core_ms(whole, reps=reps),
            picture_ms=core_ms(lambda: picture(image), reps=reps),
            masks_ms=core_ms(cut, reps=reps),
            pack_ms=core_ms(pack, reps=reps),
            memory_ms=core_ms(remember, reps=reps),
        )
    finally:
        cv2.setNumThreads(threads)


def object_logits(number: int, *, side: int) -> NDArray[np.float32]:
    """Logits (side, side) of an object with a wavy edge that covers some hundredths of them."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side
    x, y = 0.2 + 0.3 * (number % 3), 0.3 + 0.2 * (number // 3 % 3)
    angle = np.arctan2(rows - y, columns - x)
    radius = 0.1 + 0.03 * (number % 2) + 0.01 * np.sin(9 * angle)
    edge: NDArray[np.float32] = 60 * (radius - np.hypot(columns - x, rows - y))
    return edge.astype(np.float32)
