"""Topics of ROS 2 as the wires know them: full name, type, and how long messages are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from edgeperc.errors import ConfigError

KEPT = 5


@dataclass(frozen=True, slots=True)
class RosTopic:
    """name: full, `/edgeperc/wide/labels`. latched: whoever comes late gets the last message.

    depth: how many wait for a slow reader; the newest win. best_effort: nothing is sent twice.
    """

    name: str
    type: str
    latched: bool = False
    depth: int = KEPT
    best_effort: bool = False


class Wire(Protocol):
    """A way to ROS 2 programs. Used from one thread."""

    def publish(self, topic: RosTopic, data: bytes) -> None:
        """Send a message, given as CDR. Raises EdgepercError if the wire is broken."""

    def close(self) -> None:
        """Leave; may be called twice."""


def check_namespace(namespace: str) -> str:
    """A namespace, `/a/b` or `/`, without a slash at its end. Raises ConfigError."""
    if not re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+|/", namespace) or "__" in namespace:
        raise ConfigError(
            f'ros2 sink: namespace = "{namespace}" is no name of ROS 2', hint='as in "/edgeperc"'
        )
    return "" if namespace == "/" else namespace


def check_node(node: str) -> str:
    """A node's name. Raises ConfigError."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", node):
        raise ConfigError(f'ros2 sink: node = "{node}" is no name of ROS 2', hint='as in "daemon"')
    return node
