"""Label maps as PNG and back: 8-bit grey, a byte a pixel."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
]
"""Label maps are runs: unfiltered run lengths are smaller and faster than the default."""
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # since OpenCV 4.12
    _OPTIONS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_png(labels: NDArray[np.uint8]) -> bytes:
    """labels: (H, W) uint8. The bytes of a PNG file. Raises OSError if it cannot be one."""
    encoded, data = cv2.imencode(".png", labels, _OPTIONS)
    if not encoded:
        raise OSError("the label map cannot be encoded as PNG")
    return data.tobytes()


def read_png(data: bytes, *, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Inverse of `write_png`. Raises ValueError for another size, before anything is decoded."""
    if png_size(data) != (width_px, height_px):
        raise ValueError(f"no PNG of {width_px} × {height_px} px")
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if labels is None:
        raise ValueError("the PNG cannot be decoded")
    return labels.astype(np.uint8, copy=False)


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG's header states; None if it is none."""
    if len(data) < 33 or data[:8] != _SIGNATURE or data[12:16] != b"IHDR":
        return None
    width_px, height_px = struct.unpack(">II", data[16:24])
    return width_px, height_px
