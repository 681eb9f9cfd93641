"""Event Stream (.es), version 2, of a DVS, or of an ATIS without its exposure measurements.

Source: github.com/neuromorphicsystems/event_stream. One byte holds polarity and the time since the
last event, four more the pixel; bytes full of ones let longer times pass. Why not faery, which
reads it: of a damaged file it leaves out thousands of sound events, and a cut one it takes for
whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import events
from edgeperc.errors import DataError
from edgeperc.jit import kernel
from edgeperc.packet import Packet

_HEADER = struct.Struct("<12s3BBHH")
_BLOCK_BYTES = 1 << 18
_EVENT_BYTES = 5
_DVS, _ATIS = 1, 2


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of a stream; times in µs as it counts them, row 0 at the top as everywhere else.

    Raises DataError for streams of another version or kind, and at the end of a file that was cut
    inside an event.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            raise DataError(f"the file ends inside its header, at byte {len(head)}")
        _, major, _, _, kind, width_px, height_px = _HEADER.unpack(head)
        if major != 2 or kind not in (_DVS, _ATIS):
            raise DataError(f"version {major} and kind {kind} are not read, only 2 and 1 or 2")
        size_px = options.sensor_px((width_px, height_px), usual=(width_px, height_px))
        time_us, rest = 0, b""
        while block := file.read(_BLOCK_BYTES):
            data = np.frombuffer(rest + block, np.uint8)
            room = data.size // _EVENT_BYTES
            t, p = np.empty(room, np.int64), np.empty(room, np.bool_)
            x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
            count, used, time_us = _decode(data, kind == _ATIS, time_us, t, x, y, p)
            from_top = np.where(y < height_px, height_px - 1 - y.astype(np.int64), 0xFFFF)
            yield events(t[:count], x[:count], from_top[:count], p[:count], size_px)
            rest = data[used:].tobytes()
        if rest:
            raise DataError(f"the file ends inside an event, at byte {file.tell():,}: it was cut")


@kernel()
def _decode(
    data: NDArray[np.uint8],
    is_atis: bool,
    time_us: int,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Write the whole events in some bytes; return how many, the bytes they took, and the time."""
    count, at = 0, 0
    while at < data.size:
        first = np.int64(data[at])
        if is_atis and first >= 0xFC:
            time_us += 63 * (first & 3)
            at += 1
        elif not is_atis and first >= 0xFE:
            time_us += 127 if first == 0xFF else 0
            at += 1
        elif at + _EVENT_BYTES > data.size:
            break
        else:
            code = first & 3 if is_atis else 2 * (first & 1)
            time_us += first >> (2 if is_atis else 1)
            if code & 1 == 0:  # the odd ones of ATIS measure exposure
                t[count], p[count] = time_us, code == 2
                x[count] = data[at + 1] | np.uint16(data[at + 2]) << 8
                y[count] = data[at + 3] | np.uint16(data[at + 4]) << 8
                count += 1
            at += _EVENT_BYTES
    return count, at, time_us
