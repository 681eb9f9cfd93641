"""Pictures to tensors: how a frame of any size comes to a network's size, channels and scale.

picture = Picture(card.input)
tensor = picture(frame.image)              # (C, h, w) float32, what the network eats
boxes = picture.to_frame(network_boxes)    # and back to the frame's pixels

One object serves one network in one thread: it owns the tensor.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.config import Input
from edgeperc.errors import ModelError
from edgeperc.jit import kernel

STRETCH, FIT, NATIVE, LONGEST = "stretch", "fit", "native", "longest"
WAYS = (STRETCH, FIT, NATIVE, LONGEST)
"""`[input] represent` of a card for frames: resize both axes apart; keep the aspect and pad with
grey 114 at the right and below; keep the pixels and repeat the last ones up to a multiple of 32;
keep the aspect and pad the normalised picture with zeros, as SAM does."""

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue, 0 to 255: what SAM, SAM 2 and our own promptable network are given."""

_PAD = 114
_MULTIPLE_PX = 32


class Picture:
    """Turns pictures into one network's input, in buffers of its own that the next call reuses.

    smooth: what is twice as large or more is halved by averages first, lest it alias; that takes a
    millisecond of full HD, and is for networks that learned from pictures shrunk so. Raises
    ModelError if the card's [input] names no way to do it.
    """

    def __init__(self, spec: Input, *, smooth: bool = False) -> None:
        if spec.represent not in WAYS:
            raise ModelError(
                f"unknown way '{spec.represent}' to bring a frame to the network's size",
                hint=f"[input] represent is one of {', '.join(WAYS)}",
            )
        self._smooth = smooth
        self._way, self._grey = spec.represent, spec.channels == "grey"
        self._network_px = (spec.height_px, spec.width_px)
        self._order = (2, 1, 0) if spec.channels == "bgr" else (0, 1, 2)
        count = 1 if self._grey else 3
        if len(spec.mean) not in (1, count) or len(spec.std) not in (1, count):
            raise ModelError(f"[input] mean and std need 1 or {count} values for its channels")
        scale = 1.0 / np.broadcast_to(np.asarray(spec.std, np.float64), count)
        self._scale = scale.astype(np.float32)
        self._shift = (-np.asarray(spec.mean, np.float64) * scale).astype(np.float32)
        self._source_px = (0, 0)  # height, width
        self._inner_px = (0, 0)  # width, height of the picture inside the tensor
        self.zoom = np.ones(2)
        """Network px in a frame px along x and y, of the latest picture."""

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """image: (H, W) grey or (H, W, 3) RGB. Returns (C, h, w) float32, read-only.

        Grey becomes three equal channels where the network wants colour, and colour becomes grey
        by OpenCV's luma. Raises ModelError for a picture without pixels.
        """
        if image.size == 0:
            raise ModelError(f"a picture of {image.shape[1]} × {image.shape[0]} px has no pixels")
        if image.shape[:2] != self._source_px:
            self._prepare(image.shape[0], image.shape[1])
        pixels: Any = image  # OpenCV's own types are looser than ours
        if self._grey and image.ndim == 3:
            pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        width, height = self._inner_px
        if self._smooth:
            pixels = _halved(pixels, width, height)
        # Of uint8, as the networks' own code does: rounding included. Of one size it is a copy,
        # so that the kernel below always sees a writable array in one piece.
        pixels = cv2.resize(pixels, (width, height))
        planes = [pixels] if pixels.ndim == 2 else cv2.split(pixels)
        for channel, plane in enumerate(self._tensor):
            source = planes[self._order[channel]] if len(planes) == 3 else planes[0]
            _scale_into(source, self._scale[channel], self._shift[channel], plane)
        if self._way == NATIVE:
            self._tensor[:, :height, width:] = self._tensor[:, :height, width - 1 : width]
            self._tensor[:, height:] = self._tensor[:, height - 1 : height]
        view: NDArray[np.float32] = self._tensor.view()
        view.flags.writeable = False
        return view

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring boxes (N, 4) xyxy from network px to px of the latest picture."""
        return (boxes / np.tile(self.zoom, 2)).astype(np.float32)

    def variance_to_frame(self, variance: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same for variances (N, 4) of box edges, px²."""
        return (variance / np.tile(self.zoom, 2) ** 2).astype(np.float32)

    def labels_to_sensor(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring labels (h', w') of the network, at any of its strides, to the picture's pixels."""
        height, width = self._source_px
        cells_a_px = self.zoom[::-1] * labels.shape / np.array(self._tensor.shape[1:])
        rows, columns = (
            _nearest(*axis) for axis in zip((height, width), cells_a_px, labels.shape, strict=True)
        )
        in_frame: NDArray[np.uint8] = labels[rows[:, None], columns]
        return in_frame

    def _prepare(self, height: int, width: int) -> None:
        """Make the buffers for pictures of this size."""
        network_px, inner_px = self._network_px, self._network_px
        if self._way == FIT:
            ratio = min(network_px[0] / height, network_px[1] / width)
            inner_px = (max(int(height * ratio), 1), max(int(width * ratio), 1))
            self.zoom = np.array([ratio, ratio])
        elif self._way == LONGEST:
            ratio = min(network_px[0] / height, network_px[1] / width)
            inner_px = (max(int(height * ratio + 0.5), 1), max(int(width * ratio + 0.5), 1))
            self.zoom = np.array([inner_px[1] / width, inner_px[0] / height])
        elif self._way == NATIVE:
            inner_px = (height, width)
            network_px = (_round_up(height), _round_up(width))
            self.zoom = np.ones(2)
        else:
            self.zoom = np.array([network_px[1] / width, network_px[0] / height])
        pad = 0 * self._scale if self._way == LONGEST else _PAD * self._scale + self._shift
        self._tensor = np.empty((self._scale.size, *network_px), np.float32)
        self._tensor[:] = pad[:, None, None]
        self._inner_px = (inner_px[1], inner_px[0])
        self._source_px = (height, width)


def _halved(pixels: Any, width: int, height: int) -> Any:
    """A picture of less than twice the size along each axis, each halving a mean of neighbours."""
    while pixels.shape[1] >= 2 * width or pixels.shape[0] >= 2 * height:
        across = pixels.shape[1] // (2 if pixels.shape[1] >= 2 * width else 1)
        down = pixels.shape[0] // (2 if pixels.shape[0] >= 2 * height else 1)
        pixels = cv2.resize(pixels, (across, down), interpolation=cv2.INTER_AREA)
    return pixels


def _nearest(count: int, cells_a_px: float, cells: int) -> NDArray[np.int64]:
    """The cell in which the centre of each of `count` pixels lies."""
    cell = ((np.arange(count) + 0.5) * cells_a_px).astype(np.int64)
    return np.minimum(cell, cells - 1)


def _round_up(length_px: int) -> int:
    return math.ceil(length_px / _MULTIPLE_PX) * _MULTIPLE_PX


@kernel(fastmath={"contract"})
def _scale_into(
    source: NDArray[np.uint8], scale: np.float32, shift: np.float32, out: NDArray[np.float32]
) -> None:
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            out[y, x] = np.float32(source[y, x]) * scale + shift
