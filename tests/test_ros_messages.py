"""Packets and results as ROS 2 messages, and back to the last bit."""

from __future__ import annotations

import struct
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from edgeperc import masks
from edgeperc.control import AppText, DaemonStatus
from edgeperc.errors import DataError
from edgeperc.masks import Rle
from edgeperc.packet import Events, Frame, Gaze, Packet, Stamp
from edgeperc.result import (
    Detections,
    Instances,
    LabelMap,
    ModelRef,
    Result,
    SearchMap,
    Timings,
)
from edgeperc.ros import mono
from edgeperc.ros.codec import deserialize, serialize
from edgeperc.ros.joiner import Joiner, from_ros
from edgeperc.ros.messages import to_ros
from edgeperc.ros.topics import prefix, time_of, topics_of
from edgeperc.status import SensorStatus

OFFSET_NS = 1_795_000_000_123_456_789
STAMP = Stamp(source="dvs", seq=(1 << 40) + 3, start_ns=1_000_000_001, end_ns=1_050_000_002)
MODEL = ModelRef(name="finder-2b", sha256="ab" * 32, engine="onnxruntime", provider="CPU")
ABOUT: dict[str, Any] = {
    "stamp": STAMP,
    "model": MODEL,
    "timings": Timings(wait_ns=1, represent_ns=2, infer_ns=3, total_ns=6),
}
RANDOM = np.random.default_rng(1)
ODD = np.array([0.1, np.nan, -np.inf, 1e-38, 3e38], np.float32)


def some_events(count: int, *, step_us: int = 3) -> Events:
    return Events(
        stamp=STAMP,
        t=-5 + step_us * np.arange(count),
        x=RANDOM.integers(0, 1280, count).astype(np.uint16),
        y=RANDOM.integers(0, 720, count).astype(np.uint16),
        p=RANDOM.integers(0, 2, count).astype(np.bool_),
        width_px=1280,
        height_px=720,
    )


def some_items() -> dict[str, Packet | Result]:
    on = np.zeros((6, 8), np.bool_)
    on[1:3, 2:5] = True
    boxes = RANDOM.random((5, 4)).astype(np.float32) * 300
    detections = Detections(
        boxes=boxes,
        scores=ODD,
        class_ids=np.array([0, 1, 7, -1, 1 << 40]),
        classes=("person", "Straße"),
        picture_px=(346, 260),
        variance=boxes,
        gaze=Gaze(pan_rad=0.1, tilt_rad=float("nan")),
        **ABOUT,
    )
    return {
        "grey": Frame(stamp=STAMP, image=RANDOM.integers(0, 255, (5, 7), np.uint8)),
        "rgb": Frame(
            stamp=STAMP,
            image=RANDOM.integers(0, 255, (5, 7, 3), np.uint8),
            gaze=Gaze(pan_rad=1 / 3, tilt_rad=-1e-9),
        ),
        "events": some_events(1000),
        "rare events": some_events(50, step_us=1_500_000),
        "no events": some_events(0),
        "labels": LabelMap(
            labels=RANDOM.integers(0, 255, (260, 346), np.uint8), classes=("a", "b"), **ABOUT
        ),
        "detections": detections,
        "no detections": Detections(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.int64),
            classes=(),
            **ABOUT,
        ),
        "instances": Instances(
            ids=np.array([3, 70_000]),
            masks=(masks.encode(on), masks.encode(~on)),
            boxes=boxes[:2],
            scores=ODD[:2],
            visible=ODD[2:4],
            picture_px=(8, 6),
            classes=("car", "van"),
            **ABOUT,
        ),
        "map": SearchMap(
            intensity=np.tile(ODD, (4, 3)),
            cell_rad=np.pi / 256,
            tracks=RANDOM.random((3, 4)).astype(np.float32),
            trail=RANDOM.random((12, 2)).astype(np.float32),
            **ABOUT,
        ),
    }


ITEMS = some_items()


def as_bytes(value: Any) -> Any:
    """A value that is equal only to what is the same bit for bit."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, (Gaze, Frame, Events, LabelMap, Detections, Instances, SearchMap)):
        return (type(value), [as_bytes(getattr(value, each.name)) for each in fields(value)])
    return value


def sent(
    item: Any, *, offset_ns: int = OFFSET_NS, exact: bool = True
) -> list[tuple[str, str, Any]]:
    """Topic, type and message, after a way over the wire."""
    return [
        (topic.name, topic.type, deserialize(serialize(message, topic.type), topic.type))
        for topic, message in to_ros(item, offset_ns, exact=exact)
    ]


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("offset_ns", [OFFSET_NS, 0, -7, 1 << 62])
def test_an_item_comes_back_bit_for_bit(name: str, offset_ns: int) -> None:
    joiner = Joiner(offset_ns)
    items = [joiner.put(*message) for message in sent(ITEMS[name], offset_ns=offset_ns)]
    found = [item for item in items if item is not None]
    assert len(found) == 1
    assert as_bytes(found[0]) == as_bytes(ITEMS[name])


def test_items_come_back_although_their_messages_are_interleaved() -> None:
    other = replace(ITEMS["labels"], stamp=replace(STAMP, seq=9, start_ns=5))
    queues = [sent(ITEMS["rare events"]), sent(ITEMS["labels"]), sent(other), sent(ITEMS["rgb"])]
    joiner, found = Joiner(OFFSET_NS), []
    while any(queues):
        for queue in queues:
            if queue and (item := joiner.put(*queue.pop(0))):
                found.append(as_bytes(item))
    wanted = [ITEMS["rare events"], ITEMS["labels"], other, ITEMS["rgb"]]
    assert sorted(map(repr, found)) == sorted(repr(as_bytes(item)) for item in wanted)


@pytest.mark.parametrize("name", ITEMS)
def test_every_topic_is_announced_and_its_stamp_is_the_first_photon(name: str) -> None:
    item = ITEMS[name]
    model = "" if isinstance(item, (Frame, Events)) else item.model.name
    known = {(topic.name, topic.type) for topic in topics_of("dvs", model)}
    for topic, type_, message in sent(item):
        assert (topic, type_) in known
        if hasattr(message, "header"):
            assert time_of(message.header) == STAMP.start_ns + OFFSET_NS
            assert message.header.frame_id == "dvs"


def test_names_become_names_that_ros_allows() -> None:
    assert prefix("left cam", "finder-2b") == "left_cam/finder_2b"
    assert prefix("0", "") == "_0"
    assert prefix("~~") == "unnamed"


def test_a_single_message_says_what_it_can() -> None:
    def alone(item: Packet | Result) -> Any:
        name, type_, message = sent(item, exact=False)[0]
        return from_ros(name, type_, message, OFFSET_NS)

    frame, events = alone(ITEMS["rgb"]), alone(ITEMS["events"])
    np.testing.assert_array_equal(frame.image, ITEMS["rgb"].image)
    assert frame.stamp == replace(STAMP, seq=0, end_ns=STAMP.start_ns)
    for name in "txyp":
        np.testing.assert_array_equal(getattr(events, name), getattr(ITEMS["events"], name))
    labels = alone(ITEMS["labels"])
    np.testing.assert_array_equal(labels.labels, ITEMS["labels"].labels)
    assert labels.model.name == "finder_2b"
    boxes = alone(ITEMS["detections"])
    np.testing.assert_allclose(boxes.boxes, ITEMS["detections"].boxes, rtol=1e-5)
    assert boxes.classes == ("person", "Straße", "7", "-1", str(1 << 40))


def test_boxes_and_objects_are_standard_messages() -> None:
    array = {topic: message for topic, _, message in sent(ITEMS["instances"])}
    first, second = array["dvs/finder_2b/detections"].detections
    assert (first.id, second.id) == ("3", "70000")
    assert first.results[0].hypothesis.class_id == "car"
    x0, _, x1, _ = ITEMS["instances"].boxes[0].tolist()
    assert first.bbox.center.position.x == (x0 + x1) / 2
    assert first.bbox.size_x == x1 - x0
    picture = array["dvs/finder_2b/instances"]
    assert picture.encoding == "mono16"
    numbers = np.asarray(picture.data).view("<u2").reshape(6, 8)
    assert numbers[1, 2] == 3
    assert numbers[0, 0] == 70_000 & 0xFFFF


def test_mono_is_what_its_table_says() -> None:
    events = replace(some_events(2), t=np.array([10, 12]), p=np.array([True, False]))
    events = replace(events, x=np.array([1279, 1], np.uint16), y=np.array([719, 2], np.uint16))
    words = mono.encode(events, 0, 2).view("<u8").tolist()
    assert words == [1 << 63 | 719 << 48 | 1279 << 32, 2 << 48 | 1 << 32 | 2000]
    with pytest.raises(DataError, match="multiple of 8"):
        mono.decode(np.zeros(9, np.uint8), time_us=0)


def test_a_sensor_of_too_many_rows_is_refused() -> None:
    with pytest.raises(DataError, match="rows"):
        to_ros(replace(some_events(1), height_px=40_000), 0)


@pytest.mark.parametrize(
    "change",
    [
        ('"kind":"LabelMap"', '"kind":"Lie"'),
        ('"parts":1', '"parts":0'),
        ('"seq":', '"sqe":'),
        ('"kind":"LabelMap"', '"kind":"Detections"'),
    ],
)
def test_a_damaged_description_is_a_data_error(change: tuple[str, str]) -> None:
    (name, type_, message), *rest = sent(ITEMS["labels"])
    message.data = message.data.replace(*change)
    joiner = Joiner(OFFSET_NS)
    with pytest.raises(DataError):
        _ = [joiner.put(*each) for each in [(name, type_, message), *rest]]


def test_parts_that_never_come_do_not_pile_up() -> None:
    joiner = Joiner(OFFSET_NS)
    for k in range(2000):
        item = replace(ITEMS["grey"], stamp=replace(STAMP, start_ns=k))
        assert joiner.put(*sent(item)[0]) is None
    assert len(joiner._pending) < 1000


def test_the_app_and_the_status_have_messages() -> None:
    ((topic, message),) = to_ros(AppText(name="events", toml='rig = "twin"', etag=""), 0)
    assert (topic.name, topic.latched, message.data) == ("app", True, 'rig = "twin"')
    lost = SensorStatus(name="wide", state="lost", error="unplugged")
    status = DaemonStatus(
        version="1", app="events", state="degraded", uptime_s=3.2, sensors=(lost,)
    )
    ((name, type_, array),) = sent(status)
    assert name == "/diagnostics"
    assert [(int(row.level), row.name) for row in array.status] == [
        (1, "edgeperc: events"),
        (2, "edgeperc: sensor wide"),
    ]
    assert from_ros(name, type_, array, 0) is None


def test_an_rle_is_kept_as_it_is() -> None:
    odd = Rle(b"0", 0, 0)
    item = replace(ITEMS["instances"], masks=(odd, ITEMS["instances"].masks[1]))
    joiner = Joiner(0)
    (found,) = [back for message in sent(item, offset_ns=0) if (back := joiner.put(*message))]
    assert found.masks == item.masks
