"""Between our own processes, against the keys that rmw_zenoh's design document shows."""

import struct
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeperc.control import DaemonStatus
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame
from edgeperc.ros.codec import deserialize
from edgeperc.sinks.ros2 import Ros2
from edgeperc.sinks.ros2_topics import RosTopic

pytest.importorskip("zenoh")
sys.path.insert(0, str(Path(__file__).parent))
from fleet_device import label_map
from test_fleet_link import free_port
from zenoh.ext import HistoryConfig, RecoveryConfig, declare_advanced_subscriber

from edgeperc.fleet.link import Link
from edgeperc.sinks import ros2_zenoh

PATIENCE_S = 40.0
IMAGE = "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"


def until(condition, each=lambda: None):
    """What the condition gives once that is something; `each` is done in between."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "it never came"
        each()
        time.sleep(0.05)
    return found


class FakeDaemon:
    def status(self):
        return DaemonStatus(version="1", app="test", state="serving", uptime_s=1.0)


def test_keys_are_those_of_the_design_document():
    topic = RosTopic("/chatter", "std_msgs/msg/String")
    assert ros2_zenoh.key(0, topic) == (
        "0/chatter/std_msgs::msg::dds_::String_/"
        "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
    )


def test_subscriber_gets_cdr_and_sees_node_and_topic():
    where = f"tcp/127.0.0.1:{free_port()}"
    with Link(where, mode="router"), Link(where) as link:
        samples = link.session.declare_subscriber("7/edgeperc/wide/net/labels/**")
        tokens = link.session.liveliness()
        with closing(Ros2(daemon=FakeDaemon(), backend="zenoh", domain_id=7, router=where)) as sink:
            deadline_s = time.monotonic() + PATIENCE_S
            while (sample := samples.try_recv()) is None:
                assert time.monotonic() < deadline_s
                sink.write(label_map(3))
                time.sleep(0.05)
            alive = [str(reply.ok.key_expr) for reply in tokens.get("@ros2_lv/7/**")]
        samples.undeclare()
    type_ = f"sensor_msgs::msg::dds_::Image_/{IMAGE}"
    assert str(sample.key_expr) == f"7/edgeperc/wide/net/labels/{type_}"
    image = deserialize(sample.payload.to_bytes(), "sensor_msgs/msg/Image")
    assert np.array_equal(image.data.reshape(30, 40), label_map(3).labels)
    number, time_ns, size, gid = struct.unpack("<qqB16s", sample.attachment.to_bytes())
    assert number >= 1
    assert abs(time_ns - time.time_ns()) < PATIENCE_S * 1e9
    assert (size, len(set(gid)) > 1) == (16, True)
    assert any(token.endswith("/0/0/NN/%/%edgeperc/daemon") for token in alive)
    labels = f"/MP/%/%edgeperc/daemon/%edgeperc%wide%net%labels/{type_}/::,5:,:,:,,"
    assert any(token.endswith(labels) for token in alive)


def test_who_comes_late_still_learns_the_names_of_the_classes():
    where = f"tcp/127.0.0.1:{free_port()}"
    names = "7/edgeperc/wide/net/label_info/**"
    with (
        Link(where, mode="router"),
        Link(where) as link,
        closing(Ros2(daemon=FakeDaemon(), backend="zenoh", domain_id=7, router=where)) as sink,
    ):
        for seq in range(3):
            sink.write(label_map(seq))
        until(lambda: sink._sending.sent == 3)
        # As rmw_zenoh subscribes to what is transient-local.
        late = declare_advanced_subscriber(
            link.session,
            names,
            history=HistoryConfig(detect_late_publishers=True, max_samples=1),
            recovery=RecoveryConfig(periodic_queries=None, heartbeat=True),
            subscriber_detection=True,
        )
        early = link.session.declare_subscriber(names)  # without history: it has to wait
        sample = until(late.try_recv)
        assert early.try_recv() is None
        assert late.try_recv() is None
        info = deserialize(sample.payload.to_bytes(), "vision_msgs/msg/LabelInfo")
        number, _, _, gid = struct.unpack("<qqB16s", sample.attachment.to_bytes())
        sink.write(replace(label_map(4), classes=("tree", "river", "moon")))
        changed, again = until(early.try_recv), until(late.try_recv)
        late.undeclare()
        early.undeclare()
    expected = label_map(3).classes
    assert [row.class_name for row in info.class_map] == list(expected)
    assert (number, len(gid)) == (1, 16)
    assert changed.payload.to_bytes() == again.payload.to_bytes()
    info = deserialize(changed.payload.to_bytes(), "vision_msgs/msg/LabelInfo")
    assert [row.class_name for row in info.class_map] == ["tree", "river", "moon"]


def test_who_was_there_before_learns_them_when_they_are_said():
    where = f"tcp/127.0.0.1:{free_port()}"
    with Link(where, mode="router"), Link(where) as link:
        reader = declare_advanced_subscriber(
            link.session,
            "7/edgeperc/wide/net/label_info/**",
            history=HistoryConfig(detect_late_publishers=True, max_samples=1),
        )
        with closing(Ros2(daemon=FakeDaemon(), backend="zenoh", domain_id=7, router=where)) as sink:
            sink.write(label_map(0))
            assert until(reader.try_recv)
            reader.undeclare()


def test_pictures_come_with_their_camera_info():
    where = f"tcp/127.0.0.1:{free_port()}"
    with Link(where, mode="router"), Link(where) as link:
        samples = link.session.declare_subscriber("7/edgeperc/wide/camera_info/**")
        options = {"backend": "zenoh", "domain_id": 7, "router": where, "image": True}
        with closing(Ros2(daemon=FakeDaemon(), **options)) as sink:
            picture = Frame(stamp=label_map(0).stamp, image=np.zeros((30, 40), np.uint8))
            sample = until(samples.try_recv, lambda: sink.take(picture))
        samples.undeclare()
    info = deserialize(sample.payload.to_bytes(), "sensor_msgs/msg/CameraInfo")
    assert (info.width, info.height, info.k[0]) == (40, 30, 0)


def test_no_router_and_routers_in_the_open_are_told():
    with pytest.raises(DeviceError, match="cannot reach"):
        Ros2(daemon=FakeDaemon(), backend="zenoh", router=f"tcp/127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match="everybody on the network"):
        Ros2(daemon=FakeDaemon(), backend="zenoh", router="tcp/10.9.8.7:7447")
