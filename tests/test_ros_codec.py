"""The one CDR codec: genuine types, and bytes that other readers know."""

from __future__ import annotations

import numpy as np
import pytest

from edgeperc.errors import DataError
from edgeperc.ros.codec import definition, deserialize, make, serialize, type_hash

STRING, IMAGE = "std_msgs/msg/String", "sensor_msgs/msg/Image"


def test_type_hashes_are_those_of_genuine_ros_2() -> None:
    # Of Jazzy's rosidl; they change with a single letter of a definition.
    assert type_hash(IMAGE).startswith("RIHS01_d31d41a9")
    assert type_hash("vision_msgs/msg/Detection2DArray").startswith("RIHS01_21427412")
    assert type_hash("diagnostic_msgs/msg/DiagnosticArray").startswith("RIHS01_5a8a36ef")


def test_a_string_is_little_endian_cdr() -> None:
    data = serialize(make(STRING, data="gaze"), STRING)
    assert data == b"\0\1\0\0" + b"\5\0\0\0" + b"gaze\0"
    assert deserialize(data, STRING).data == "gaze"


def test_an_image_comes_back() -> None:
    header = make(
        "std_msgs/msg/Header",
        stamp=make("builtin_interfaces/msg/Time", sec=5, nanosec=7),
        frame_id="wide",
    )
    pixels = np.arange(6, dtype=np.uint8)
    fields = {"height": 2, "width": 3, "encoding": "mono8", "is_bigendian": 0, "step": 3}
    message = make(IMAGE, header=header, **fields, data=pixels)
    back = deserialize(serialize(message, IMAGE), IMAGE)
    assert (back.header.stamp.sec, back.header.stamp.nanosec, back.header.frame_id) == (
        5,
        7,
        "wide",
    )
    assert {name: getattr(back, name) for name in fields} == fields
    np.testing.assert_array_equal(back.data, pixels)


def test_a_definition_holds_what_it_contains() -> None:
    text = definition("vision_msgs/msg/Detection2DArray")
    assert text.startswith("std_msgs/Header header")
    for name in ("vision_msgs/Detection2D", "vision_msgs/Point2D", "builtin_interfaces/Time"):
        assert f"MSG: {name}\n" in text


@pytest.mark.parametrize(
    "data", [b"", b"\0\1\0\0", b"\0\1\0\0\xff\xff\xff\xff", b"\0\1\0\0\x09\0\0\0a"]
)
def test_bytes_that_are_no_message_are_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError, match="are no sensor_msgs"):
        deserialize(data, IMAGE)


def test_a_field_that_does_not_fit_is_a_data_error() -> None:
    with pytest.raises(DataError, match="cannot be a std_msgs"):
        serialize(make(STRING, data=7), STRING)
