"""Results to ROS 2, with a sourced ROS or without any.

    [[sinks]]
    kind = "ros2"           # /edgeperc/<sensor>/<model>/labels, .../label_info, /diagnostics, ...

What a message says is decided in `edgeperc.ros.messages`; here is which are sent, and by which way:
`rclpy` where it can be imported, a DDS participant of our own elsewhere. Threads: `write` and
`take` only put into a mailbox; one thread makes messages and sends them. docs/ros2.md has it all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2

from edgeperc.calibration.intrinsics import intrinsics_of
from edgeperc.config import Positive
from edgeperc.control import Daemon
from edgeperc.errors import ConfigError
from edgeperc.packet import Frame, Packet
from edgeperc.plan import Plan
from edgeperc.recording.clocks import recorded_clocks
from edgeperc.result import LabelMap, Result
from edgeperc.ros.camera_info import Cameras
from edgeperc.ros.codec import make, serialize
from edgeperc.ros.messages import to_ros
from edgeperc.ros.topics import IMAGE, Topic
from edgeperc.ros.wall import Wall
from edgeperc.sinks.ros2_topics import KEPT, RosTopic, Wire, check_namespace, check_node
from edgeperc.sinks.sending import Sending

Backend = Literal["auto", "rclpy", "dds", "zenoh"]
COMPRESSED = "sensor_msgs/msg/CompressedImage"
_FASTEST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class Ros2:
    """Sink that publishes ROS 2 messages.

    namespace: what topics begin with. node: our node's name. domain_id: as ROS_DOMAIN_ID; left out,
    rclpy's own choice, else 0. image: also the sensors' pictures, each with its camera_info.
    events: also their events. compressed: also label maps as PNG, for people. frame_ids: sensor ->
    frame of `header.frame_id`, the sensor's name if not said. depth: messages that wait for a slow
    reader. best_effort: do not send again what a reader lost; such topics cannot be read reliably.
    lifecycle: a managed node, silent until it is activated; rclpy only. insecure: reach other
    machines, without encryption or passwords; rclpy reaches what ROS is configured to. router: of
    zenoh.
    Raises ConfigError if there is no way to ROS 2.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        plan: Plan | None = None,
        backend: Backend = "auto",
        namespace: str = "/edgeperc",
        node: str = "daemon",
        domain_id: int | None = None,
        image: bool = False,
        events: bool = False,
        compressed: bool = False,
        frame_ids: Mapping[str, str] | None = None,
        depth: Positive = KEPT,
        best_effort: bool = False,
        lifecycle: bool = False,
        insecure: bool = False,
        router: str = "tcp/127.0.0.1:7447",
    ) -> None:
        self._daemon = daemon
        self._namespace = check_namespace(namespace)
        self._frame_ids = dict(frame_ids or {})
        self._depth, self._best_effort = depth, best_effort
        self._switches = {"image": image, "events": events, "compressed": compressed}
        self._classes: dict[str, Any] = {}
        self._wall, self._cameras = Wall(), Cameras()
        if plan:
            self.adapt(plan, ())
        self.backend = choose(backend)
        if lifecycle and self.backend != "rclpy":
            raise ConfigError(
                f"ros2 sink: lifecycle needs the backend rclpy, this is {self.backend}",
                hint="source ROS 2 first, or leave lifecycle out",
            )
        self._wire = _open(
            self.backend,
            self._namespace or "/",
            check_node(node),
            domain_id=domain_id,
            insecure=insecure,
            lifecycle=lifecycle,
            switches=self._switches,
            router=router,
        )
        self.where = f"ros2 topic list | grep {namespace}"
        self._sending: Sending[Packet | Result] = Sending(
            self._send, name="ros2", tick=self._diagnose
        )
        self._sending.start()

    def write(self, result: Result) -> None:
        """Let a result be published; never blocks. Raises what the wire broke of."""
        self._sending.put((result.stamp.source, result.model.name), result)

    def take(self, packet: Packet) -> None:
        """Let a picture or events be published, if they are asked for; never blocks."""
        if self._switches["image" if isinstance(packet, Frame) else "events"]:
            self._sending.put(packet.stamp.source, packet)

    def adapt(self, plan: Plan, trackers: Sequence[Any]) -> None:
        """See AppSink: the same node speaks of what runs from now on."""
        self._cameras = Cameras(intrinsics_of(plan.rig, plan.rig_path))
        self._wall.recorded = recorded_clocks(plan.rig)

    def close(self) -> None:
        """Send what waits and leave; may be called twice."""
        if self._sending.close():
            self._wire.close()

    @property
    def lost(self) -> int:
        """Results and packets that were overtaken by newer ones before they were sent."""
        return self._sending.lost

    def _send(self, item: Packet | Result) -> None:
        messages = to_ros(item, self._wall.offset_ns(item.stamp), cameras=self._cameras)
        if isinstance(item, LabelMap) and self._switches["compressed"]:
            messages.append(_compressed(item, messages[0]))
        for topic, message in messages:
            message.header.frame_id = self._frame_ids.get(item.stamp.source, item.stamp.source)
            if not (topic.latched and self._is_old(topic, message)):
                self._publish(topic, message)

    def _is_old(self, topic: Topic, info: Any) -> bool:
        """Whether a latched message says what is kept already, whatever its stamp."""
        classes = [(row.class_id, row.class_name) for row in info.class_map]
        if self._classes.get(topic.name) == classes:
            return True
        self._classes[topic.name] = classes
        return False

    def _diagnose(self) -> None:
        """Publish how the daemon is, and this sink."""
        for topic, message in to_ros(self._daemon.status(), self._wall.host_ns):
            values = {"backend": self.backend, "sent": self._sending.sent, "lost": self.lost}
            message.status.append(
                make(
                    "diagnostic_msgs/msg/DiagnosticStatus",
                    level=0,
                    name="edgeperc: sink ros2",
                    message="publishing",
                    hardware_id="",
                    values=[
                        make("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
                        for key, value in values.items()
                    ],
                )
            )
            self._publish(topic, message)

    def _publish(self, topic: Topic, message: Any) -> None:
        name = topic.name if topic.name.startswith("/") else f"{self._namespace}/{topic.name}"
        full = RosTopic(
            name,
            topic.type,
            latched=topic.latched,
            depth=1 if topic.latched else self._depth,
            best_effort=self._best_effort and not topic.latched,
        )
        self._wire.publish(full, serialize(message, topic.type))


def choose(backend: Backend) -> Literal["rclpy", "dds", "zenoh"]:
    """The backend that is meant. Raises ConfigError where `auto` finds none."""
    if backend != "auto":
        return backend
    if importlib.util.find_spec("rclpy"):
        return "rclpy"
    if importlib.util.find_spec("cyclonedds"):
        return "dds"
    raise ConfigError(
        "ros2 sink: neither rclpy nor cyclonedds is installed",
        hint="source ROS 2 before `edgeperc serve`, or pip install 'edgeperc[dds]'",
    )


def _open(  # what differs between ways is said here once
    backend: str,
    namespace: str,
    node: str,
    *,
    domain_id: int | None,
    insecure: bool,
    lifecycle: bool,
    switches: dict[str, bool],
    router: str,
) -> Wire:
    try:
        if backend == "rclpy":
            from edgeperc.sinks.ros2_rclpy import Rclpy

            return Rclpy(
                namespace, node, domain_id=domain_id, lifecycle=lifecycle, switches=switches
            )
        if backend == "zenoh":
            from edgeperc.sinks.ros2_zenoh import Zenoh

            return Zenoh(
                namespace, node, domain_id=domain_id or 0, router=router, insecure=insecure
            )
        from edgeperc.sinks.ros2_dds import Dds

        return Dds(namespace, node, domain_id=domain_id or 0, insecure=insecure)
    except ModuleNotFoundError as error:
        hint = "source ROS 2 before `edgeperc serve`"
        if backend != "rclpy":
            hint = f"pip install 'edgeperc[{backend}]'"
        raise ConfigError(
            f"ros2 sink: backend {backend} needs {error.name}, which is not installed", hint=hint
        ) from error


def _compressed(result: LabelMap, labels: tuple[Topic, Any]) -> tuple[Topic, Any]:
    """Label map as `labels/compressed`, in the words of image_transport."""
    topic, message = labels
    assert topic.type == IMAGE
    _, png = cv2.imencode(".png", result.labels, _FASTEST_PNG)
    data = png.reshape(-1)
    return Topic(f"{topic.name}/compressed", COMPRESSED), make(
        COMPRESSED, header=message.header, format="mono8; png compressed mono8", data=data
    )
