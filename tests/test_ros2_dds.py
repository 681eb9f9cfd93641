import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgeperc.calibration.intrinsics import Intrinsics
from edgeperc.control import DaemonStatus
from edgeperc.errors import ConfigError
from edgeperc.packet import Frame, Stamp
from edgeperc.result import Detections, LabelMap, ModelRef
from edgeperc.ros.camera_info import Cameras
from edgeperc.ros.codec import make, serialize, type_hash
from edgeperc.ros.messages import to_ros
from edgeperc.sinks.ros2 import Ros2
from edgeperc.sinks.ros2_topics import RosTopic

pytest.importorskip("cyclonedds")
from edgeperc.sinks.ros2_dds import Dds

READER = Path(__file__).parent / "dds_reader.py"
PATIENCE_S = 20.0
DOMAINS = itertools.count(20 + os.getpid() % 60)
MODEL = ModelRef(name="net")
LABELS = np.random.default_rng(1).integers(0, 5, (37, 53), np.uint8)


class FakeDaemon:
    def status(self):
        return DaemonStatus(version="1", app="test", state="serving", uptime_s=1.0)


def stamp(seq=0):
    now = time.monotonic_ns()
    return Stamp(source="wide", seq=seq, start_ns=now - 1000, end_ns=now)


def label_map(seq=0):
    return LabelMap(stamp=stamp(seq), labels=LABELS, classes=("road", "car"), model=MODEL)


LENS = Intrinsics(
    model="plumb_bob",
    width_px=53,
    height_px=37,
    matrix=(50.0, 0.0, 26.0, 0.0, 50.0, 18.0, 0.0, 0.0, 1.0),
    distortion=(0.25,),
)


def picture(seq=0):
    return Frame(stamp=stamp(seq), image=LABELS)


def boxes():
    return Detections(
        stamp=stamp(),
        boxes=np.array([[10, 20, 30, 60]], np.float32),
        scores=np.array([0.5], np.float32),
        class_ids=np.array([0]),
        classes=("car",),
        model=MODEL,
    )


@contextmanager
def reader(domain_id, what):
    """Lines of JSON that the foreign program prints, as they come; ended at the end."""
    command = [sys.executable, READER, str(domain_id), what, str(PATIENCE_S)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = []

    def follow():
        for line in iter(process.stdout.readline, ""):
            seen.append(json.loads(line))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        process.kill()
        process.wait()
        thread.join(10)


def until(condition, each=lambda: None):
    """Do `each` again and again until the condition holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        if condition():
            return
        each()
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_reader_of_any_reliability_gets_the_pixels_and_the_time_of_capture():
    domain = next(DOMAINS)
    sink = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain, frame_ids={"wide": "lens"})
    with reader(domain, "labels") as reliable, reader(domain, "labels-best-effort") as lossy:
        until(lambda: reliable and lossy, lambda: sink.write(label_map()))
        wall_ns = time.time_ns()
    sink.close()
    for seen in (reliable[-1], lossy[-1]):
        assert base64.b64decode(seen["data"]) == LABELS.tobytes()
        assert seen["size"] == [53, 37, 53]
        assert (seen["encoding"], seen["frame_id"]) == ("mono8", "lens")
        seconds, nanoseconds = seen["stamp"]
        assert abs(wall_ns - seconds * 10**9 - nanoseconds) < PATIENCE_S * 1e9


def test_who_comes_late_still_learns_the_names_of_the_classes():
    domain = next(DOMAINS)
    sink = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain)
    for seq in range(3):
        sink.write(label_map(seq))
    until(lambda: sink._sending.sent == 3)
    with reader(domain, "info") as late:
        until(lambda: late)
    sink.close()
    assert late == [{"classes": [[0, "road"], [1, "car"]]}]


def test_pictures_come_with_their_camera_info():
    domain = next(DOMAINS)
    sink = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain, image=True)
    sink._cameras = Cameras({"wide": LENS})
    with reader(domain, "pictures") as pictures, reader(domain, "camera-info") as infos:

        def both():
            return {tuple(p["stamp"]) for p in pictures} & {tuple(i["stamp"]) for i in infos}

        until(both, lambda: sink.take(picture()))
    sink.close()
    assert (infos[-1]["size"], infos[-1]["model"]) == ([53, 37], "plumb_bob")
    assert infos[-1]["k"] == list(LENS.matrix)
    assert infos[-1]["p"] == list(LENS.projection)


def test_boxes_and_diagnostics():
    domain = next(DOMAINS)
    sink = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain)
    with reader(domain, "detections") as found, reader(domain, "diagnostics") as health:
        until(lambda: found and health, lambda: sink.write(boxes()))
    sink.close()
    assert found[-1] == {"boxes": [[20, 40, 20, 40]], "classes": ["car"]}
    assert health[-1]["names"] == ["edgeperc: test", "edgeperc: sink ros2"]


def test_ros_programs_find_a_node_with_its_topics_and_the_types_hashes():
    domain = next(DOMAINS)
    sink = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain)
    sink.write(label_map())
    until(lambda: sink._sending.sent)
    with reader(domain, "nodes") as told, reader(domain, "endpoints") as endpoints:
        until(lambda: told and len(told[-1]["nodes"][0][2]) == 3)
        until(lambda: len([e for e in endpoints if e["topic"].startswith("rt/")]) >= 3)
    sink.close()
    ours = {each["topic"]: each for each in endpoints if each["topic"].startswith("rt/")}
    namespace, node, gids = told[-1]["nodes"][0]
    assert (namespace, node) == ("/edgeperc", "daemon")
    assert sorted(gids) == sorted(each["gid"] for each in ours.values())
    labels = ours["rt/edgeperc/wide/net/labels"]
    assert labels["type"] == "sensor_msgs::msg::dds_::Image_"
    assert labels["user_data"] == f"typehash={type_hash('sensor_msgs/msg/Image')};"
    assert labels["reliable"]


@pytest.mark.parametrize(
    "kind", ["Image_", "CameraInfo_", "LabelInfo_", "Detection2DArray_", "DiagnosticArray_"]
)
def test_bytes_are_those_that_the_dds_library_would_make(kind):
    import importlib.util

    spec = importlib.util.spec_from_file_location("dds_reader", READER)
    foreign = importlib.util.module_from_spec(spec)
    sys.modules["dds_reader"] = foreign
    spec.loader.exec_module(foreign)
    said = (label_map(), boxes(), FakeDaemon().status(), picture())
    messages = [each for item in said for each in to_ros(item, 0, cameras=Cameras({"wide": LENS}))]
    types = {f"{topic.type.rpartition('/')[2]}_": (topic.type, m) for topic, m in messages}
    type_, message = types[kind]
    ours = serialize(message, type_)
    declared = getattr(foreign, kind)
    assert declared.deserialize(ours).serialize(use_version_2=False) == ours


def test_writes_go_on_without_anybody_who_reads():
    wire = Dds("/edgeperc", "daemon", domain_id=next(DOMAINS))
    topic = RosTopic("/edgeperc/said", "std_msgs/msg/String")
    for _ in range(50):
        wire.publish(
            topic, serialize(make("std_msgs/msg/String", data="still here"), "std_msgs/msg/String")
        )
    wire.close()
    wire.close()


def test_one_sink_that_leaves_takes_no_other_with_it():
    domain = next(DOMAINS)
    old = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain, node="old")
    with pytest.raises(ConfigError, match="another `insecure`"):
        Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain, insecure=True)
    new = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain)
    old.close()
    with reader(domain, "labels") as seen:
        until(lambda: seen, lambda: new.write(label_map()))
    new.close()
    again = Dds("/edgeperc", "daemon", domain_id=domain, insecure=True)
    again.close()


def test_a_domain_that_ros_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="domain_id = 233"):
        Ros2(daemon=FakeDaemon(), backend="dds", domain_id=233)
