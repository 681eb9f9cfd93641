"""Pictures that clients bring: bounded before anything of their size is made."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.png import png_size
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.sessions import RefusedError

MOST_PIXELS = 1 << 25
"""33 megapixels: 8K."""

_TAIL_BYTES = 4096
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Of JPEG: what states the size, each kind of compression its own."""


def picture_of(request: pb.SegmentRequest) -> NDArray[np.uint8]:
    """(H, W) grey or (H, W, 3) RGB uint8. Raises DataError for none, RefusedError for too many
    pixels.
    """
    kind = request.WhichOneof("image")
    if kind == "raw":
        return _raw(request.raw)
    if kind == "encoded":
        return decoded(request.encoded)
    raise DataError("the picture is missing", hint="a PNG, a JPEG or raw pixels")


def _raw(raw: pb.RawImage) -> NDArray[np.uint8]:
    _bound(raw.width, raw.height)
    if raw.channels not in (1, 3):
        raise DataError(f"a picture of {raw.channels} channels", hint="1 is grey, 3 is RGB")
    expected = raw.width * raw.height * raw.channels
    if len(raw.data) != expected:
        raise DataError(
            f"{len(raw.data):,} bytes are no picture of {raw.width} × {raw.height} px"
            f" with {raw.channels} channels, which has {expected:,}"
        )
    pixels = np.frombuffer(raw.data, np.uint8)
    shape = (raw.height, raw.width) if raw.channels == 1 else (raw.height, raw.width, 3)
    return pixels.reshape(shape)


def decoded(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a PNG or a JPEG. Raises DataError, RefusedError."""
    size_px = png_size(data) or _jpeg_size(data)
    if size_px is None:
        raise DataError("the picture is neither a PNG nor a JPEG")
    _bound(*size_px)
    ends = b"IEND" if png_size(data) else b"\xff\xd9"
    if ends not in data[-_TAIL_BYTES:]:
        raise DataError("the picture is cut off")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.shape[1::-1] != size_px:
        raise DataError("the picture is damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _bound(width_px: int, height_px: int) -> None:
    if width_px * height_px == 0:
        raise DataError(f"a picture of {width_px} × {height_px} px has no pixels")
    if width_px * height_px > MOST_PIXELS:
        raise RefusedError(
            f"a picture of {width_px} × {height_px} px; at most {MOST_PIXELS:,} pixels", why="full"
        )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG states; None if it is none."""
    at = 2
    if data[:2] != b"\xff\xd8":
        return None
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            height_px, width_px = struct.unpack(">HH", data[at + 5 : at + 9])
            return width_px, height_px
        if marker == 0xFF:  # a byte of padding
            at += 1
        elif 0xD0 <= marker <= 0xD8 or marker == 0x01:  # of no length
            at += 2
        else:
            at += 2 + max(2, *struct.unpack(">H", data[at + 2 : at + 4]))
    return None
