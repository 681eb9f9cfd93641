"""The ROS messages that carry events and pictures, from their bytes.

Sources: event_camera_msgs, dvs_msgs, sensor_msgs; OMG's CDR. Read by hand, for rosbags would build
a Python object for every event of a dvs_msgs/EventArray.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import Columns, events, frame
from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame
from edgeperc.ros import mono

if TYPE_CHECKING:
    from edgeperc.drivers.formats.evt3 import Evt3

_CHANNELS = {
    "mono8": [0],
    "8UC1": [0],
    "rgb8": [0, 1, 2],
    "bgr8": [2, 1, 0],
    "8UC3": [2, 1, 0],
    "rgba8": [0, 1, 2, 3],
    "bgra8": [2, 1, 0, 3],
}
"""Which channels of a pixel are red, green, blue (and alpha) in each encoding; one: grey."""


class Cursor:
    """Reads the fields of a message in turn: packed in ROS 1, aligned (CDR) in ROS 2."""

    def __init__(self, data: bytes, *, cdr: bool) -> None:
        if cdr and data[1] & 1 == 0:
            raise DataError("messages in big-endian CDR are not read")
        self.cdr = cdr
        self._data = memoryview(data)[4:] if cdr else memoryview(data)
        self._at = 0

    def numbers(self, kinds: str) -> tuple[int, ...]:
        """Unsigned integers of one size, a letter each: B, I or Q."""
        size = struct.calcsize("<" + kinds[0])
        if self.cdr:
            self._at += -self._at % size
        values = struct.unpack_from("<" + kinds, self._data, self._at)
        self._at += size * len(kinds)
        return values

    def data(self) -> memoryview:
        """A sequence of bytes."""
        (size,) = self.numbers("I")
        self._at += size
        if self._at > len(self._data):
            raise DataError("a message is shorter than it says")
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        """A string."""
        return bytes(self.data()).rstrip(b"\0").decode()

    def rest(self) -> bytes:
        """All that is left."""
        return bytes(self._data[self._at :])

    def header(self) -> int:
        """std_msgs/Header; its stamp in ns."""
        if not self.cdr:
            self.numbers("I")  # seq
        seconds, nanoseconds = self.numbers("II")
        self.text()
        return seconds * 1_000_000_000 + nanoseconds


class EventPackets:
    """Decodes event_camera_msgs/EventPacket messages of one topic, in order."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._evt3: Evt3 | None = None
        self._next_seq: int | None = None
        self._sensor_minus_ros_ns: int | None = None

    def decode(self, message: Cursor) -> Events:
        """The events of the next message, on the sensor's clock.

        Where `seq` shows that messages are missing, events are left out until the stream says
        time and row again. Raises DataError for another encoding than evt3 and mono; the times of
        mono count from the message's `time_base`.
        """
        stamp_ns = message.header()
        height_px, width_px = message.numbers("II")
        seq, time_base_ns = message.numbers("QQ")
        encoding = message.text()
        (big_endian,) = message.numbers("B")
        data = message.data()
        if encoding == "mono" and not big_endian:
            columns = mono.decode(np.frombuffer(data, np.uint8), time_us=time_base_ns // 1000)
        elif encoding == "evt3":
            columns = self._decode_evt3(seq, data, big_endian=bool(big_endian))
        else:
            raise DataError(
                f"event packets of encoding '{encoding}' are not read, only evt3 and mono"
            )
        if self._sensor_minus_ros_ns is None and columns.t.size:
            self._sensor_minus_ros_ns = int(columns.t[0]) * 1000 - stamp_ns
        size_px = self._options.sensor_px((width_px, height_px), usual=(width_px, height_px))
        return events(*columns, size_px)

    def _decode_evt3(self, seq: int, data: memoryview, *, big_endian: bool) -> Columns:
        if self._evt3 is None:
            from edgeperc.drivers.formats.evt3 import Evt3  # takes a second to load

            self._evt3 = Evt3()
        if self._next_seq not in (None, seq):
            self._evt3.lost()
        self._next_seq = seq + 1
        words = np.frombuffer(data[: len(data) & ~1], ">u2" if big_endian else "<u2")
        return self._evt3.decode(words.astype(np.uint16, copy=False))

    def on_sensor_clock(self, picture: Frame) -> Frame | None:
        """A picture in ROS time moved to the sensor's clock; None as long as that is unknown.

        The two clocks are related once, by the stamp of the first event packet, which is when it
        reached the computer: the result is some milliseconds early.
        """
        if self._sensor_minus_ros_ns is None:
            return None
        time_ns = picture.stamp.end_ns + self._sensor_minus_ros_ns
        return frame(picture.image, time_ns, time_ns)


def event_array(message: Cursor, options: Options) -> Events:
    """dvs_msgs/EventArray: (x, y, seconds, nanoseconds, polarity) an event, in ROS time."""
    message.header()
    height_px, width_px, count = message.numbers("III")
    data = message.rest()
    if message.cdr:
        # Seconds lie on multiples of 4, x on the next even byte behind the polarity before it: all
        # events but the first have 2 bytes between y and seconds. Put them there, too.
        data = data[:4] + data[2:]
        offsets, size = [0, 2, 6, 10, 14], 16
    else:
        offsets, size = [0, 2, 4, 8, 12], 13
    if len(data) < (count - 1) * size + offsets[-1] + 1:
        raise DataError("a message is shorter than it says")
    formats = ["<u2", "<u2", "<u4", "<u4", "u1"]
    event = np.dtype(
        {"names": list("xysnp"), "formats": formats, "offsets": offsets, "itemsize": size}
    )
    table = np.frombuffer(data.ljust(count * size, b"\0"), event, count)
    t = table["s"].astype(np.int64) * 1_000_000 + table["n"] // 1000
    size_px = options.sensor_px((width_px, height_px), usual=(width_px, height_px))
    return events(t, table["x"], table["y"], table["p"], size_px)


def image(message: Cursor) -> Frame:
    """sensor_msgs/Image, 8 bits a channel, stamped with its header's time."""
    stamp_ns = message.header()
    height_px, width_px = message.numbers("II")
    encoding = message.text()
    message.numbers("B")  # is_bigendian matters to wider channels only
    (row_bytes,) = message.numbers("I")
    order = _CHANNELS.get(encoding)
    if order is None:
        known = ", ".join(_CHANNELS)
        raise DataError(f"pictures of encoding '{encoding}' are not read, only {known}")
    rows = np.frombuffer(message.data(), np.uint8).reshape(height_px, row_bytes)
    pixels = rows[:, : width_px * len(order)].reshape(height_px, width_px, len(order))
    picture = pixels[:, :, 0] if len(order) == 1 else pixels[:, :, order[:3]]
    return frame(picture, stamp_ns, stamp_ns)


def compressed_image(message: Cursor) -> Frame:
    """sensor_msgs/CompressedImage (JPEG, PNG), as RGB, stamped with its header's time."""
    import cv2

    stamp_ns = message.header()
    message.text()  # format: the bytes say it better
    picture = cv2.imdecode(np.frombuffer(message.data(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError("a compressed picture cannot be decoded")
    return frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), stamp_ns, stamp_ns)
