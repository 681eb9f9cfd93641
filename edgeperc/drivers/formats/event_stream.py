"""Event Stream (.es), by the library faery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import events
from edgeperc.packet import Packet


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of a DVS or ATIS stream; row 0 is at the top, and times count from its start."""
    import faery

    stream = faery.events_stream_from_file(path, file_type="es")
    size_px = options.sensor_px(stream.dimensions(), usual=(304, 240))
    for part in stream:
        yield events(part["t"], part["x"], part["y"], part["on"], size_px)
