"""What a recording tells of a search's looks, beside its pictures."""

from __future__ import annotations

from pathlib import Path

from edgeperc.errors import DataError
from edgeperc.recording.reader import messages, topics
from edgeperc.ros.about import read
from edgeperc.ros.codec import deserialize
from edgeperc.ros.topics import prefix


def has_looks(path: Path, sensor: str) -> bool:
    """Whether a sensor's pictures were recorded, and where the mirror pointed."""
    base = prefix(sensor)
    return {f"{base}/image_raw", f"{base}/gaze", f"{base}/about"} <= topics(path).keys()


def waits_of(path: Path, sensor: str) -> dict[int, int]:
    """By number of the picture: from its slot's beginning until it was taken, in ns.

    The search said that with what it found in the picture. What cannot be read is left out: whoever
    plays the pictures will be told.
    """
    base = f"{prefix(sensor)}/"

    def about_result(topic: str, type_: str) -> bool:
        return topic.startswith(base) and topic.count("/") == 2 and topic.endswith("/about")

    found: dict[int, int] = {}
    try:
        for entry in messages(path, about_result):
            line = read(deserialize(bytes(entry.data), entry.type).data)
            if line.kind == "Detections" and line.timings:
                found[line.stamp.seq] = line.timings.wait_ns
    except DataError:
        pass
    return found
