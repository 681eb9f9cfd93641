"""Events in HDF5, in the layouts of the data sets DSEC and MVSEC."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import cut, events, frame
from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet

_BLOCK = 1 << 18
_BETWEEN_PICTURES_US = 10_000


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of an HDF5 file.

    DSEC: events/{x, y, t, p} with t_offset, in µs. MVSEC: davis/left/events (N, 4) of x, y, seconds
    and polarity, with the pictures of davis/left/image_raw. Raises DataError for another layout.
    """
    import h5py
    import hdf5plugin  # noqa: F401  registers the compression that DSEC uses

    try:
        with h5py.File(path, "r") as file:
            if all(f"events/{name}" in file for name in "xytp"):
                yield from _dsec(file, options)
            elif "davis/left/events" in file:
                yield from _mvsec(file, options)
            else:
                raise DataError(
                    f"its groups are {', '.join(file) or 'none'}; edgeperc reads the layouts of"
                    " DSEC (events/x, y, t, p) and MVSEC (davis/left/events)"
                )
    except (KeyError, OSError) as error:
        raise DataError(f"it is damaged or was not closed: {error.args[0]}") from error


def _dsec(file: Any, options: Options) -> Iterator[Events]:
    columns = [file["events"][name] for name in "txyp"]
    counts = {column.shape[0] for column in columns}
    if len(counts) != 1:
        raise DataError(f"events/t, x, y and p have different lengths: {sorted(counts)}")
    size_px = options.sensor_px(usual=(640, 480))
    offset_us = int(file["t_offset"][()]) if "t_offset" in file else 0
    for t, x, y, p in _blocks(columns, start=_start(file, options.start_s)):
        yield events(t.astype(np.int64) + offset_us, x, y, p > 0, size_px)


def _mvsec(file: Any, options: Options) -> Iterator[Packet]:
    pictures = _mvsec_frames(file) if "davis/left/image_raw" in file else iter(())
    small = cut(_mvsec_events(file, options), span_us=_BETWEEN_PICTURES_US, count=_BLOCK)
    yield from heapq.merge(small, pictures, key=lambda packet: packet.stamp.end_ns)


def _mvsec_events(file: Any, options: Options) -> Iterator[Events]:
    size_px = options.sensor_px(usual=(346, 260))
    for (table,) in _blocks([file["davis/left/events"]]):
        x, y, t_s, p = table.T
        yield events(np.rint(t_s * 1e6), x, y, p > 0, size_px)


def _mvsec_frames(file: Any) -> Iterator[Frame]:
    images, times_s = file["davis/left/image_raw"], file["davis/left/image_raw_ts"]
    for image, time_s in zip(images, times_s, strict=False):
        time_ns = round(float(time_s) * 1e6) * 1000
        yield frame(image, time_ns, time_ns)


def _start(file: Any, start_s: float) -> int:
    """Index of an event at or before `start_s`, by the index of milliseconds of DSEC files."""
    if start_s == 0 or "ms_to_idx" not in file:
        return 0
    index_by_ms = file["ms_to_idx"]
    ms = int(file["events/t"][0] // 1000 + start_s * 1000)
    return int(index_by_ms[min(ms, index_by_ms.shape[0] - 1)])


def _blocks(columns: list[Any], start: int = 0) -> Iterator[list[NDArray[Any]]]:
    """Rows of some data sets of one length from `start` on, a number of whole chunks at a time.

    The first row comes before a later start, for it says when the recording begins. Of a block
    that cannot be read whole the sound chunks are yielded, then DataError is raised.
    """
    count = columns[0].shape[0]
    chunk = min((column.chunks[0] for column in columns if column.chunks), default=_BLOCK)
    step = max(1, _BLOCK // chunk) * chunk
    if start > 0:
        yield [column[:1] for column in columns]
    for begin in range(start - start % step, count, step):
        rows = range(max(begin, start), min(begin + step, count))
        try:
            yield [column[rows.start : rows.stop] for column in columns]
        except OSError:
            yield from _sound_chunks(columns, rows, chunk)


def _sound_chunks(columns: list[Any], rows: range, chunk: int) -> Iterator[list[NDArray[Any]]]:
    for begin in rows[::chunk]:
        try:
            yield [column[begin : min(begin + chunk, rows.stop)] for column in columns]
        except OSError as error:
            raise DataError(f"events from {begin:,} on cannot be read: {error}") from error
