"""Packets, results and the daemon's status as ROS 2 messages, and back.

    for topic, message in to_ros(result, offset_ns, exact=True):
        publish(topic.name, topic.type, serialize(message, topic.type))

    joiner = Joiner(offset_ns)                  # on the other side, or of a recording
    item = joiner.put(name, type_, message)     # the very same result, once all of it is there

Topics are relative: `<sensor>/image_raw` with its `camera_info` and `<sensor>/events` for what a
sensor says, `<sensor>/<model>/labels`, `/detections`, `/instances`, `/map` for what is said about
it; letters that ROS does not allow in a name become `_`. `header.stamp` is the capture time, the
first photon (`Stamp.start_ns`) plus `offset_ns`, and `frame_id` the sensor; so results carry the
very stamp of the picture that they are about. Standard types only, see `topics_of`.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.control import AppText, DaemonStatus
from edgeperc.drivers.formats.packets import Columns
from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.result import Detections, Instances, LabelMap, ModelRef, Result
from edgeperc.ros import mono
from edgeperc.ros.about import About, about, read, rebuild
from edgeperc.ros.camera_info import CAMERA_INFO, Cameras
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
_PARTS = {
    "Frame": ("image_raw", "image"),
    "Events": ("events", ""),
    "LabelMap": ("labels", "labels"),
    "SearchMap": ("map", "intensity"),
}
"""What the topic of an item's large array ends with, and the array's name."""
_NO_CAMERAS = Cameras()
_PENDING = 256
"""Items whose parts a joiner waits for at most."""


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


def to_ros(
    item: Packet | Result | AppText | DaemonStatus,
    offset_ns: int,
    *,
    exact: bool = False,
    cameras: Cameras | None = None,
) -> Messages:
    """The messages that say an item, in the order in which they belong.

    offset_ns: wall clock minus edgeperc's clock. exact: the first message is `.../about`, with
    which a `Joiner` gets the very same packet or result back. cameras: what is known of the
    sensors' lenses. Raises DataError for an event camera of more than 32,768 rows.
    """
    if isinstance(item, AppText):
        return [(Topic("app", STRING, latched=True), make(STRING, data=item.toml))]
    if isinstance(item, DaemonStatus):
        return [(Topic("/diagnostics", DIAGNOSTICS), _diagnostics(item, offset_ns))]
    base = prefix(item.stamp.source, "" if isinstance(item, (Frame, Events)) else item.model.name)
    header = _header(item.stamp, offset_ns)
    times_us: tuple[int, ...] = ()
    if isinstance(item, Frame):
        large = [(Topic(f"{base}/image_raw", IMAGE), _image(header, item.image))]
        height_px, width_px = item.image.shape[:2]
        info = (cameras or _NO_CAMERAS).message(header, item.stamp.source, (width_px, height_px))
        small = [(Topic(f"{base}/camera_info", CAMERA_INFO), info), *_gaze(base, header, item)]
    elif isinstance(item, Events):
        large, times_us = _events(base, header, item, offset_ns)
        small = []
    elif isinstance(item, LabelMap):
        large = [(Topic(f"{base}/labels", IMAGE), _image(header, item.labels))]
        small = [_label_info(base, header, item.classes)] if item.classes else []
    elif isinstance(item, Detections):
        large, small = [], [(Topic(f"{base}/detections", DETECTIONS), _detections(header, item))]
        small += _gaze(base, header, item)
    elif isinstance(item, Instances):
        large = []
        small = [
            (Topic(f"{base}/instances", IMAGE), _image(header, _instance_numbers(item))),
            (Topic(f"{base}/detections", DETECTIONS), _objects(header, item)),
        ]
    else:
        large = [(Topic(f"{base}/map", IMAGE), _image(header, item.intensity))]
        small = [
            (Topic(f"{base}/tracks", POSES), _poses(header, item.tracks)),
            (Topic(f"{base}/trail", POSES), _poses(header, item.trail)),
        ]
    if exact:
        line = about(item, parts=len(large), times_us=times_us).decode()
        small.insert(0, (Topic(f"{base}/about", STRING), make(STRING, data=line)))
        return [*small[:1], *large, *small[1:]]
    return [*large, *small]


def from_ros(topic: str, type: str, message: Any, offset_ns: int) -> Packet | Result | None:
    """What one message says alone; None if that is no packet or result.

    A message has no number, only one time, and of a model no more than the name that its topic
    has; `Joiner` knows it all. topic: with `<sensor>/<model>` at its end or `<sensor>`. Raises
    DataError.
    """
    *_, model, kind = ("", *topic.strip("/").split("/"))
    if type == EVENT_PACKET:
        time_base_us = (message.time_base - offset_ns) // 1000
        columns = _columns(message, time_base_us)
        start_ns = time_of(message.header) - offset_ns
        end_ns = int(columns.t[-1]) * 1000 if columns.t.size else start_ns
        stamp = Stamp(source=_source(message), seq=message.seq, start_ns=start_ns, end_ns=end_ns)
        return Events(
            stamp=stamp, **columns._asdict(), width_px=message.width, height_px=message.height
        )
    if type not in (IMAGE, DETECTIONS):
        return None
    time_ns = time_of(message.header) - offset_ns
    stamp = Stamp(source=_source(message), seq=0, start_ns=time_ns, end_ns=time_ns)
    if type == DETECTIONS:
        return _from_detections(stamp, ModelRef(name=model), message)
    if kind == "labels" and message.encoding == "mono8":
        labels = _pixels(message)
        return LabelMap(stamp=stamp, labels=labels, classes=(), model=ModelRef(name=model))
    if message.encoding in ("mono8", "rgb8"):
        return Frame(stamp=stamp, image=_pixels(message))
    return None


@dataclass
class _Item:
    """An item whose parts are yet to come."""

    line: About
    messages: list[Any] = field(default_factory=list)


class Joiner:
    """Puts packets and results together from the messages of `to_ros(..., exact=True)`.

    offset_ns: as it was given there. Messages that none of its items needs are passed over.
    """

    def __init__(self, offset_ns: int) -> None:
        self._offset_ns = offset_ns
        self._pending: OrderedDict[tuple[str, int], _Item] = OrderedDict()

    def wants(self, topic: str, type: str) -> bool:
        """Whether a message of this topic may be a part of an item."""
        kind = topic.rpartition("/")[2]
        if type == IMAGE:
            return kind in ("image_raw", "labels", "map")
        return type == EVENT_PACKET or (type == STRING and kind == "about")

    def put(self, topic: str, type: str, message: Any) -> Packet | Result | None:
        """Take the next message; the item that it completes, or None. Raises DataError."""
        if not self.wants(topic, type):
            return None
        if type == STRING:
            return self._announce(topic, _Item(read(message.data)))
        key = topic, time_of(message.header)
        waiting = self._pending.get(key)
        if waiting is None:
            return None
        waiting.messages.append(message)
        if len(waiting.messages) < waiting.line.parts:
            return None
        del self._pending[key]
        return _joined(waiting)

    def _announce(self, topic: str, item: _Item) -> Packet | Result | None:
        if item.line.parts == 0:
            return _joined(item)
        if item.line.kind not in _PARTS:
            raise DataError(f"a recorded {item.line.kind} has parts")
        part = f"{topic.rpartition('/')[0]}/{_PARTS[item.line.kind][0]}"
        self._pending[part, _clip(item.line.stamp.start_ns + self._offset_ns)] = item
        if len(self._pending) > _PENDING:
            self._pending.popitem(last=False)
        return None


def _joined(item: _Item) -> Packet | Result:
    line = item.line
    large: dict[str, NDArray[Any]] = {}
    if line.kind == "Events":
        if len(line.times_us) != len(item.messages):
            raise DataError("a recorded packet of events lacks times")
        pieces = [
            _columns(message, time_us)
            for message, time_us in zip(item.messages, line.times_us, strict=True)
        ]
        for name, columns in zip("txyp", zip(*pieces, strict=True), strict=True):
            large[name] = columns[0] if len(columns) == 1 else np.concatenate(columns)
    elif item.messages:
        large[_PARTS[line.kind][1]] = _pixels(item.messages[0])
    return rebuild(line, large)


def time_of(header: Any) -> int:
    """The time of a std_msgs/Header in ns."""
    return int(header.stamp.sec) * _SECOND_NS + int(header.stamp.nanosec)


def time_message(time_ns: int) -> Any:
    """A builtin_interfaces/Time; what it cannot hold (from 2038 on) becomes its nearest."""
    seconds, nanoseconds = divmod(_clip(time_ns), _SECOND_NS)
    return make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def _clip(time_ns: int) -> int:
    return min(max(time_ns, -(1 << 31) * _SECOND_NS), (1 << 31) * _SECOND_NS - 1)


def _token(name: str) -> str:
    """A name as a part of a topic's: letters, digits and `_`, not a digit first."""
    token = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "unnamed"
    return f"_{token}" if token[0].isdigit() else token


def _header(stamp: Stamp, offset_ns: int) -> Any:
    return make(
        "std_msgs/msg/Header",
        stamp=time_message(stamp.start_ns + offset_ns),
        frame_id=stamp.source,
    )


def _source(message: Any) -> str:
    return str(message.header.frame_id)


_ENCODINGS = {
    ("u1", 2): "mono8",
    ("u1", 3): "rgb8",
    ("u2", 2): "mono16",
    ("f4", 2): "32FC1",
}


def _image(header: Any, pixels: NDArray[Any]) -> Any:
    """sensor_msgs/Image of (H, W) uint8, uint16 or float32, or (H, W, 3) uint8 RGB."""
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    return make(
        IMAGE,
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=_ENCODINGS[pixels.dtype.str[1:], pixels.ndim],
        is_bigendian=0,
        step=pixels.itemsize * int(np.prod(pixels.shape[1:])),
        data=little.reshape(-1).view(np.uint8),
    )


def _pixels(message: Any) -> NDArray[Any]:
    """Inverse of `_image`; a read-only view. Raises DataError if sizes do not fit."""
    kinds = {encoding: (dtype, ndim) for (dtype, ndim), encoding in _ENCODINGS.items()}
    dtype, ndim = kinds.get(message.encoding, ("", 0))
    if not ndim:
        raise DataError(f"pictures of encoding '{message.encoding}' are not read")
    shape = (message.height, message.width, 3)[:ndim]
    data = np.asarray(message.data, np.uint8)
    if data.size != int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize:
        raise DataError(f"a picture of {message.width} × {message.height} has {data.size:,} bytes")
    pixels = data.view("<" + dtype).reshape(shape)
    pixels = pixels.astype(dtype, copy=False)
    pixels.flags.writeable = False
    return pixels


def _gaze(base: str, header: Any, item: Frame | Detections) -> Messages:
    """Where the camera looked: x right (pan), y up (tilt), in rad."""
    if item.gaze is None:
        return []
    vector = make("geometry_msgs/msg/Vector3", x=item.gaze.pan_rad, y=item.gaze.tilt_rad, z=0.0)
    return [(Topic(f"{base}/gaze", VECTOR), make(VECTOR, header=header, vector=vector))]


def _events(
    base: str, header: Any, item: Events, offset_ns: int
) -> tuple[Messages, tuple[int, ...]]:
    topic = Topic(f"{base}/events", EVENT_PACKET)
    found: Messages = []
    times_us = []
    for start, stop in mono.pieces(item):
        time_us = int(item.t[start]) if stop > start else 0
        times_us.append(time_us)
        message = make(
            EVENT_PACKET,
            header=header,
            height=item.height_px,
            width=item.width_px,
            seq=item.stamp.seq % (1 << 64),
            time_base=min(max(time_us * 1000 + offset_ns, 0), (1 << 64) - 1),
            encoding="mono",
            is_bigendian=False,
            events=mono.encode(item, start, stop),
        )
        found.append((topic, message))
    return found, tuple(times_us)


def _columns(message: Any, time_us: int) -> Columns:
    if message.encoding != "mono" or message.is_bigendian:
        raise DataError(f"event packets of encoding '{message.encoding}' are not read here")
    return mono.decode(np.asarray(message.events, np.uint8), time_us=time_us)


def _label_info(base: str, header: Any, classes: tuple[str, ...]) -> tuple[Topic, Any]:
    rows = [
        make("vision_msgs/msg/VisionClass", class_id=number, class_name=name)
        for number, name in enumerate(classes)
    ]
    message = make(LABEL_INFO, header=header, class_map=rows, threshold=0.0)
    return Topic(f"{base}/label_info", LABEL_INFO, latched=True), message


def _detections(header: Any, item: Detections) -> Any:
    names = [item.classes[k] if 0 <= k < len(item.classes) else str(k) for k in item.class_ids]
    rows = zip(names, item.scores.tolist(), item.boxes.tolist(), strict=True)
    found = [_detection(header, name, score, box, "") for name, score, box in rows]
    return make(DETECTIONS, header=header, detections=found)


def _objects(header: Any, item: Instances) -> Any:
    names = item.classes or ("object",) * len(item.ids)
    rows = zip(names, item.scores.tolist(), item.boxes.tolist(), item.ids.tolist(), strict=False)
    found = [_detection(header, name, score, box, str(id_)) for name, score, box, id_ in rows]
    return make(DETECTIONS, header=header, detections=found)


def _detection(header: Any, name: str, score: float, box: list[float], id_: str) -> Any:
    x0, y0, x1, y1 = box
    point = make("vision_msgs/msg/Point2D", x=(x0 + x1) / 2, y=(y0 + y1) / 2)
    hypothesis = make("vision_msgs/msg/ObjectHypothesis", class_id=name, score=score)
    pose = make(
        "geometry_msgs/msg/PoseWithCovariance", pose=_pose(0.0, 0.0), covariance=np.zeros(36)
    )
    return make(
        "vision_msgs/msg/Detection2D",
        header=header,
        results=[
            make("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=pose)
        ],
        bbox=make(
            "vision_msgs/msg/BoundingBox2D",
            center=make("vision_msgs/msg/Pose2D", position=point, theta=0.0),
            size_x=x1 - x0,
            size_y=y1 - y0,
        ),
        id=id_,
    )


def _from_detections(stamp: Stamp, model: ModelRef, message: Any) -> Detections:
    """Boxes of a Detection2DArray; classes are numbered in the order in which they come."""
    boxes, scores, names = [], [], []
    for each in message.detections:
        x, y = each.bbox.center.position.x, each.bbox.center.position.y
        w, h = each.bbox.size_x / 2, each.bbox.size_y / 2
        boxes.append((x - w, y - h, x + w, y + h))
        best = max(each.results, key=lambda result: result.hypothesis.score, default=None)
        scores.append(best.hypothesis.score if best else 0.0)
        names.append(best.hypothesis.class_id if best else "")
    classes = tuple(dict.fromkeys(names))
    return Detections(
        stamp=stamp,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        class_ids=np.array([classes.index(name) for name in names], np.int64),
        classes=classes,
        model=model,
    )


def _instance_numbers(item: Instances) -> NDArray[np.uint16]:
    """The id of the object at each pixel, 0 where is none; later ones lie above."""
    width_px, height_px = item.picture_px
    picture = np.zeros((height_px, width_px), np.uint16)
    for object_id, mask in zip(item.ids.tolist(), item.masks, strict=True):
        if mask.height_px == height_px and mask.width_px == width_px:
            picture[masks.decode(mask)] = object_id & 0xFFFF
    return picture


def _poses(header: Any, rows: NDArray[np.float32]) -> Any:
    """geometry_msgs/PoseArray: x pan, y tilt in rad, and z the third column if there is one."""
    columns = rows[:, :3].tolist()
    return make(POSES, header=header, poses=[_pose(*row) for row in columns])


def _pose(x: float, y: float, z: float = 0.0) -> Any:
    return make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )


_LEVELS = {"OK": 0, "WARN": 1, "ERROR": 2, "STALE": 3}


def _diagnostics(status: DaemonStatus, offset_ns: int) -> Any:
    """diagnostic_msgs/DiagnosticArray, stamped now: the daemon, sensors, pipelines, processes."""
    level = {"serving": "OK", "degraded": "WARN"}.get(status.state, "STALE")
    rows = [
        _diagnostic(
            f"edgeperc: {status.app}",
            level,
            status.errors[0] if status.errors else status.state,
            {"version": status.version, "uptime_s": f"{status.uptime_s:.0f}"}
            | {f"note {k + 1}": note for k, note in enumerate(status.notes)},
        )
    ]
    for sensor in status.sensors:
        broken = sensor.state in ("lost", "failed")
        values: dict[str, Any] = {
            "packets": sensor.packets,
            "events": sensor.events,
            "frames": sensor.frames,
        }
        values["dropped"] = sensor.counters.dropped
        rows.append(
            _diagnostic(
                f"edgeperc: sensor {sensor.name}",
                "ERROR" if broken else "OK",
                sensor.error or sensor.state,
                values,
            )
        )
    for pipeline in status.pipelines:
        meter = pipeline.meter
        values = {
            "model": pipeline.model.name,
            "provider": pipeline.model.provider,
            "results": meter.results,
            "rate_hz": f"{meter.rate_hz:.2f}",
            "dropped": meter.dropped,
            "failed": meter.failed,
        }
        for stage in meter.stages:
            values[f"{stage.stage}_p50_ms"] = f"{stage.p50_ms:.2f}"
            values[f"{stage.stage}_p99_ms"] = f"{stage.p99_ms:.2f}"
        message = pipeline.error or pipeline.note or "running"
        level = "ERROR" if pipeline.error else "OK" if meter.results else "STALE"
        rows.append(_diagnostic(f"edgeperc: pipeline {pipeline.name}", level, message, values))
    for worker in status.workers:
        values = {"pid": worker.pid, "restarts": worker.restarts, "rss_bytes": worker.rss_bytes}
        values["beat_s"] = f"{worker.beat_s:.1f}"
        level = "OK" if worker.state in ("running", "ended") else "WARN"
        level = "ERROR" if worker.state == "failed" else level
        message = worker.error or worker.state
        rows.append(_diagnostic(f"edgeperc: process {worker.name}", level, message, values))
    header = make(
        "std_msgs/msg/Header",
        stamp=time_message(time.monotonic_ns() + offset_ns),
        frame_id="",
    )
    return make(DIAGNOSTICS, header=header, status=rows)


def _diagnostic(name: str, level: str, message: str, values: dict[str, Any]) -> Any:
    rows = [
        make("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
        for key, value in values.items()
    ]
    return make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=_LEVELS[level],
        name=name,
        message=message,
        hardware_id="",
        values=rows,
    )
