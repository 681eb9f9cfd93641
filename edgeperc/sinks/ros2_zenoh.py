"""ROS 2 by Zenoh, in the keys of rmw_zenoh. Experimental: never tried with a genuine rmw_zenoh.

    wire = Zenoh("/edgeperc", "daemon", router="tcp/127.0.0.1:7447")

A message is put on `<domain>/<topic>/<type>/<hash>` as CDR; its attachment holds number, time and
the publisher's id. Node and publishers are known by liveliness tokens under `@ros2_lv`. A latched
topic has an advanced publisher, as rmw_zenoh's transient-local ones are: its cache holds the last
message, which a late reader's advanced subscriber asks for. Source: rmw_zenoh's docs/design.md and
what its publishers are declared with; the attachment's layout is that of Pico-ROS.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import Any

import zenoh
from zenoh.ext import CacheConfig, MissDetectionConfig, declare_advanced_publisher

from edgeperc.errors import DeviceError
from edgeperc.fleet.link import Link, Security
from edgeperc.ros.codec import type_hash
from edgeperc.sinks.ros2_topics import RosTopic

_HEARTBEAT_S = 0.5
"""So soon a reader of a latched topic hears that it missed a message, if it did."""
DEFAULT_DEPTH = 42
"""Of rmw_zenoh; it stands for itself where a token says no depth."""


class Zenoh:
    """A session with rmw_zenoh's router, and one node. Used from one thread.

    Raises ConfigError for a router that is reached in the open, DeviceError if there is none.
    """

    def __init__(
        self,
        namespace: str,
        node: str,
        *,
        domain_id: int = 0,
        router: str = "tcp/127.0.0.1:7447",
        insecure: bool = False,
    ) -> None:
        self._domain_id, self._namespace, self._node = domain_id, namespace, node
        self._link = Link(router, security=Security(insecure=insecure))
        session = self._link.session
        self._about = f"@ros2_lv/{domain_id}/{session.info.zid()}/0"
        self._tokens: list[Any] = [session.liveliness().declare_token(self._node_token())]
        self._publishers: dict[RosTopic, tuple[Any, bytes]] = {}
        self._numbers: dict[RosTopic, int] = {}

    def publish(self, topic: RosTopic, data: bytes) -> None:
        """Put a message's CDR bytes; the first one on a topic announces it."""
        if topic not in self._publishers:
            self._publishers[topic] = self._announce(topic)
        publisher, gid = self._publishers[topic]
        number = self._numbers[topic] = self._numbers.get(topic, 0) + 1
        try:
            publisher.put(data, attachment=attachment(number, time.time_ns(), gid))
        except zenoh.ZError as error:
            raise DeviceError(f"ros2 sink: cannot put {topic.name}: {error}") from error

    def close(self) -> None:
        """Leave; may be called twice."""
        self._link.close()

    def _announce(self, topic: RosTopic) -> tuple[Any, bytes]:
        session = self._link.session
        token = self._topic_token(topic, 1 + len(self._publishers))
        self._tokens.append(session.liveliness().declare_token(token))
        publisher = self._publisher(key(self._domain_id, topic), topic)
        return publisher, hashlib.sha256(token.encode()).digest()[:16]

    def _publisher(self, at: str, topic: RosTopic) -> Any:
        session = self._link.session
        if not topic.latched:
            best_effort, reliable = zenoh.Reliability.BEST_EFFORT, zenoh.Reliability.RELIABLE
            return session.declare_publisher(
                at, reliability=best_effort if topic.best_effort else reliable
            )
        return declare_advanced_publisher(
            session,
            at,
            reliability=zenoh.Reliability.RELIABLE,
            cache=CacheConfig(max_samples=topic.depth),
            sample_miss_detection=MissDetectionConfig(
                heartbeat=None, sporadic_heartbeat=_HEARTBEAT_S
            ),
            publisher_detection=True,
        )

    def _node_token(self) -> str:
        return f"{self._about}/0/NN/%/{mangled(self._namespace)}/{self._node}"

    def _topic_token(self, topic: RosTopic, number: int) -> str:
        """Of a publisher; what is left out of the quality of service is rmw_zenoh's default."""
        reliability = "2" if topic.best_effort else ""
        durability = "1" if topic.latched else ""
        depth = "" if topic.depth == DEFAULT_DEPTH else str(topic.depth)
        quality = f"{reliability}:{durability}:,{depth}:,:,:,,"
        node = f"{mangled(self._namespace)}/{self._node}"
        what = f"{mangled(topic.name)}/{dds_type(topic.type)}/{type_hash(topic.type)}"
        return f"{self._about}/{number}/MP/%/{node}/{what}/{quality}"


def key(domain_id: int, topic: RosTopic) -> str:
    """Where messages of a topic are put."""
    name = topic.name.strip("/")
    return f"{domain_id}/{name}/{dds_type(topic.type)}/{type_hash(topic.type)}"


def dds_type(type_: str) -> str:
    """`sensor_msgs/msg/Image` as `sensor_msgs::msg::dds_::Image_`."""
    package, _, name = type_.split("/")
    return f"{package}::msg::dds_::{name}_"


def mangled(name: str) -> str:
    """A name of several parts as one."""
    return name.replace("/", "%")


def attachment(number: int, time_ns: int, gid: bytes) -> bytes:
    """What goes with a message: its number, when it was put, who put it."""
    return struct.pack("<qqB16s", number, time_ns, len(gid), gid)
