"""Our own recordings: the packets of one sensor, as they were when they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeperc.drivers.formats import Options
from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.recording.reader import Entry, head, messages, topics
from edgeperc.ros.about import read as read_about
from edgeperc.ros.codec import deserialize
from edgeperc.ros.joiner import Joiner
from edgeperc.ros.topics import prefix


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of `options.sensor`, or of the one there is. Raises DataError if it is not clear."""
    sensor = options.sensor or _only(path)
    joiner = Joiner(head(path).offset_ns)
    base = prefix(sensor) + "/"

    def wanted(topic: str, type_: str) -> bool:
        is_ours = topic.startswith(base) and "/" not in topic[len(base) :]
        return is_ours and joiner.wants(topic, type_)

    for entry in messages(path, wanted):
        message = deserialize(bytes(entry.data), entry.type)
        item = joiner.put(entry.topic, entry.type, message)
        if isinstance(item, (Frame, Events)) and item.stamp.source == sensor:
            yield item


def sensors_in(path: Path) -> tuple[str, ...]:
    """The sensors whose packets a recording holds. Raises DataError if it cannot be read."""
    found = {
        topic.rpartition("/")[0]
        for topic in topics(path)
        if topic.count("/") == 1 and topic.endswith(("/image_raw", "/events"))
    }
    names: dict[str, None] = {}
    for entry in messages(path, lambda topic, _: topic.rpartition("/")[0] in found):
        if entry.topic.endswith("/about"):
            names[_stamp(entry).source] = None
        if len(names) == len(found):
            break
    return tuple(names)


def end_of(path: Path) -> int:
    """The last time that any sensor's packet was stamped with, in ns; 0 if there is none."""
    end_ns = 0
    try:
        for entry in messages(path, lambda topic, _: topic.endswith("/about")):
            if entry.topic.count("/") == 1:
                end_ns = max(end_ns, _stamp(entry).end_ns)
    except DataError:
        pass  # whoever plays it will be told
    return end_ns


def _stamp(entry: Entry) -> Stamp:
    return read_about(deserialize(bytes(entry.data), entry.type).data).stamp


def _only(path: Path) -> str:
    names = sensors_in(path)
    if len(names) == 1:
        return names[0]
    if not names:
        raise DataError("the recording holds no packets of a sensor, only results")
    raise DataError(
        f"the recording holds several sensors: {', '.join(names)}",
        hint="name one: --sensor NAME, or sensor = 'NAME' in the rig",
    )
