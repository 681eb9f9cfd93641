"""ROS 1 and ROS 2 bags, by the library rosbags: event packets and pictures of one camera.

Events: event_camera_msgs/EventPacket with encoding evt3 or mono, dvs_msgs/EventArray. Pictures:
sensor_msgs/Image and CompressedImage.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeperc.drivers.formats import Options, salvage
from edgeperc.drivers.formats.ros_messages import (
    Cursor,
    EventPackets,
    compressed_image,
    event_array,
    image,
)
from edgeperc.drivers.formats.salvage import Message
from edgeperc.errors import DataError
from edgeperc.packet import Packet

EVENT_PACKET, EVENT_ARRAY = "event_camera_msgs/msg/EventPacket", "dvs_msgs/msg/EventArray"
IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class Bag:
    """topics: type by name. messages: those of some topics, in order."""

    topics: dict[str, str]
    messages: Callable[[Set[str]], Iterator[Message]]


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of a bag's one event topic and its one picture topic, or of `options.topics`.

    Events of EventPacket keep the sensor's time, which has nothing to do with ROS time; pictures
    beside them are moved to it. All else is in ROS time. Raises DataError if the choice of topics
    is not clear, or for an encoding that is not read.
    """
    with ExitStack() as stack:
        bag = _open(path, stack)
        chosen = _choose(bag.topics, options.topics)
        has_packets = any(bag.topics[topic] == EVENT_PACKET for topic in chosen)
        packets = EventPackets(options) if has_packets else None
        is_cdr = not _is_ros1(path)
        for message in bag.messages(chosen):
            cursor = Cursor(message.data, cdr=is_cdr)
            if packets and message.type == EVENT_PACKET:
                yield packets.decode(cursor)
            elif message.type == EVENT_ARRAY:
                yield event_array(cursor, options)
            else:
                picture = image(cursor) if message.type == IMAGE else compressed_image(cursor)
                moved = packets.on_sensor_clock(picture) if packets else picture
                if moved:
                    yield moved


def _open(path: Path, stack: ExitStack) -> Bag:
    """A bag by rosbags, or what can be had of a damaged one."""
    from rosbags import rosbag1, rosbag2

    try:
        reader: Any = (rosbag1 if _is_ros1(path) else rosbag2).Reader(path)
        stack.enter_context(reader)
        _check_index(reader)
    except Exception:
        return _open_folder(path, stack) if path.is_dir() else _open_damaged(path)

    def messages(wanted: Set[str]) -> Iterator[Message]:
        chosen = [connection for connection in reader.connections if connection.topic in wanted]
        had: Counter[str] = Counter()
        try:
            for connection, _, data in reader.messages(chosen):
                yield Message(connection.topic, connection.msgtype, data)
                had[connection.topic] += 1
        except Exception:  # of a chunk that is damaged rosbags gives nothing
            yield from _salvaged(path, wanted, had)

    return Bag({c.topic: c.msgtype for c in reader.connections}, messages)


def _check_index(reader: Any) -> None:
    """Raise ValueError if the index of a ROS 1 bag gives a topic in another order than the file.

    A damaged time in it would have rosbags leave out a message here and come to it much later.
    """
    for entries in getattr(reader, "indexes", {}).values():
        places = [(entry.chunk_pos, entry.offset) for entry in entries]
        if places != sorted(places):
            raise ValueError


def _open_folder(path: Path, stack: ExitStack) -> Bag:
    """The files of a folder whose metadata.yaml is missing or wrong."""
    bags = [_open(file, stack) for file in _files(path)]
    if not bags:
        raise DataError("the folder holds no ROS 2 recording (.mcap or .db3)")
    return Bag(
        {topic: kind for bag in bags for topic, kind in bag.topics.items()},
        lambda wanted: itertools.chain.from_iterable(bag.messages(wanted) for bag in bags),
    )


def _open_damaged(path: Path) -> Bag:
    """What can be had of a file that rosbags refuses; its topics are those of the beginning."""
    topics: dict[str, str] = {}
    try:
        for message in itertools.islice(salvage.messages(path), 1000):
            topics.setdefault(message.topic, message.type)
    except Exception:
        if not topics:
            raise
    return Bag(topics, lambda wanted: _salvaged(path, wanted, Counter()))


def _salvaged(path: Path, wanted: Set[str], had: Counter[str]) -> Iterator[Message]:
    """The messages of some topics but the first few of each. Raises DataError at the damage."""
    for file in _files(path):
        for message in salvage.messages(file):
            if message.topic in wanted:
                if had[message.topic] == 0:
                    yield message
                else:
                    had[message.topic] -= 1


def _files(path: Path) -> list[Path]:
    return sorted([*path.glob("*.mcap"), *path.glob("*.db3")]) if path.is_dir() else [path]


def _choose(topics: dict[str, str], wanted: tuple[str, ...]) -> Set[str]:
    """Topics to read: one of events, one of pictures, or both. DataError that lists them else."""
    found = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(topics.items())) or "none"
    if missing := set(wanted) - topics.keys():
        raise DataError(f"no topic {', '.join(sorted(missing))}; there are: {found}")
    readable = set(wanted) or topics.keys()
    of_events = {topic for topic in readable if topics[topic] in (EVENT_PACKET, EVENT_ARRAY)}
    of_pictures = {topic for topic in readable if topics[topic] in (IMAGE, COMPRESSED_IMAGE)}
    if not of_events and not of_pictures:
        raise DataError(f"neither event packets nor pictures to read; its topics are: {found}")
    if len(of_events) > 1 or (not of_events and len(of_pictures) > 1):
        raise DataError(f"several cameras to read: name one's topics; there are: {found}")
    return of_events | (of_pictures if len(of_pictures) == 1 else set())


def _is_ros1(path: Path) -> bool:
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(7) == b"#ROSBAG"
