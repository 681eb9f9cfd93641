"""Messages of the page, read back as the page reads them."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

from edgeperc import masks
from edgeperc.packet import Events, Frame, Gaze, Stamp
from edgeperc.result import Detections, Instances, LabelMap, ModelRef, SearchMap, decode_rle
from edgeperc.sinks.web_wire import (
    colours,
    events_message,
    frame_message,
    pack,
    result_message,
    unpack,
)

STAMP = Stamp(source="dvs", seq=3, start_ns=10_000_000, end_ns=20_000_000)
MODEL = ModelRef(name="m")


def events(*rows: tuple[int, int, int, int]) -> Events:
    """rows: t µs, x, y, polarity; 6 × 4 px."""
    t, x, y, p = np.array(rows, np.int64).reshape(-1, 4).T
    return Events(
        stamp=STAMP,
        t=t.copy(),
        x=x.astype(np.uint16),
        y=y.astype(np.uint16),
        p=p.astype(np.bool_),
        width_px=6,
        height_px=4,
    )


def test_a_message_is_a_header_and_its_payload() -> None:
    assert unpack(pack({"kind": "ä"}, b"\x00payload")) == ({"kind": "ä"}, b"\x00payload")


def test_a_picture_keeps_its_colours_and_its_size_in_sensor_pixels() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = 200  # red
    header, jpeg = unpack(frame_message(Frame(stamp=STAMP, image=image), max_width_px=30))
    assert (header["width"], header["height"], header["source"], header["seq"]) == (
        60,
        40,
        "dvs",
        3,
    )
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (20, 30, 3)
    assert np.abs(shown.reshape(-1, 3).mean(axis=0) - (0, 0, 200)).max() < 6
    grey = Frame(stamp=STAMP, image=np.full((4, 6), 90, np.uint8))
    shown = cv2.imdecode(
        np.frombuffer(unpack(frame_message(grey, max_width_px=1280))[1], np.uint8),
        cv2.IMREAD_UNCHANGED,
    )
    assert shown.shape == (4, 6)


def test_events_of_the_window_add_up_by_polarity_and_older_ones_are_gone() -> None:
    part = events((9_000, 5, 3, 1), (19_000, 1, 0, 1), (19_500, 1, 0, 1), (19_600, 2, 1, 0))
    header, payload = unpack(events_message([part], window_ns=5_000_000))
    steps = np.frombuffer(zlib.decompress(payload), np.uint8).reshape(4, 6)
    expected = np.full((4, 6), 3, np.uint8)
    expected[0, 1], expected[1, 2] = 5, 2
    np.testing.assert_array_equal(steps, expected)
    assert header["count"] == 3
    many = events(*[(19_000, 0, 0, 1)] * 9, *[(19_000, 1, 0, 0)] * 9)
    steps = np.frombuffer(zlib.decompress(unpack(events_message([many], window_ns=10**7))[1]), "u1")
    assert steps[:3].tolist() == [6, 0, 3]


def test_a_label_map_is_the_run_lengths_of_grpc() -> None:
    labels = np.random.default_rng(1).integers(0, 4, (40, 60)).astype(np.uint8)
    result = LabelMap(stamp=STAMP, labels=labels, classes=("a", "b", "c", "d"), model=MODEL)
    header, code = unpack(result_message(result))
    assert header["kind"] == "labels"
    assert header["classes"] == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(decode_rle(code, height_px=40, width_px=60), labels)


def test_boxes_and_objects_are_in_the_header() -> None:
    found = Detections(
        stamp=STAMP,
        boxes=np.array([[1, 2, 30, 40]], np.float32),
        scores=np.array([0.75], np.float32),
        class_ids=np.array([1]),
        classes=("person", "vehicle"),
        model=MODEL,
        picture_px=(60, 40),
        gaze=Gaze(pan_rad=np.pi / 180, tilt_rad=0.0),
    )
    header, _ = unpack(result_message(found))
    assert header["boxes"] == [[1.0, 2.0, 30.0, 40.0, 0.75, 1]]
    assert header["gaze_deg"] == [1.0, 0.0]
    mask = np.zeros((40, 60), np.bool_)
    mask[3:9, 5:20] = True
    objects = Instances(
        stamp=STAMP,
        ids=np.array([7]),
        masks=(masks.encode(mask),),
        boxes=np.array([[5, 3, 20, 9]], np.float32),
        scores=np.array([0.5], np.float32),
        visible=np.array([1], np.float32),
        picture_px=(60, 40),
        model=MODEL,
        classes=("cup",),
    )
    (thing,) = unpack(result_message(objects))[0]["objects"]
    assert (thing["id"], thing["name"], thing["box"]) == (7, "cup", [5, 3, 20, 9])
    np.testing.assert_array_equal(masks.decode(masks.Rle(thing["rle"].encode(), 40, 60)), mask)


def test_a_map_without_its_rig_has_no_message() -> None:
    nothing = np.zeros((2, 2), np.float32)
    beliefs = SearchMap(
        stamp=STAMP,
        intensity=nothing,
        cell_rad=0.1,
        tracks=np.empty((0, 4), np.float32),
        trail=np.empty((0, 2), np.float32),
        model=MODEL,
    )
    with pytest.raises(TypeError):
        result_message(beliefs)


def test_colours_are_those_of_the_terminal() -> None:
    from edgeperc.render.preview import class_colour, object_colour

    assert colours()["classes"][4] == class_colour(4)
    assert colours()["objects"][9] == object_colour(9)
