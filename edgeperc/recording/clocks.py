"""Which of a rig's sensors are played from recordings of ours, and what the time was then.

Wall(recorded_clocks(plan.rig))     # publishes such a sensor's stamps as they were recorded
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgeperc.config import Rig
from edgeperc.drivers import formats
from edgeperc.errors import DataError
from edgeperc.recording.reader import head


def recorded_clocks(rig: Rig) -> dict[str, tuple[int, int]]:
    """By sensor: the recording's first time, and its wall clock minus its clock, both in ns.

    A recording that cannot be read is left out: whoever plays it will be told.
    """
    found = {}
    for name, table in rig.sensors.items():
        path = Path(str(table.get("path", "")))
        if table.get("driver") != "replay" or not path.exists():
            continue
        with suppress(DataError):
            if formats.sniff(path) is formats.OURS:
                said = head(path)
                found[name] = (said.first_ns or 0, said.offset_ns)
    return found
