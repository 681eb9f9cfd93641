"""Prophesee's DAT files, versions 1 and 2: a text header, two bytes, then 8 bytes an event.

Source: the DAT page of docs.prophesee.ai; version 1 as event cameras of the first generation (ATIS)
wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import events
from edgeperc.drivers.formats.prophesee_raw import (
    BLOCK_BYTES,
    geometry,
    read_header,
    start_us,
    unwrap,
)
from edgeperc.errors import DataError
from edgeperc.packet import Packet

_EVENT = np.dtype([("t", "<u4"), ("address", "<u4")])
_BITS = {"1": (9, 8), "2": (14, 14)}
"""Width of x and y in an address, lowest bits first; polarity is the next one."""


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of a DAT file; times are unwrapped over their 32 bits (71.6 minutes).

    Raises DataError for other contents, and at the end of a file that was cut inside an event.
    """
    with path.open("rb") as file:
        header = read_header(file)
        version = header.get("version", "1")
        if version not in _BITS:
            raise DataError(f"DAT version {version} is not read, only 1 and 2")
        kind = file.read(2)
        if kind not in (b"\x00\x08", b"\x0c\x08"):
            raise DataError(f"it holds no brightness changes: event type and size are {kind!r}")
        size_px = options.sensor_px(geometry(header), usual=(304, 240))
        x_bits, y_bits = _BITS[version]
        last_us = -1
        while block := file.read(BLOCK_BYTES):
            rest = len(block) % _EVENT.itemsize
            part = np.frombuffer(block[: len(block) - rest], _EVENT)
            t = unwrap(part["t"], last_us, bits=32)
            yield events(
                t + start_us(header),
                part["address"] & ((1 << x_bits) - 1),
                part["address"] >> x_bits & ((1 << y_bits) - 1),
                part["address"] >> (x_bits + y_bits) & 1,
                size_px,
            )
            if rest:
                raise DataError(f"the file ends inside an event, at byte {file.tell():,}")
            last_us = int(t[-1])
