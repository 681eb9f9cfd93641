"""What passes from a decoder's process to ours: packets and notes, each behind a fixed head."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats import Options
from edgeperc.packet import Events, Frame, Gaze, Packet, Stamp

HEAD = struct.Struct("<c6q")
EVENTS, FRAME, GAZED, FAILED, ENDED = b"E", b"F", b"G", b"X", b"Z"
GAZE = struct.Struct("<2d")
_EVENT_BYTES = 13
_EVER_NS = 1 << 62

Fill = Callable[[memoryview], None]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder's process is to read, and by which module.

    source: an absolute path; for a `live` one whatever names a camera to the module.
    """

    module: str
    source: str
    options: Options = Options()
    live: bool = False


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a reader stopped. kind: an error class of edgeperc.errors, or empty for any other."""

    kind: str
    message: str
    hint: str = ""
    trace: str = ""


def send(pipe: BinaryIO, packet: Packet) -> None:
    """Write a packet, whose source is blank."""
    stamp = packet.stamp
    if isinstance(packet, Events):
        kind, sizes = EVENTS, (len(packet), packet.width_px, packet.height_px)
        arrays: list[NDArray[Any]] = [packet.t, packet.x, packet.y, packet.p]
    else:
        kind, sizes = (GAZED if packet.gaze else FRAME), (*packet.image.shape, 0)[:3]
        arrays = [packet.image]
    # Times of damaged files may not fit into 64 bits; they stay far off, for the validator to see.
    times_ns = (min(max(ns, -_EVER_NS), _EVER_NS) for ns in (stamp.start_ns, stamp.end_ns))
    head = HEAD.pack(kind, stamp.seq, *times_ns, *sizes)
    parts: list[bytes | memoryview] = [head]
    parts += [array.data.cast("B") for array in arrays if array.size]
    if isinstance(packet, Frame) and packet.gaze:
        parts.append(GAZE.pack(packet.gaze.pan_rad, packet.gaze.tilt_rad))
    _write(pipe, parts)


def note(pipe: BinaryIO, kind: bytes, body: bytes = b"") -> None:
    """Write a note: ENDED, or FAILED with a Failure as JSON."""
    _write(pipe, [HEAD.pack(kind, 0, 0, 0, len(body), 0, 0), body])


def receive(fill: Fill) -> Packet | Failure | None:
    """Read a packet, a Failure, or None at the end. fill: reads exactly into a buffer."""
    head = bytearray(HEAD.size)
    fill(memoryview(head))
    kind, seq, start_ns, end_ns, *sizes = HEAD.unpack(head)
    if kind == FAILED:
        body = bytearray(sizes[0])
        fill(memoryview(body))
        return msgspec.json.decode(body, type=Failure)
    if kind == ENDED:
        return None
    stamp = Stamp(source="", seq=seq, start_ns=start_ns, end_ns=end_ns)
    if kind in (FRAME, GAZED):
        image = np.empty(sizes if sizes[2] else sizes[:2], np.uint8)
        fill(image.data.cast("B"))
        return Frame(stamp=stamp, image=image, gaze=_gaze(fill) if kind == GAZED else None)
    count, width_px, height_px = sizes
    data = np.empty(_EVENT_BYTES * count, np.uint8)
    fill(data.data)
    return Events(
        stamp=stamp,
        t=data[: 8 * count].view(np.int64),
        x=data[8 * count : 10 * count].view(np.uint16),
        y=data[10 * count : 12 * count].view(np.uint16),
        p=data[12 * count :].view(np.bool_),
        width_px=width_px,
        height_px=height_px,
    )


def _gaze(fill: Fill) -> Gaze:
    body = bytearray(GAZE.size)
    fill(memoryview(body))
    pan_rad, tilt_rad = GAZE.unpack(body)
    return Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad)


def _write(pipe: BinaryIO, parts: list[bytes | memoryview]) -> None:
    """Write all parts with as few copies and system calls as may be."""
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        written = os.writev(pipe.fileno(), left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]
