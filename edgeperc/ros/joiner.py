"""ROS 2 messages back to packets and results.

joiner = Joiner(offset_ns)                  # as it was given to `to_ros(..., exact=True)`
item = joiner.put(name, type_, message)     # the very same result, once all of it is there

from_ros(name, type_, message, offset_ns)   # what one message says alone
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats.packets import Columns
from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.result import Detections, LabelMap, ModelRef, Result
from edgeperc.ros import mono
from edgeperc.ros.about import About, read, rebuild
from edgeperc.ros.messages import ENCODINGS
from edgeperc.ros.topics import DETECTIONS, EVENT_PACKET, IMAGE, STRING, clipped, time_of

_PARTS = {
    "Frame": ("image_raw", "image"),
    "Events": ("events", ""),
    "LabelMap": ("labels", "labels"),
    "SearchMap": ("map", "intensity"),
}
"""What the topic of an item's large array ends with, and the array's name."""
_PENDING = 256
"""Items whose parts a joiner waits for at most."""


def from_ros(topic: str, type: str, message: Any, offset_ns: int) -> Packet | Result | None:
    """What one message says alone; None if that is no packet or result.

    A message has no number, only one time, and of a model no more than the name that its topic
    has; `Joiner` knows it all. topic: with `<sensor>/<model>` at its end or `<sensor>`. Raises
    DataError.
    """
    *_, model, kind = ("", *topic.strip("/").split("/"))
    if type == EVENT_PACKET:
        time_base_us = (message.time_base - offset_ns) // 1000
        columns = _columns(message, time_base_us)
        start_ns = time_of(message.header) - offset_ns
        end_ns = int(columns.t[-1]) * 1000 if columns.t.size else start_ns
        stamp = Stamp(source=_source(message), seq=message.seq, start_ns=start_ns, end_ns=end_ns)
        return Events(
            stamp=stamp, **columns._asdict(), width_px=message.width, height_px=message.height
        )
    if type not in (IMAGE, DETECTIONS):
        return None
    time_ns = time_of(message.header) - offset_ns
    stamp = Stamp(source=_source(message), seq=0, start_ns=time_ns, end_ns=time_ns)
    if type == DETECTIONS:
        return _from_detections(stamp, ModelRef(name=model), message)
    if kind == "labels" and message.encoding == "mono8":
        labels = _pixels(message)
        return LabelMap(stamp=stamp, labels=labels, classes=(), model=ModelRef(name=model))
    if message.encoding in ("mono8", "rgb8"):
        return Frame(stamp=stamp, image=_pixels(message))
    return None


@dataclass
class _Item:
    """An item whose parts are yet to come."""

    line: About
    messages: list[Any] = field(default_factory=list)


class Joiner:
    """Puts packets and results together from the messages of `to_ros(..., exact=True)`.

    offset_ns: as it was given there. Messages that none of its items needs are passed over.
    """

    def __init__(self, offset_ns: int) -> None:
        self._offset_ns = offset_ns
        self._pending: OrderedDict[tuple[str, int], _Item] = OrderedDict()

    def wants(self, topic: str, type: str) -> bool:
        """Whether a message of this topic may be a part of an item."""
        kind = topic.rpartition("/")[2]
        if type == IMAGE:
            return kind in ("image_raw", "labels", "map")
        return type == EVENT_PACKET or (type == STRING and kind == "about")

    def put(self, topic: str, type: str, message: Any) -> Packet | Result | None:
        """Take the next message; the item that it completes, or None. Raises DataError."""
        if not self.wants(topic, type):
            return None
        if type == STRING:
            return self._announce(topic, _Item(read(message.data)))
        key = topic, time_of(message.header)
        waiting = self._pending.get(key)
        if waiting is None:
            return None
        waiting.messages.append(message)
        if len(waiting.messages) < waiting.line.parts:
            return None
        del self._pending[key]
        return _joined(waiting)

    def _announce(self, topic: str, item: _Item) -> Packet | Result | None:
        if item.line.parts == 0:
            return _joined(item)
        if item.line.kind not in _PARTS:
            raise DataError(f"a recorded {item.line.kind} has parts")
        part = f"{topic.rpartition('/')[0]}/{_PARTS[item.line.kind][0]}"
        self._pending[part, clipped(item.line.stamp.start_ns + self._offset_ns)] = item
        if len(self._pending) > _PENDING:
            self._pending.popitem(last=False)
        return None


def _joined(item: _Item) -> Packet | Result:
    line = item.line
    large: dict[str, NDArray[Any]] = {}
    if line.kind == "Events":
        if len(line.times_us) != len(item.messages):
            raise DataError("a recorded packet of events lacks times")
        pieces = [
            _columns(message, time_us)
            for message, time_us in zip(item.messages, line.times_us, strict=True)
        ]
        for name, columns in zip("txyp", zip(*pieces, strict=True), strict=True):
            large[name] = columns[0] if len(columns) == 1 else np.concatenate(columns)
    elif item.messages:
        large[_PARTS[line.kind][1]] = _pixels(item.messages[0])
    return rebuild(line, large)


def _pixels(message: Any) -> NDArray[Any]:
    """Inverse of `_image`; a read-only view. Raises DataError if sizes do not fit."""
    kinds = {encoding: (dtype, ndim) for (dtype, ndim), encoding in ENCODINGS.items()}
    dtype, ndim = kinds.get(message.encoding, ("", 0))
    if not ndim:
        raise DataError(f"pictures of encoding '{message.encoding}' are not read")
    shape = (message.height, message.width, 3)[:ndim]
    data = np.asarray(message.data, np.uint8)
    if data.size != int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize:
        raise DataError(f"a picture of {message.width} × {message.height} has {data.size:,} bytes")
    pixels = data.view("<" + dtype).reshape(shape)
    pixels = pixels.astype(dtype, copy=False)
    pixels.flags.writeable = False
    return pixels


def _columns(message: Any, time_us: int) -> Columns:
    if message.encoding != "mono" or message.is_bigendian:
        raise DataError(f"event packets of encoding '{message.encoding}' are not read here")
    return mono.decode(np.asarray(message.events, np.uint8), time_us=time_us)


def _from_detections(stamp: Stamp, model: ModelRef, message: Any) -> Detections:
    """Boxes of a Detection2DArray; classes are numbered in the order in which they come."""
    boxes, scores, names = [], [], []
    for each in message.detections:
        x, y = each.bbox.center.position.x, each.bbox.center.position.y
        w, h = each.bbox.size_x / 2, each.bbox.size_y / 2
        boxes.append((x - w, y - h, x + w, y + h))
        best = max(each.results, key=lambda result: result.hypothesis.score, default=None)
        scores.append(best.hypothesis.score if best else 0.0)
        names.append(best.hypothesis.class_id if best else "")
    classes = tuple(dict.fromkeys(names))
    return Detections(
        stamp=stamp,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        class_ids=np.array([classes.index(name) for name in names], np.int64),
        classes=classes,
        model=model,
    )


def _source(message: Any) -> str:
    return str(message.header.frame_id)
