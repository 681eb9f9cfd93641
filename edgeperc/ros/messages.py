"""Packets, results and the daemon's status as ROS 2 messages; `edgeperc.ros.joiner` is the inverse.

    for topic, message in to_ros(result, offset_ns, exact=True):
        publish(topic.name, topic.type, serialize(message, topic.type))

`header.stamp` is the capture time, the first photon (`Stamp.start_ns`) plus `offset_ns`, and
`frame_id` the sensor; so results carry the very stamp of the picture that they are about. For the
topics see `edgeperc.ros.topics`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.control import AppText, DaemonStatus
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.result import Detections, Instances, LabelMap, Result
from edgeperc.ros import mono
from edgeperc.ros.about import about
from edgeperc.ros.camera_info import CAMERA_INFO, Cameras
from edgeperc.ros.codec import make
from edgeperc.ros.diagnostics import diagnostics
from edgeperc.ros.topics import (
    DETECTIONS,
    DIAGNOSTICS,
    EVENT_PACKET,
    IMAGE,
    LABEL_INFO,
    POSES,
    STRING,
    VECTOR,
    Messages,
    Topic,
    prefix,
    time_message,
)

ENCODINGS = {
    ("u1", 2): "mono8",
    ("u1", 3): "rgb8",
    ("u2", 2): "mono16",
    ("f4", 2): "32FC1",
}
"""Kind of array and its dimensions -> the encoding of a sensor_msgs/Image."""
_NO_CAMERAS = Cameras()


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
        return [(Topic("/diagnostics", DIAGNOSTICS), diagnostics(item, offset_ns))]
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


def _header(stamp: Stamp, offset_ns: int) -> Any:
    return make(
        "std_msgs/msg/Header",
        stamp=time_message(stamp.start_ns + offset_ns),
        frame_id=stamp.source,
    )


def _image(header: Any, pixels: NDArray[Any]) -> Any:
    """sensor_msgs/Image of (H, W) uint8, uint16 or float32, or (H, W, 3) uint8 RGB."""
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    return make(
        IMAGE,
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=ENCODINGS[pixels.dtype.str[1:], pixels.ndim],
        is_bigendian=0,
        step=pixels.itemsize * int(np.prod(pixels.shape[1:])),
        data=little.reshape(-1).view(np.uint8),
    )


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
