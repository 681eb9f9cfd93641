"""What the readers make of sound files; damaged ones are in test_damage.py."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc.drivers.formats import Options, sniff
from edgeperc.drivers.formats.packets import cut, events, in_order
from edgeperc.errors import ConfigError, DataError
from edgeperc.packet import Events, Frame, Packet
from edgeperc.validate import Validator

Written = Callable[[str], Path]
Real = Callable[[str], Path]

KINDS = {
    "evt2": "Prophesee RAW",
    "evt3": "Prophesee RAW",
    "dat1": "Prophesee DAT",
    "dat2": "Prophesee DAT",
    "es": "Event Stream",
    "aedat4": "AEDAT4",
    "dsec": "HDF5",
    "mvsec": "HDF5",
    "text_s": "text",
    "text_us": "text",
    "ros1_packets": "ROS 1 bag",
    "ros1_dvs": "ROS 1 bag",
    "ros2_sqlite": "ROS 2 bag",
    "ros2_db3": "ROS 2 bag",
    "ros2_mcap": "ROS 2 bag",
    "mcap": "ROS 2 bag",
    "mcap_dvs": "ROS 2 bag",
}


def read(path: Path, *, span_us: int = 10_000, count: int = 1 << 17, **told: Any) -> list[Packet]:
    """A whole file, in this process, every packet checked."""
    reader = importlib.import_module(f"edgeperc.drivers.formats.{sniff(path).module}")
    small = cut(reader.read(path, Options(**told)), span_us=span_us, count=count)
    return list(Validator("raise").stream(in_order(small)))


def columns(packets: list[Packet]) -> list[np.ndarray[Any, Any]]:
    parts = [packet for packet in packets if isinstance(packet, Events)]
    return [np.concatenate([getattr(part, name) for part in parts]) for name in "txyp"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_gives_the_scene_exactly(kind: str, scene: Any, written: Written) -> None:
    path = written(kind)
    assert sniff(path).name == KINDS[kind]
    packets = read(path)
    t, x, y, p = columns(packets)
    starts_at_zero = kind == "es"
    assert (t == scene.t - (scene.t[0] if starts_at_zero else 0)).all()
    assert (x == scene.x).all()
    assert (y == scene.y).all()
    assert (p == scene.p).all()
    sizes = {(e.width_px, e.height_px) for e in packets if isinstance(e, Events)}
    assert sizes == {{"dsec": (640, 480), "mvsec": (346, 260)}.get(kind, (64, 48))}


@pytest.mark.parametrize("kind", ["aedat4", "mvsec", "ros1_dvs"])
def test_pictures_lie_between_the_events_of_their_time(
    kind: str, scene: Any, written: Written
) -> None:
    packets = read(written(kind))
    frames = [packet for packet in packets if isinstance(packet, Frame)]
    assert [frame.stamp.end_ns // 1000 for frame in frames] == [e for _, e in scene.exposures_us]
    for frame, image in zip(frames, scene.images, strict=True):
        assert (frame.image == image).all()
    if kind == "aedat4":
        assert [f.stamp.start_ns // 1000 for f in frames] == [s for s, _ in scene.exposures_us]
    ends = [packet.stamp.end_ns for packet in packets]
    assert ends == sorted(ends)


@pytest.mark.parametrize("kind", ["evt3", "text_s", "aedat4"])
def test_packets_are_no_larger_than_asked(kind: str, written: Written) -> None:
    packets = read(written(kind), span_us=3_000, count=100)
    events = [packet for packet in packets if isinstance(packet, Events)]
    assert max(map(len, events)) <= 100
    assert max(packet.t[-1] - packet.t[0] for packet in events) < 3_000


def test_the_sensor_of_the_file_and_of_the_rig_must_agree(written: Written) -> None:
    assert read(written("evt2"), width_px=64, height_px=48)
    with pytest.raises(ConfigError, match="64 × 48 px in the file, 640 × - as configured"):
        read(written("evt2"), width_px=640)
    sized = read(written("dsec"), width_px=64, height_px=48)[0]
    assert isinstance(sized, Events)
    assert (sized.width_px, sized.height_px) == (64, 48)


def test_a_start_in_dsec_jumps_by_its_index(scene: Any, written: Written) -> None:
    reader = importlib.import_module("edgeperc.drivers.formats.hdf5")
    first, *rest = reader.read(written("dsec"), Options(start_s=0.3))
    assert len(first) == 1  # by which the recording's beginning is known
    wanted = scene.t[scene.t >= scene.t[0] + 300_000]
    assert rest[0].t[0] <= wanted[0]
    assert sum(map(len, rest)) < wanted.size + 100
    assert rest[-1].t[-1] == scene.t[-1]


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ("% evt 2.0\n", (640, 480)),
        ("% evt 3.0\n", (1280, 720)),
        ("% evt 3.0\n% plugin_name hal_plugin_gen31_fx3\n", (640, 480)),
        ("% evt 2.0\n% plugin_name hal_plugin_gen41_evk2\n", (1280, 720)),
        ("% evt 3.0\n% geometry 320x320\n", (320, 320)),
        ("% format EVT3;height=720;width=1280\n% evt 3.0\n", (1280, 720)),
        ("% evt 2.0\n% Date 2020-09-25\n% Width 100\n% Height 90\n", (100, 90)),
    ],
)
def test_the_size_of_a_prophesee_sensor(head: str, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    if "evt 2" in head:
        words = np.array([8 << 28 | 5, 1 << 28 | 3 << 11 | 4], "<u4")
    else:
        words = np.array([8 << 12 | 5, 4, 2 << 12 | 1 << 11 | 3], "<u2")
    path.write_bytes(head.encode() + words.tobytes())
    (packet,) = read(path)
    assert isinstance(packet, Events)
    assert (packet.width_px, packet.height_px) == size
    assert (packet.x[0], packet.y[0], packet.p[0]) == (3, 4, True)


def test_the_same_words_in_blocks_of_any_size(scene: Any, written: Written) -> None:
    """State is kept from block to block, also in the middle of a row of vectors."""
    from edgeperc.drivers.formats.evt3 import Evt3
    from edgeperc.drivers.formats.prophesee_raw import Evt2

    for kind, decoder in (("evt2", Evt2), ("evt3", Evt3)):
        data = written(kind).read_bytes()
        words = np.frombuffer(data[data.index(b"% end\n") + 6 :], decoder.dtype)
        for size in (1, 7, 1000):
            one = decoder()
            few = words[:2000]
            parts = [one.decode(few[i : i + size]) for i in range(0, few.size, size)]
            t, x, y, p = (np.concatenate(column) for column in zip(*parts, strict=True))
            assert t.size > 500
            assert (t == scene.t[: t.size]).all()
            assert (x == scene.x[: t.size]).all()
            assert (y == scene.y[: t.size]).all()
            assert (p == scene.p[: t.size]).all()


def test_evt3_vectors_move_their_base_along() -> None:
    from edgeperc.drivers.formats.evt3 import Evt3

    words = [8 << 12, 6 << 12 | 9, 5, 3 << 12 | 1 << 11 | 100]
    words += [4 << 12 | 0b1000_0000_0001, 5 << 12 | 0xF81, 4 << 12 | 1]
    t, x, y, p = Evt3().decode(np.array(words, np.uint16))
    assert x.tolist() == [100, 111, 112, 119, 120]
    assert (set(t), set(y), set(p)) == ({9}, {5}, {True})


def test_a_time_high_that_is_repeated_keeps_the_low_part() -> None:
    from edgeperc.drivers.formats.evt3 import Evt3

    words = [8 << 12 | 1, 6 << 12 | 5, 0, 2 << 12, 8 << 12 | 1, 2 << 12, 8 << 12 | 2, 2 << 12]
    assert Evt3().decode(np.array(words, np.uint16)).t.tolist() == [4096 + 5, 4096 + 5, 8192]


def test_times_at_the_ends_of_64_bits_do_not_wrap_around() -> None:
    nothing = np.zeros(2)
    packet = events(np.array([2**63 - 1, -(2**63)]), nothing, nothing, nothing, (1, 1))
    validator = Validator("raise")
    validator.check(packet)
    assert "time goes back" in str(validator.fault)


@pytest.mark.parametrize(("suffix", "version"), [("dat", "dat2"), ("raw", "evt2"), ("raw", "evt3")])
def test_times_that_a_converter_stored_without_their_start(
    suffix: str, version: str, scene: Any, tmp_path: Path
) -> None:
    faery = pytest.importorskip("faery")
    table = np.zeros(100, faery.EVENTS_DTYPE)
    for name, column in zip(table.dtype.names, (scene.t, scene.x, scene.y, scene.p), strict=True):
        table[name] = column[:100]
    path = tmp_path / f"a.{suffix}"
    faery.events_stream_from_array(table, (64, 48)).to_file(path, version=version)
    assert (columns(read(path))[0] == scene.t[:100]).all()


def test_time_that_falls_a_little_is_no_wrap() -> None:
    from edgeperc.drivers.formats.evt3 import Evt3

    def at(high: int) -> list[int]:
        return [8 << 12 | high, 0, 2 << 12]

    t = Evt3().decode(np.array([*at(4095), *at(0), *at(4095), *at(4000)], np.uint16)).t
    assert (t >> 12).tolist() == [4095, 4096, 8191, 8096]


def test_events_after_a_lost_message_wait_for_time_and_row(bags: Any, tmp_path: Path) -> None:
    known = [8 << 12 | 1, 6 << 12 | 2, 3]
    path = tmp_path / "gap.bag"
    with bags(path, ros1=True) as bag:
        for seq, words in (
            (7, [*known, 2 << 12]),
            (8, [2 << 12]),
            (10, [2 << 12, *known, 2 << 12]),
        ):
            packet = bag.message(
                "event_camera_msgs/msg/EventPacket",
                header=bag.header(seq),
                height=48,
                width=64,
                seq=seq,
                time_base=0,
                encoding="evt3",
                is_bigendian=False,
                events=np.array(words, "<u2").view(np.uint8),
            )
            bag.write("/events", seq, packet)
    assert columns(read(path))[0].size == 3


def test_event_packets_in_mono_count_from_their_time_base(bags: Any, tmp_path: Path) -> None:
    path = tmp_path / "mono"
    wall_us = 1_700_000_000_000_000
    with bags(path) as bag:
        for seq in range(3):
            packet = bag.message(
                "event_camera_msgs/msg/EventPacket",
                header=bag.header(wall_us + 1000 * seq),
                height=48,
                width=64,
                seq=seq,
                time_base=(wall_us + 1000 * seq) * 1000,
                encoding="mono",
                is_bigendian=False,
                events=np.array([1 << 63 | 47 << 48 | 63 << 32, 7000], "<u8").view(np.uint8),
            )
            bag.write("/events", wall_us + 1000 * seq, packet)
    t, x, y, p = columns(read(path))
    assert (t - wall_us).tolist() == [0, 7, 1000, 1007, 2000, 2007]
    assert (x[0], y[0], p[0], p[1]) == (63, 47, True, False)


def test_pictures_beside_event_packets_come_to_the_sensors_clock(
    bags: Any, scene: Any, tmp_path: Path
) -> None:
    path = tmp_path / "both.bag"
    ros_ahead_us = 1_700_000_000_000_000
    word = [8 << 12, 6 << 12, 0, 2 << 12]  # an event at the sensor's time 0
    with bags(path, ros1=True) as bag:
        for seq in range(3):
            now_us = ros_ahead_us + seq * 1000
            packet = bag.message(
                "event_camera_msgs/msg/EventPacket",
                header=bag.header(now_us),
                height=48,
                width=64,
                seq=seq,
                time_base=0,
                encoding="evt3",
                is_bigendian=False,
                events=np.array(word, "<u2").view(np.uint8),
            )
            picture = bag.message(
                "sensor_msgs/msg/Image",
                header=bag.header(now_us + 500),
                height=48,
                width=64,
                encoding="bgr8",
                is_bigendian=0,
                step=64 * 3,
                data=np.tile(np.array([1, 2, 3], np.uint8), 48 * 64),
            )
            bag.write("/events", now_us, packet)
            bag.write("/image", now_us + 500, picture)
    frames = [packet for packet in read(path) if isinstance(packet, Frame)]
    assert [frame.stamp.end_ns for frame in frames] == [500_000, 1_500_000, 2_500_000]
    assert frames[0].image[0, 0].tolist() == [3, 2, 1]


def test_a_bag_of_two_cameras_asks_which(bags: Any, scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.bag"
    with bags(path, ros1=True) as bag:
        for topic in ("/left", "/right"):
            for time_us, grey in ((1000, 10), (2000, 20)):
                picture = bag.message(
                    "sensor_msgs/msg/Image",
                    header=bag.header(time_us),
                    height=2,
                    width=3,
                    encoding="mono8",
                    is_bigendian=0,
                    step=4,
                    data=np.full(8, grey, np.uint8),
                )
                bag.write(topic, time_us, picture)
    with pytest.raises(DataError, match=r"several cameras.*/left .*/right "):
        read(path)
    with pytest.raises(DataError, match="no topic /middle; there are: /left"):
        read(path, topics=("/middle",))
    frames = read(path, topics=("/right",))
    assert [(f.image.shape, f.image[0, 0]) for f in frames if isinstance(f, Frame)] == [
        ((2, 3), 10),
        ((2, 3), 20),
    ]


def test_a_compressed_picture(bags: Any, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "jpeg.bag"
    coded = cv2.imencode(".png", np.full((4, 6, 3), (1, 2, 3), np.uint8))[1]
    with bags(path, ros1=True) as bag:
        message = bag.message(
            "sensor_msgs/msg/CompressedImage",
            header=bag.header(5),
            format="png",
            data=coded.ravel(),
        )
        bag.write("/image", 5, message)
    (frame,) = read(path)
    assert isinstance(frame, Frame)
    assert (frame.image == (3, 2, 1)).all()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.raw", b"", "the file is empty"),
        ("noise.bin", bytes(range(128, 256)), "not a recording that edgeperc knows"),
        ("old.aedat", b"#!AER-DAT2.0\r\n", "AEDAT 2.0 is not read, only AEDAT 4"),
        ("a.csv", b"timestamp,x,y,polarity\n1,2,3,4\n", "not a recording"),
    ],
)
def test_what_is_no_recording_is_named(
    name: str, content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        sniff(path)
    assert str(path) in str(caught.value)
    assert "Prophesee RAW" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        ("% evt 2.1\n", "EVT2.1 is not read"),
        ("% format EVT21;height=720;width=1280\n", "EVT2.1 is not read"),
        ("% evt 4.0\n", "EVT4 is not read"),
        ("% Date 2020-09-25\n", "the header names no EVT version"),
        ("% Version 7\n", "DAT version 7 is not read"),
        ("% Version 2\n\x0e\x08", "it holds no brightness changes"),
    ],
)
def test_other_prophesee_encodings_are_refused(head: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(head.encode() + bytes(64))
    with pytest.raises(DataError, match=complaint):
        read(path)


def test_another_hdf5_layout_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["CD/events"] = [1]
    with pytest.raises(DataError, match=r"its groups are CD; .*DSEC.*MVSEC"):
        read(tmp_path / "a.h5")


def test_a_missing_library_is_a_sentence(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written("dsec")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "h5py" else 1)
    with pytest.raises(DataError, match=r"needs h5py: pip install 'edgeperc\[recordings\]'"):
        sniff(path)


REAL = {
    "davis346.aedat4": (78_830, 59, (346, 260), 2.360),
    "dvxplorer320x240.aedat4": (111_954, 0, (320, 240), 0.590),
    "gen3_evt2.raw": (521_252, 0, (640, 480), 0.096),
    "evk3_evt3.raw": (219_596, 0, (1280, 720), 0.0088),
    "eventpacket_evt3_ros1.bag": (343_474, 0, (640, 480), 2.078),
    "eventpacket_evt3_trigger_ros2": (82_469, 0, (1280, 720), 1.251),
    "tonic_sample_ncars.dat": (2_009, 0, (304, 240), 0.1),
}
"""Events, frames, sensor and span of the real recordings, as MANIFEST.md has them."""


@pytest.mark.parametrize("name", REAL)
def test_a_real_recording(name: str, real: Real) -> None:
    packets = read(real(f"events/{name}"))
    t, _, _, p = columns(packets)
    count, frames, size, span_s = REAL[name]
    first = next(packet for packet in packets if isinstance(packet, Events))
    assert t.size == count
    assert sum(isinstance(packet, Frame) for packet in packets) == frames
    assert (first.width_px, first.height_px) == size
    assert (t[-1] - t[0]) * 1e-6 == pytest.approx(span_s, rel=0.01)
    ends = [packet.stamp.end_ns for packet in packets]
    assert ends == sorted(ends)
    if name == "eventpacket_evt3_ros1.bag":
        assert (~p).sum() == 218_291


@pytest.mark.parametrize("name", ["gen3_evt2.raw", "evk3_evt3.raw"])
def test_our_decoder_agrees_with_faery(name: str, real: Real) -> None:
    """On sound files faery's events are the same, but for times that it holds back (see evt3)."""
    faery = pytest.importorskip("faery")
    path = real(f"events/{name}")
    table = faery.events_stream_from_file(path, dimensions_fallback=(1280, 720)).to_array()
    t, x, y, p = columns(read(path))
    assert (x == table["x"]).all()
    assert (y == table["y"]).all()
    assert (p == table["on"]).all()
    late_us = table["t"].astype(np.int64) - t
    assert late_us.min() == 0
    assert late_us.max() <= (11 if "evt3" in name else 0)


def test_libcaer_cmp_is_refused_by_name(real: Real) -> None:
    with pytest.raises(DataError, match="encoding 'libcaer_cmp' are not read, only evt3"):
        read(real("events/eventpacket_libcaer_cmp_mcap"))
