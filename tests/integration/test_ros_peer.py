"""Against genuine ROS 2, Kilted and Jazzy on Fast DDS: `make setup-ros` gets them."""

import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeperc.calibration.intrinsics import Intrinsics
from edgeperc.control import DaemonStatus
from edgeperc.packet import Frame, Stamp
from edgeperc.recording.reader import messages
from edgeperc.result import LabelMap, ModelRef
from edgeperc.ros.camera_info import Cameras
from edgeperc.ros.codec import deserialize, serialize, type_hash
from edgeperc.sinks.ros2 import Ros2
from tests.test_recorder import record
from tests.test_ros_messages import ITEMS

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
LABELS = np.random.default_rng(2).integers(0, 9, (37, 53), np.uint8)
LENS = Intrinsics(
    model="plumb_bob",
    width_px=53,
    height_px=37,
    matrix=(50.0, 0.0, 26.0, 0.0, 50.0, 18.0, 0.0, 0.0, 1.0),
    distortion=(0.25, -0.5),
)
pytestmark = pytest.mark.slow


@pytest.fixture(params=["kilted", "jazzy"])
def ros(request):
    """The interpreter of a release."""
    python = ROOT / f".venv-ros/{request.param}/bin/python"
    if not python.exists():
        pytest.skip("no ROS 2 here: make setup-ros")
    return python


class FakeDaemon:
    def status(self):
        return DaemonStatus(version="1", app="test", state="serving", uptime_s=1.0)


DOMAINS = itertools.count(81 + os.getpid() % 15)


@pytest.fixture
def domain():
    return next(DOMAINS)


def test_genuine_node_reads_what_we_write_without_ros(ros, domain):
    pytest.importorskip("cyclonedds")
    sink = Ros2(daemon=FakeDaemon(), backend="dds", domain_id=domain, image=True)
    sink._cameras = Cameras({"wide": LENS})
    done = threading.Event()

    def feed():
        while not done.wait(0.1):
            now = time.monotonic_ns()
            stamp = Stamp(source="wide", seq=0, start_ns=now, end_ns=now)
            model = ModelRef(name="net")
            sink.write(LabelMap(stamp=stamp, labels=LABELS, classes=("a",), model=model))
            sink.take(Frame(stamp=stamp, image=LABELS))

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        command = [ros, ROOT / "tests/ros_peer.py", str(domain), str(PATIENCE_S)]
        said = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=2 * PATIENCE_S
        )
    finally:
        done.set()
        feeder.join()
        sink.close()
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert ["daemon", "/edgeperc"] in told["nodes"]
    assert told["topics"]["/edgeperc/wide/net/labels"] == ["sensor_msgs/msg/Image"]
    assert told["topics"]["/edgeperc/wide/net/label_info"] == ["vision_msgs/msg/LabelInfo"]
    assert told["hashes"] == [type_hash("sensor_msgs/msg/Image")]
    assert told["health"] == ["edgeperc: test", "edgeperc: sink ros2"]
    for frame_id, width, height, data in told["images"]:
        assert (frame_id, width, height) == ("wide", 53, 37)
        assert base64.b64decode(data) == LABELS.tobytes()
    assert len(told["images"]) == 2
    k, d, p = list(LENS.matrix), list(LENS.distortion), list(LENS.projection)
    assert told["lens"] == [["wide", 53, 37, "plumb_bob", d, k, p]]


def test_genuine_types_read_a_recording(ros, tmp_path):
    path = tmp_path / "a.mcap"
    record(path, list(ITEMS.values()))
    sent = [(e.type, bytes(e.data)) for e in messages(path, lambda *_: True)]
    lines = [json.dumps([type_, base64.b64encode(data).decode()]) for type_, data in sent]
    said = subprocess.run(
        [ros, ROOT / "tests/ros_bytes.py"],
        input="\n".join(lines),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert said.returncode == 0, said.stderr
    told = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(told) == len(sent)
    known = set()
    for (type_, data), message in zip(sent, told, strict=True):
        if message is None:  # vision_msgs and event_camera_msgs, whose wheels there are not
            continue
        known.add(type_)
        anew = base64.b64decode(message["data"])  # in whose gaps may be anything
        assert serialize(deserialize(anew, type_), type_) == data
        if message["stamp"]:
            assert message["frame_id"] == "dvs"
    assert known == {
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CameraInfo",
        "geometry_msgs/msg/Vector3Stamped",
        "geometry_msgs/msg/PoseArray",
        "std_msgs/msg/String",
    }


def test_managed_node_of_rclpy_is_silent_until_activated_and_takes_parameters(ros, domain):
    version = subprocess.run(
        [ros, "-c", "import sys; print(*sys.version_info[:2])"],
        check=False,
        capture_output=True,
        text=True,
    )
    if version.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("the ROS 2 here is of another Python")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    said = subprocess.run(
        [ros, ROOT / "tests/ros_node.py", str(domain)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{site}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
    )
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert told["changed"] == [True, True]
    assert (told["before"], told["unasked"]) == (0, 0)
    assert told["labels"]
    assert told["set"]
    assert bytes.fromhex(told["data"]) == bytes([7] * 20)
    assert told["lens"] == [[5, 4, 0.0, ""]]
