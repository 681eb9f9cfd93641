"""Foxglove's own libraries read our recordings: `make setup-foxglove` gets them, node runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from edgeperc.calibration.intrinsics import Intrinsics
from edgeperc.packet import Frame, Packet
from edgeperc.recording.head import About
from edgeperc.recording.reader import messages, topics
from edgeperc.recording.recorder import Recorder
from edgeperc.result import Result
from edgeperc.ros.codec import deserialize
from edgeperc.ros.topics import time_of
from tests.test_recorder import ABOUT, frame, packet
from tests.test_ros_messages import ITEMS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def foxglove() -> list[str]:
    """The command that reads a file; skips where it cannot be run."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here")
    if not (ROOT / ".venv-foxglove/node_modules/@mcap/core").is_dir():
        pytest.skip("no libraries of Foxglove here: make setup-foxglove")
    return [node, str(ROOT / "tests/foxglove_reader.js")]


def read(command: list[str], path: Path) -> Any:
    packages = str(ROOT / ".venv-foxglove/node_modules")
    said = subprocess.run(
        [*command, path],
        env={**os.environ, "NODE_PATH": packages},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def digest(hash_: int, data: bytes) -> int:
    """FNV-1a, as the reader makes it."""
    return reduce(lambda so_far, byte: ((so_far ^ byte) * 16777619) & 0xFFFF_FFFF, data, hash_)


def expected(path: Path) -> dict[str, dict[str, Any]]:
    """Of each topic, what our own reader and the library rosbags say."""
    found: dict[str, dict[str, Any]] = {}
    for entry in messages(path, lambda *_: True):
        message = deserialize(bytes(entry.data), entry.type)
        topic = found.setdefault(
            entry.topic, {"type": entry.type, "count": 0, "hash": 2166136261, "logged": ""}
        )
        topic["count"] += 1
        topic["logged"] = str(entry.time_ns)
        if hasattr(message, "header"):
            seconds, nanoseconds = divmod(time_of(message.header), 10**9)
            topic["stamp"] = [seconds, nanoseconds]
            topic["frame_id"] = message.header.frame_id
        large = getattr(message, "events", getattr(message, "data", None))
        if isinstance(large, str):
            topic["text"] = large
        elif large is not None:
            topic["hash"] = digest(topic["hash"], large.tobytes())
            topic["size"] = [message.width, message.height]
        elif hasattr(message, "detections"):
            topic["boxes"] = [each.bbox.size_x for each in message.detections]
        elif hasattr(message, "k"):
            topic["k"] = message.k.tolist()
        elif hasattr(message, "class_map"):
            topic["classes"] = [row.class_name for row in message.class_map]
    return found


def test_foxglove_decodes_every_topic_to_the_last_byte(foxglove: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    lens = Intrinsics(
        model="plumb_bob",
        width_px=200,
        height_px=200,
        matrix=(150.0, 0.0, 99.5, 0.0, 151.0, 99.5, 0.0, 0.0, 1.0),
        distortion=(-0.3,),
    )
    about = About(values=ABOUT.values, files=ABOUT.files, intrinsics={"wide": lens})
    recorder = Recorder(path, about, wait=True)
    frames: list[Packet | Result] = [each for k in range(40) for each in (packet(k), frame(k))]
    for item in chain(frames, ITEMS.values()):
        recorder.put(item)
    recorder.close()
    assert recorder.error == ""
    told = read(foxglove, path)
    assert (told["profile"], told["library"].split()[0]) == ("ros2", "edgeperc")
    assert told["messages"] == told["streamed"] == recorder.status().messages
    assert told["complete"]
    assert told["topics"].keys() == topics(path).keys()
    assert told["topics"] == expected(path)
    assert told["topics"]["wide/camera_info"]["k"] == list(lens.matrix)
    assert told["topics"]["wide/image_raw"]["count"] == sum(isinstance(f, Frame) for f in frames)
    assert told["attachments"] == ["app.toml", "odd"]
    assert told["metadata"][0][1]["app"] == "test"
