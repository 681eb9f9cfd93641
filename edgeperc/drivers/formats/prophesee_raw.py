"""Prophesee's RAW files: a text header, then EVT2 or EVT3 words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import Columns, events
from edgeperc.errors import DataError
from edgeperc.packet import Packet

BLOCK_BYTES = 1 << 18

_SENSORS = {
    "gen3": (640, 480),
    "gen41": (1280, 720),
    "gen4": (1280, 720),
    "imx636": (1280, 720),
    "genx320": (320, 320),
}
"""Resolution by the sensor's generation, which `plugin_name` tells in headers without geometry."""


class Words(Protocol):
    """A decoder of event words that keeps its state from block to block."""

    dtype: np.dtype[Any]

    def decode(self, words: NDArray[Any]) -> Columns:
        """Events of the next words."""


class Evt2:
    """Decodes 32-bit EVT2 words. Times are unwrapped over their 34 bits (4.8 hours).

    Source: the EVT 2.0 page of docs.prophesee.ai.
    """

    dtype = np.dtype("<u4")

    def __init__(self) -> None:
        self._high = -1

    def decode(self, words: NDArray[Any]) -> Columns:
        """Events of the next words, (N,) uint32; those before a first time are left out."""
        kind = words >> 28
        is_event = kind <= 1
        high_at = np.flatnonzero(kind == 8)
        highs = np.append(self._high, unwrap(words[high_at] & 0xFFF_FFFF, self._high, bits=28))
        events_by_then = np.cumsum(is_event)[high_at]
        counts = np.diff(events_by_then, prepend=0, append=np.count_nonzero(is_event))
        high = np.repeat(highs, counts)
        self._high = int(highs[-1])
        word, high = words[is_event][high >= 0], high[high >= 0]
        return Columns(
            t=(high << 6) | ((word >> 22) & 0x3F),
            x=((word >> 11) & 0x7FF).astype(np.uint16),
            y=(word & 0x7FF).astype(np.uint16),
            p=(word >> 28).astype(np.bool_),
        )


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of a RAW file, on the sensor's own clock.

    Raises DataError for another encoding, and at the end of a file that was cut inside a word.
    """
    with path.open("rb") as file:
        header = read_header(file)
        encoding = _encoding(header)
        usual = next(
            (size for name, size in _SENSORS.items() if name in header.get("plugin_name", "")),
            (640, 480) if encoding == "2" else (1280, 720),
        )
        size_px = options.sensor_px(geometry(header), usual=usual)
        decoder = _decoder(encoding)
        while block := file.read(BLOCK_BYTES):
            rest = len(block) % decoder.dtype.itemsize
            t, x, y, p = decoder.decode(np.frombuffer(block[: len(block) - rest], decoder.dtype))
            yield events(t + start_us(header), x, y, p, size_px)
            if rest:
                raise DataError(f"the file ends inside a word, at byte {file.tell():,}: it was cut")


def read_header(file: BinaryIO) -> dict[str, str]:
    """Read the lines `% key value` at the start of a RAW or DAT file; keys in lower case."""
    header: dict[str, str] = {}
    while True:
        start = file.tell()
        line = file.readline(1024)
        if not (line.startswith(b"% ") and line.endswith(b"\n") and line[:-1].isascii()):
            file.seek(start)
            return header
        key, _, value = line[2:].decode("ascii").strip().partition(" ")
        if key == "end":
            return header
        header[key.lower()] = value


def start_us(header: dict[str, str]) -> int:
    """What to add to the times: converters (faery) may store them without their start."""
    return int(header["t0"]) if header.get("t0", "").isdigit() else 0


def unwrap(counts: NDArray[Any], before: int, *, bits: int) -> NDArray[np.int64]:
    """Continue a counter of so many bits: a fall by over half its range is a wrap.

    counts: (N,). before: the last value, unwrapped, or -1. A smaller fall stays one, for the
    validator to see.
    """
    low = counts.astype(np.int64)
    if low.size == 0:
        return low
    turns, last = (before >> bits, before & ((1 << bits) - 1)) if before >= 0 else (0, low[0])
    wraps = np.cumsum(np.diff(low, prepend=last) < -(1 << (bits - 1)))
    return low + ((turns + wraps) << bits)


def _encoding(header: dict[str, str]) -> str:
    found = re.match(r"EVT(\d+)", header.get("format", ""))
    version = {"21": "2.1"}.get(found[1], found[1]) if found else header.get("evt", "")
    version = version.removesuffix(".0")
    if version not in ("2", "3"):
        what = f"EVT{version} is not read" if version else "the header names no EVT version"
        raise DataError(f"{what}, only EVT2 and EVT3")
    return version


def _decoder(encoding: str) -> Words:
    if encoding == "2":
        return Evt2()
    from edgeperc.drivers.formats.evt3 import Evt3  # takes a second to load

    return Evt3()


def geometry(header: dict[str, str]) -> tuple[int, int] | None:
    """Width and height as one of the three ways of writing them says, if any."""
    fields = dict(part.split("=", 1) for part in header.get("format", "").split(";") if "=" in part)
    if "width" in fields and "height" in fields:
        return int(fields["width"]), int(fields["height"])
    if match := re.fullmatch(r"(\d+)x(\d+)", header.get("geometry", "")):
        return int(match[1]), int(match[2])
    if header.get("width", "").isdigit() and header.get("height", "").isdigit():
        return int(header["width"]), int(header["height"])
    return None
