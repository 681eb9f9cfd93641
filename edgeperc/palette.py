"""PNG files whose pixels are numbers of objects with a colour each, as DAVIS 2017 has them.

OpenCV paints such files when it reads them and cannot write them, so colours are turned back into
numbers here, and written with Python's own zlib. Source: the PNG specification (W3C, third
edition), sections 5, 11.2.2, 11.2.3.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
"""Colour type of files with a palette."""


def read_numbers(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """The (H, W) uint8 numbers of a PNG, and whether it has a palette; grey ones as they are.

    Of equal colours in a palette the first counts. Raises DataError for anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if content[:8] != _SIGNATURE or len(content) < 33:
        raise DataError(f"{path}: not a PNG file")
    painted = content[25] == _PALETTE
    how = cv2.IMREAD_COLOR if painted else cv2.IMREAD_UNCHANGED
    pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    if pixels is None:
        raise DataError(f"{path}: a damaged PNG file")
    if not painted:
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            raise DataError(f"{path}: neither a palette nor one channel of 8 bits")
        return np.asarray(pixels), False
    return _numbers_of_colours(pixels, _palette(content, path)), True


def write_numbers(path: Path, numbers: NDArray[np.uint8]) -> None:
    """Write (H, W) uint8 as a PNG with the palette of DAVIS and Pascal VOC."""
    height, width = numbers.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter: none
    rows[:, 1:] = numbers
    path.write_bytes(
        _SIGNATURE
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0))
        + _chunk(b"PLTE", colours().tobytes())
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
        + _chunk(b"IEND", b"")
    )


def colours() -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB: the bits of a number, three at a time, as high bits of its colour."""
    numbers = np.arange(256)[:, None]
    table = np.zeros((256, 3), np.int64)
    for bit in range(3):  # 8 bits are not quite three times three
        table |= (numbers >> (3 * bit + np.arange(3)) & 1) << (7 - bit)
    return table.astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _palette(content: bytes, path: Path) -> NDArray[np.uint8]:
    """(N, 3) RGB of the file's PLTE chunk."""
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if kind == b"PLTE":
            return np.frombuffer(content[at + 8 : at + 8 + length], np.uint8).reshape(-1, 3)
        at += length + 12
    raise DataError(f"{path}: a PNG of colours by number without its palette")


def _numbers_of_colours(pixels: Any, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """pixels: (H, W, 3) BGR."""
    weights = np.array([1 << 16, 1 << 8, 1], np.int64)
    keys, first = np.unique(palette @ weights, return_index=True)
    found = np.searchsorted(keys, pixels @ weights[::-1])
    return np.asarray(first.astype(np.uint8)[np.minimum(found, len(keys) - 1)])
