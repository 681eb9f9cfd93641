"""ROS 2 by a sourced ROS: a node of rclpy, on whatever middleware the user runs.

    wire = Rclpy("/edgeperc", "daemon")

The node's parameters `image`, `events` and `compressed` switch what is published while it runs:
`ros2 param set /edgeperc/daemon image true`. A managed node (lifecycle) is silent until it is
activated: `ros2 lifecycle set /edgeperc/daemon configure`, then `activate`. Messages are handed
over as CDR bytes; rclpy sends them as they are.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from edgeperc.errors import ConfigError
from edgeperc.sinks.ros2_topics import RosTopic

log = logging.getLogger("edgeperc")


class Managed(LifecycleNode):  # type: ignore[misc]
    """A node that knows whether it is active."""

    is_active = False

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to publish."""
        self.is_active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Be silent."""
        self.is_active = False
        return super().on_deactivate(state)


class Rclpy:
    """A node in a context of its own, so that other nodes of the process are left alone.

    domain_id: ROS_DOMAIN_ID if None. switches: name -> whether; changed by the node's parameters.
    Raises ConfigError if ROS refuses.
    """

    def __init__(
        self,
        namespace: str,
        node: str,
        *,
        domain_id: int | None = None,
        lifecycle: bool = False,
        switches: dict[str, bool] | None = None,
    ) -> None:
        self._switches = {} if switches is None else switches
        self._publishers: dict[RosTopic, Any] = {}
        self._context = rclpy.Context()
        try:
            self._context.init(domain_id=domain_id)
            kind = Managed if lifecycle else Node
            self._node = kind(node, namespace=namespace, context=self._context)
        except RuntimeError as error:  # of rclpy, which has no more than its text
            raise ConfigError(f"ros2 sink: ROS refuses: {error}") from error
        for name, value in self._switches.items():
            self._node.declare_parameter(name, value)
        self._node.add_on_set_parameters_callback(self._switch)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._answer, name="ros2 node", daemon=True)
        self._thread.start()

    def publish(self, topic: RosTopic, data: bytes) -> None:
        """Publish a message's CDR bytes. A type that this ROS lacks is said once and left out."""
        if not getattr(self._node, "is_active", True):
            return
        if topic not in self._publishers:
            self._publishers[topic] = self._publisher(topic)
        publisher = self._publishers[topic]
        if publisher is not None:
            publisher.publish(data)

    def close(self) -> None:
        """End the node; may be called twice."""
        if self._context.ok():
            self._executor.shutdown(timeout_sec=1.0)
            self._node.destroy_node()
            self._context.shutdown()
            self._thread.join(1.0)

    def _publisher(self, topic: RosTopic) -> Any:
        package, _, name = topic.type.split("/")
        try:
            message = getattr(importlib.import_module(f"{package}.msg"), name)
        except ModuleNotFoundError:
            dashed = package.replace("_", "-")
            log.warning(
                "ros2 sink: no %s, since %s is not installed: apt install ros-$ROS_DISTRO-%s",
                topic.name,
                package,
                dashed,
            )
            return None
        return self._node.create_publisher(message, topic.name, _qos(topic))

    def _switch(self, parameters: list[Parameter]) -> Any:
        """Take what `ros2 param set` asks for."""
        from rcl_interfaces.msg import SetParametersResult

        for parameter in parameters:
            if parameter.name in self._switches:
                if parameter.type_ != Parameter.Type.BOOL:
                    return SetParametersResult(
                        successful=False, reason=f"{parameter.name} is true or false"
                    )
                self._switches[parameter.name] = parameter.value
        return SetParametersResult(successful=True)

    def _answer(self) -> None:
        """Answer for parameters and the lifecycle until the end."""
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


def _qos(topic: RosTopic) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=topic.depth,
        reliability=(
            ReliabilityPolicy.BEST_EFFORT if topic.best_effort else ReliabilityPolicy.RELIABLE
        ),
        durability=(
            DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE
        ),
    )
