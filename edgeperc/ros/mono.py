"""Events in the encoding "mono" of event_camera_msgs/EventPacket: eight bytes an event.

bit 63 polarity, bits 48 to 62 y, bits 32 to 47 x, bits 0 to 31 ns since the packet's `time_base`.
Source: the table in EventPacket.msg and event_camera_codecs' decoder (Apache-2.0), which reads what
is written here; own code. Why mono: it holds every time exactly, needs no state from packet to
packet, and whoever reads EventPackets reads it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats.packets import Columns
from edgeperc.errors import DataError
from edgeperc.packet import Events

SPAN_US = ((1 << 32) - 1) // 1000
"""How much later than the first event of a message its last one may be."""
MAX_ROWS = 1 << 15


def encode(events: Events, start: int, stop: int) -> NDArray[np.uint8]:
    """Events [start, stop) as (8 × N,) uint8; times count from the first one.

    Raises DataError for a sensor of more than 32,768 rows, or times farther apart than `SPAN_US`.
    """
    if events.height_px > MAX_ROWS:
        raise DataError(f"a sensor of {events.height_px:,} rows does not fit into an EventPacket")
    t = events.t[start:stop]
    if not t.size:
        return np.zeros(0, np.uint8)
    after_us = t - t[0]
    if after_us.min() < 0 or after_us.max() > SPAN_US:
        raise DataError("events of one message lie too far apart, or not in order")
    words = after_us.astype(np.uint64) * np.uint64(1000)
    words |= events.x[start:stop].astype(np.uint64) << np.uint64(32)
    words |= events.y[start:stop].astype(np.uint64) << np.uint64(48)
    words |= events.p[start:stop].astype(np.uint64) << np.uint64(63)
    data: NDArray[np.uint8] = words.astype("<u8", copy=False).view(np.uint8)
    return data


def decode(data: NDArray[np.uint8], *, time_us: int) -> Columns:
    """Inverse of `encode`; time_us: of the first event. Raises DataError for half an event."""
    if data.size % 8:
        raise DataError("an event packet of encoding 'mono' is not a multiple of 8 bytes")
    words = np.ascontiguousarray(data).view("<u8")
    return Columns(
        t=time_us + ((words & np.uint64(0xFFFF_FFFF)) // np.uint64(1000)).astype(np.int64),
        x=((words >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.uint16),
        y=((words >> np.uint64(48)) & np.uint64(0x7FFF)).astype(np.uint16),
        p=(words >> np.uint64(63)).astype(np.bool_),
    )


def pieces(events: Events) -> list[tuple[int, int]]:
    """Where to cut a packet so that each piece fits one message; one piece if it is empty."""
    bounds, start = [], 0
    while start < len(events):
        stop = int(np.searchsorted(events.t, events.t[start] + SPAN_US, side="right"))
        bounds.append((start, max(stop, start + 1)))
        start = bounds[-1][1]
    return bounds or [(0, 0)]
