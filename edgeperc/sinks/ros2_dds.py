"""ROS 2 without ROS: a DDS participant that ROS 2 programs take for a node, by Cyclone DDS.

    wire = Dds("/edgeperc", "daemon")
    wire.publish(RosTopic("/edgeperc/wide/labels", "sensor_msgs/msg/Image"), cdr)

A ROS topic `/a/b` of type `pkg/msg/T` is the DDS topic `rt/a/b` of type `pkg::msg::dds_::T_`, in
XCDR1, with the type's hash in the writer's user data. Who writes what is told on the topic
`ros_discovery_info`, as every ROS 2 participant does; so `ros2 node list` has a name for us.

The library wants each type declared. The declarations are made from rosbags' definitions; the bytes
of a message are never made by this library, which is slow at it, but handed through it.
"""

from __future__ import annotations

import functools
import threading
import types
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from cyclonedds.core import DDSException, Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl import types as _types
from cyclonedds.pub import DataWriter
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from edgeperc.errors import ConfigError, DeviceError
from edgeperc.ros.codec import make, serialize, store, type_hash
from edgeperc.sinks.ros2_topics import RosTopic

idl: Any = _types  # classes that are indexed without being generic

DISCOVERY = "rmw_dds_common/msg/ParticipantEntitiesInfo"
MAX_DOMAIN_ID = 232

_HERE_ONLY = """<General><AllowMulticast>false</AllowMulticast>
<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex><SPDPInterval>1s</SPDPInterval>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery>"""
_EVERYWHERE = ""
# Fast DDS (vendor 1.15) describes types in a way that Cyclone DDS finds invalid, and then no data
# flows; without the description types are compared by name, as ROS 2 means them to be.
_BY_NAME = "<Compatibility><IgnoreTypeInformation>1.15</IgnoreTypeInformation></Compatibility>"


class Dds:
    """A participant with one node. Used from one thread.

    insecure: reach other machines, too, without encryption or passwords; by default only programs
    on this one. Raises ConfigError if the domain cannot be entered.
    """

    def __init__(
        self, namespace: str, node: str, *, domain_id: int = 0, insecure: bool = False
    ) -> None:
        if not 0 <= domain_id <= MAX_DOMAIN_ID:
            raise ConfigError(f"ros2 sink: domain_id = {domain_id}, must be 0 to {MAX_DOMAIN_ID}")
        self._namespace, self._node = namespace, node
        _enter(domain_id, insecure)
        self._domain_id: int | None = domain_id
        try:
            self._participant: Any = DomainParticipant(
                domain_id, Qos(Policy.Userdata(b"enclave=/;"))
            )
        except DDSException as error:
            _leave(domain_id)
            raise ConfigError(f"ros2 sink: cannot enter DDS domain {domain_id}: {error}") from error
        self._writers: dict[RosTopic, DataWriter[Any]] = {}
        about_us = RosTopic("ros_discovery_info", DISCOVERY, latched=True, depth=1)
        self._discovery: Any = self._writer(about_us.name, about_us)
        self._announce()

    def publish(self, topic: RosTopic, data: bytes) -> None:
        """Write a message's CDR bytes; the first one on a topic announces it."""
        writer = self._writers.get(topic)
        if writer is None:
            writer = self._writers[topic] = self._writer(f"rt{topic.name}", topic)
            self._announce()
        try:
            writer.write(declared(topic.type)(data))
        except DDSException as error:
            if error.code != DDSException.DDS_RETCODE_TIMEOUT:  # a reader that hangs loses data
                raise DeviceError(f"ros2 sink: cannot write {topic.name}: {error}") from error

    def close(self) -> None:
        """Leave the domain; may be called twice."""
        self._writers.clear()
        # Deleted by the library when nobody refers to them: writers, then who writes.
        self._discovery = self._participant = None
        domain_id, self._domain_id = self._domain_id, None
        if domain_id is not None:
            _leave(domain_id)

    def _writer(self, name: str, topic: RosTopic) -> DataWriter[Any]:
        """A writer; one that is reliable also matches readers that do not ask for it."""
        reliable = Policy.Reliability.Reliable(max_blocking_time=duration(milliseconds=50))
        qos = Qos(
            Policy.Reliability.BestEffort if topic.best_effort else reliable,
            Policy.Durability.TransientLocal if topic.latched else Policy.Durability.Volatile,
            Policy.History.KeepLast(topic.depth),
            Policy.DataRepresentation(use_cdrv0_representation=True),
            Policy.Userdata(f"typehash={type_hash(topic.type)};".encode()),
        )
        declaration = Topic(self._participant, name, declared(topic.type))
        return DataWriter(self._participant, declaration, qos=qos)

    def _announce(self) -> None:
        """Say which writers are our node's, by their global ids."""
        node = make(
            "rmw_dds_common/msg/NodeEntitiesInfo",
            node_namespace=self._namespace,
            node_name=self._node,
            reader_gid_seq=[],
            writer_gid_seq=[_gid(writer.guid) for writer in self._writers.values()],
        )
        info = make(DISCOVERY, gid=_gid(self._participant.guid), node_entities_info_seq=[node])
        self._discovery.write(declared(DISCOVERY)(serialize(info, DISCOVERY)))


@functools.cache
def declared(type_: str) -> type[Any]:
    """A class for the library that declares a ROS type; constructed from a message's bytes."""
    package, _, name = type_.split("/")
    _, fields = store().fielddefs[type_]
    if not fields:  # IDL has no empty structures; rosidl puts this into them
        fields = [("structure_needs_at_least_one_member", (1, ("uint8", 0)))]
    annotations = {field: _declare(description) for field, description in fields}

    def body(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = annotations
        namespace["__init__"] = _keep
        namespace["serialize"] = _kept

    typename = f"{package}.msg.dds_.{name}_"
    return types.new_class(f"{name}_", (IdlStruct,), {"typename": typename}, body)


def _keep(self: Any, data: bytes) -> None:
    self.data = data


def _kept(self: Any, *_: Any, **__: Any) -> bytes:
    """What the library calls to make bytes of a message."""
    kept: bytes = self.data
    return kept


def _declare(description: tuple[int, Any]) -> Any:
    """A field's type in the library's words. description: of rosbags: kind, then what it holds."""
    kind, content = description
    if kind == 1:  # a base type and, for strings, a bound
        name, bound = content
        if name == "string":
            return idl.bounded_str[bound] if bound else str
        return _BASE[name]
    if kind == 2:
        return declared(content)
    inner, length = content
    if kind == 3:
        return idl.array[_declare(inner), length]
    return idl.sequence[_declare(inner), length] if length else idl.sequence[_declare(inner)]


_BASE: dict[str, Any] = {
    "bool": bool,
    "byte": idl.byte,
    "char": idl.uint8,
    "float32": idl.float32,
    "float64": idl.float64,
    **{
        f"{sign}int{bits}": getattr(idl, f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


@dataclass
class _Entered:
    """A domain that this process is in, with how far it reaches, and how many participants."""

    domain: Domain
    insecure: bool
    users: int = 0


_entered: dict[int, _Entered] = {}
_entering = threading.Lock()


def _enter(domain_id: int, insecure: bool) -> None:
    """Enter a domain, or be one more in it; it cannot reach farther for one than for another."""
    with _entering:
        entered = _entered.get(domain_id)
        if entered is None:
            reach = _EVERYWHERE if insecure else _HERE_ONLY
            config = f'<CycloneDDS><Domain id="any">{reach}{_BY_NAME}</Domain></CycloneDDS>'
            try:
                entered = _Entered(Domain(domain_id, config), insecure)
            except DDSException as error:
                raise ConfigError(
                    f"ros2 sink: cannot enter DDS domain {domain_id}: {error}"
                ) from error
            _entered[domain_id] = entered
        elif entered.insecure != insecure:
            raise ConfigError(
                f"ros2 sink: another sink is in DDS domain {domain_id} with another `insecure`",
                hint="give both the same, or restart the daemon",
            )
        entered.users += 1


def _leave(domain_id: int) -> None:
    """One less; the last one to go ends the domain, and with it all that is left in it."""
    with _entering:
        entered = _entered[domain_id]
        entered.users -= 1
        if entered.users == 0:
            del _entered[domain_id]


def _gid(guid: uuid.UUID) -> Any:
    """A global id as ROS 2 writes it since Iron: the sixteen bytes of the DDS one."""
    return make("rmw_dds_common/msg/Gid", data=np.frombuffer(guid.bytes, np.uint8))
