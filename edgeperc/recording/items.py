"""All packets and results of a recording, as they were.

for item in items(Path("drive.mcap")):
    print(item.stamp, type(item).__name__)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeperc.packet import Packet
from edgeperc.recording.reader import head, messages
from edgeperc.result import Result
from edgeperc.ros.codec import deserialize
from edgeperc.ros.joiner import Joiner


def items(path: Path) -> Iterator[Packet | Result]:
    """Yield what was recorded, in the order in which it came; path: a file, or its folder.

    Raises DataError where the recording breaks, after all that could be read.
    """
    joiner = Joiner(head(path).offset_ns)
    for entry in messages(path, joiner.wants):
        message = deserialize(bytes(entry.data), entry.type)
        item = joiner.put(entry.topic, entry.type, message)
        if item is not None:  # a packet without events is one, too
            yield item
