import threading
import time
from dataclasses import replace

import cv2
import msgspec
import numpy as np
import pytest

from edgeperc.config import App, IntrinsicsTable, PipelineTable, Rig
from edgeperc.control import DaemonStatus
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.plan import Plan
from edgeperc.plugin import prepare
from edgeperc.result import LabelMap, ModelRef
from edgeperc.ros.codec import deserialize
from edgeperc.sinks import ros2
from edgeperc.sinks.ros2 import Ros2

PATIENCE_S = 20.0
LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


class FakeDaemon:
    def status(self):
        return DaemonStatus(version="1", app="test", state="serving", uptime_s=1.0)


class FakeWire:
    """Keeps what is published; `error` is raised in place of that."""

    def __init__(self):
        self.said = []
        self.closed = False
        self.error = None
        self.gate = threading.Event()
        self.gate.set()

    def publish(self, topic, data):
        self.gate.wait(PATIENCE_S)
        if self.error:
            raise self.error
        self.said.append((topic, deserialize(data, topic.type)))

    def close(self):
        self.closed = True

    def named(self, name):
        return [message for topic, message in self.said if topic.name == name]


@pytest.fixture
def wire(monkeypatch):
    made = FakeWire()
    monkeypatch.setattr(ros2, "_open", lambda *_, **__: made)
    monkeypatch.setattr(ros2, "choose", lambda _: "dds")
    return made


def until(condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def stamp():
    now = time.monotonic_ns()
    return Stamp(source="wide", seq=1, start_ns=now, end_ns=now)


def labels(classes=("road", "car")):
    return LabelMap(stamp=stamp(), labels=LABELS, classes=classes, model=ModelRef(name="net"))


def test_label_info_is_said_again_only_when_it_changes(wire):
    sink = Ros2(daemon=FakeDaemon())
    sink.write(labels())
    sink.write(labels())
    sink.write(labels(("road", "tram")))
    sink.close()
    infos = wire.named("/edgeperc/wide/net/label_info")
    assert [info.class_map[1].class_name for info in infos] == ["car", "tram"]
    assert len(wire.named("/edgeperc/wide/net/labels")) == 3
    assert wire.closed


def test_camera_info_goes_with_each_picture_in_its_frame(wire, tmp_path):
    rig = Rig(
        sensors={"wide": {"driver": "basler"}},
        intrinsics={
            "wide": IntrinsicsTable(
                width_px=4, height_px=3, focal_px=(9.0, 8.0), centre_px=(1.5, 1.0)
            )
        },
    )
    app = App(rig="r", pipelines=(PipelineTable(name="p", input="wide", model="m"),))
    plan = Plan(app=app, app_path=tmp_path / "a.toml", rig=rig, rig_path=tmp_path / "r.toml")
    sink = Ros2(daemon=FakeDaemon(), plan=plan, image=True, frame_ids={"wide": "lens"})
    sink.take(Frame(stamp=stamp(), image=np.zeros((3, 4), np.uint8)))
    until(lambda: wire.named("/edgeperc/wide/camera_info"))
    unknown = msgspec.structs.replace(rig, intrinsics={})
    sink.adapt(replace(plan, rig=unknown), ())
    sink.take(Frame(stamp=stamp(), image=np.zeros((3, 4), np.uint8)))
    sink.close()
    pictures = wire.named("/edgeperc/wide/image_raw")
    infos = wire.named("/edgeperc/wide/camera_info")
    assert [each.header for each in infos] == [each.header for each in pictures]
    assert infos[0].header.frame_id == "lens"
    assert list(infos[0].k) == [9, 0, 1.5, 0, 8, 1, 0, 0, 1]
    assert [each.k[0] for each in infos] == [9, 0]


def test_pictures_and_events_are_sent_only_when_asked_for(wire):
    picture = Frame(stamp=stamp(), image=np.zeros((3, 4), np.uint8))
    events = Events(
        stamp=stamp(),
        t=np.zeros(1, np.int64),
        x=np.zeros(1, np.uint16),
        y=np.zeros(1, np.uint16),
        p=np.ones(1, np.bool_),
        width_px=4,
        height_px=3,
    )
    for asked in ({}, {"image": True}, {"events": True}):
        sink = Ros2(daemon=FakeDaemon(), **asked)
        sink.take(picture)
        sink.take(events)
        sink.close()
        names = {topic.name.rpartition("/")[2] for topic, _ in wire.said} - {"diagnostics"}
        assert names == {"image": {"image_raw", "camera_info"}, "events": {"events"}}.get(
            next(iter(asked), ""), set()
        )
        wire.said.clear()


def test_compressed_labels_are_the_labels(wire):
    sink = Ros2(daemon=FakeDaemon(), compressed=True, namespace="/", frame_ids={"wide": "lens"})
    sink.write(labels())
    sink.close()
    (message,) = wire.named("/wide/net/labels/compressed")
    decoded = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded, LABELS)
    (raw,) = wire.named("/wide/net/labels")
    assert (message.header.frame_id, raw.header.frame_id) == ("lens", "lens")


def test_wire_that_hangs_costs_results_and_not_time(wire):
    wire.gate.clear()
    sink = Ros2(daemon=FakeDaemon())
    for _ in range(30):
        sink.write(labels())  # a write that waits would never come back
    assert sink.lost >= 20
    wire.gate.set()
    sink.close()


def test_broken_wire_is_told_to_whoever_writes(wire):
    wire.error = DeviceError("no DDS any more")
    sink = Ros2(daemon=FakeDaemon())
    sink.close()
    with pytest.raises(DeviceError, match="no DDS"):
        sink.write(labels())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"namespace": "edgeperc"}, "namespace"),
        ({"namespace": "/a//b"}, "namespace"),
        ({"node": "a/b"}, "node"),
        ({"lifecycle": True}, "lifecycle needs the backend rclpy"),
    ],
)
def test_names_that_ros_does_not_take_are_refused(wire, options, says):
    with pytest.raises(ConfigError, match=says):
        Ros2(daemon=FakeDaemon(), **options)


def test_without_any_way_to_ros_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        ros2.choose("auto")
    assert "edgeperc[dds]" in caught.value.hint


def test_sourced_ros_comes_first(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert ros2.choose("auto") == "rclpy"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "cyclonedds" or None)
    assert ros2.choose("auto") == "dds"


def test_table_of_an_app_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="backend"):
        prepare(
            {"kind": "ros2", "backend": "corba"},
            kind="sink",
            where="app.toml",
            folder=tmp_path,
            injected={"daemon": FakeDaemon()},
        )
