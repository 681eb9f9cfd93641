"""Topics by their names and types, and times as ROS 2 writes them.

    topics_of("wide", "finder-2b")      # wide/finder_2b/labels, label_info, detections, ...

Topics are relative: `<sensor>/image_raw` with its `camera_info` and `<sensor>/events` for what a
sensor says, `<sensor>/<model>/labels`, `/detections`, `/instances`, `/map` for what is said about
it; letters that ROS does not allow in a name become `_`. Standard types only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgeperc.ros.camera_info import CAMERA_INFO
from edgeperc.ros.codec import make

IMAGE = "sensor_msgs/msg/Image"
EVENT_PACKET = "event_camera_msgs/msg/EventPacket"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
LABEL_INFO = "vision_msgs/msg/LabelInfo"
VECTOR = "geometry_msgs/msg/Vector3Stamped"
POSES = "geometry_msgs/msg/PoseArray"
STRING = "std_msgs/msg/String"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and its type. latched: worth sending only when it changes, and then kept."""

    name: str
    type: str
    latched: bool = False


Messages = list[tuple[Topic, Any]]


def topics_of(source: str, model: str = "") -> tuple[Topic, ...]:
    """All topics that a sensor, or with a name the results of a model about it, may have."""
    base = prefix(source, model)
    if not model:
        return (
            Topic(f"{base}/image_raw", IMAGE),
            Topic(f"{base}/camera_info", CAMERA_INFO),
            Topic(f"{base}/events", EVENT_PACKET),
            Topic(f"{base}/gaze", VECTOR),
            Topic(f"{base}/about", STRING),
        )
    return (
        Topic(f"{base}/labels", IMAGE),
        Topic(f"{base}/label_info", LABEL_INFO, latched=True),
        Topic(f"{base}/detections", DETECTIONS),
        Topic(f"{base}/instances", IMAGE),
        Topic(f"{base}/map", IMAGE),
        Topic(f"{base}/tracks", POSES),
        Topic(f"{base}/trail", POSES),
        Topic(f"{base}/gaze", VECTOR),
        Topic(f"{base}/about", STRING),
    )


def prefix(source: str, model: str = "") -> str:
    """What the topics of a sensor, or of a model's results about it, begin with."""
    return "/".join(_token(name) for name in (source, model) if name)


def time_of(header: Any) -> int:
    """The time of a std_msgs/Header in ns."""
    return int(header.stamp.sec) * _SECOND_NS + int(header.stamp.nanosec)


def time_message(time_ns: int) -> Any:
    """A builtin_interfaces/Time; what it cannot hold (from 2038 on) becomes its nearest."""
    seconds, nanoseconds = divmod(clipped(time_ns), _SECOND_NS)
    return make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def clipped(time_ns: int) -> int:
    """The nearest time that a builtin_interfaces/Time can hold."""
    return min(max(time_ns, -(1 << 31) * _SECOND_NS), (1 << 31) * _SECOND_NS - 1)


def _token(name: str) -> str:
    """A name as a part of a topic's: letters, digits and `_`, not a digit first."""
    token = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "unnamed"
    return f"_{token}" if token[0].isdigit() else token
