"""iniVation's AEDAT4, by the library aedat: events and frames of one camera on one clock."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import events, frame
from edgeperc.errors import DataError
from edgeperc.packet import Frame, Packet


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of the first event stream and the first frame stream, in the order of the file.

    Times are the camera's Unix time. A frame's stamp is its exposure.
    """
    import aedat

    try:
        decoder = aedat.Decoder(path)
    except Exception as error:
        raise DataError(f"its header cannot be read: {error}") from error
    streams = decoder.id_to_stream()
    event_id = _first(streams, "events")
    frame_id = _first(streams, "frame")
    if event_id is None and frame_id is None:
        raise DataError("there are neither events nor frames in it")
    size_px = (0, 0)
    if event_id is not None:
        stream = streams[event_id]
        size_px = options.sensor_px((stream["width"], stream["height"]), usual=(346, 260))
    for packet in _packets(decoder, path):
        if packet["stream_id"] == event_id:
            columns = packet["events"]
            on = columns["on"].view(np.uint8) > 0  # damaged ones are neither 0 nor 1
            yield events(columns["t"], columns["x"], columns["y"], on, size_px)
        elif packet["stream_id"] == frame_id:
            yield _frame(packet["frame"])


def _packets(decoder: Any, path: Path) -> Iterator[dict[str, Any]]:
    """The decoder's packets. Raises DataError that says which one is broken and where it lies."""
    for number in itertools.count():
        try:
            packet = next(decoder, None)
        except Exception as error:
            at = _position(path, number)
            what = "ends early" if "fill whole buffer" in str(error) else f"is damaged: {error}"
            raise DataError(f"packet {number:,}, at byte {at:,}, {what}") from error
        if packet is None:
            return
        yield packet


def _position(path: Path, number: int) -> int:
    """Byte at which a packet starts: behind the version, the sized header and the sized packets."""
    with path.open("rb") as file:
        file.seek(len(b"#!AER-DAT4.0\r\n"))
        file.seek(int.from_bytes(file.read(4), "little"), io.SEEK_CUR)
        for _ in range(number):
            _stream, size = struct.unpack("<II", file.read(8))
            file.seek(size, io.SEEK_CUR)
        return file.tell()


def _first(streams: dict[int, dict[str, Any]], kind: str) -> int | None:
    return min((key for key, stream in streams.items() if stream["type"] == kind), default=None)


def _frame(picture: dict[str, Any]) -> Frame:
    image = picture["pixels"]
    if image.ndim == 3:
        image = image[:, :, :3]
    begin_us, end_us = picture["exposure_begin_t"], picture["exposure_end_t"]
    if not 0 < begin_us <= end_us:  # written by something that knew no exposure
        begin_us = end_us = picture["t"]
    return frame(image, begin_us * 1000, end_us * 1000)
