"""ROS 2 messages to bytes and back: the one CDR codec, by the library rosbags.

    data = serialize(make("std_msgs/msg/String", data="hello"), "std_msgs/msg/String")
    deserialize(data, "std_msgs/msg/String").data

Types are named as ROS 2 does, `sensor_msgs/msg/Image`. Bytes are XCDR1, little-endian, behind the
four bytes `00 01 00 00`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from edgeperc.errors import ConfigError, DataError
from edgeperc.ros.definitions import DEFINITIONS


@lru_cache(maxsize=1)
def store() -> Any:
    """The store of types of rosbags, with ours. Raises ConfigError if rosbags is not installed."""
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ModuleNotFoundError as error:
        raise ConfigError(
            "messages of ROS need the library rosbags", hint="pip install rosbags"
        ) from error
    types = get_typestore(Stores.ROS2_JAZZY)
    found: dict[Any, Any] = {}
    for name, text in DEFINITIONS.items():
        found.update(get_types_from_msg(text, name))
    types.register(found)
    return types


def make(type_: str, **fields: Any) -> Any:
    """A message of a type, all its fields given. Raises KeyError for an unknown type."""
    return store().types[type_](**fields)


def serialize(message: Any, type_: str) -> bytes:
    """The bytes of a message. Raises DataError if a field does not fit its type."""
    try:
        return bytes(store().serialize_cdr(message, type_))
    except Exception as error:  # of rosbags' generated code, any
        raise DataError(f"cannot be a {type_}: {error or type(error).__name__}") from error


def deserialize(data: bytes, type_: str) -> Any:
    """The message in some bytes; its arrays may be views of them. Raises DataError."""
    try:
        return store().deserialize_cdr(data, type_)
    except Exception as error:  # bytes may be wrong in every way
        raise DataError(
            f"{len(data):,} bytes are no {type_}: {error or type(error).__name__}"
        ) from error


@lru_cache(maxsize=64)
def definition(type_: str) -> str:
    """The text of a type and of all it contains, as an MCAP schema `ros2msg` wants it."""
    text, _ = store().generate_msgdef(type_, ros_version=2)
    return str(text)


@lru_cache(maxsize=64)
def type_hash(type_: str) -> str:
    """The type's hash as ROS 2 has it since Iron, `RIHS01_` and 64 hex digits."""
    return str(store().hash_rihs01(type_))
