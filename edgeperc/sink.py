"""How results leave: what a sink is, what else it may be told, and what it may ask first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgeperc.packet import Frame, Packet, Pair
from edgeperc.result import ModelRef, Result

if TYPE_CHECKING:
    from edgeperc.plan import Plan


class Sink(Protocol):
    """A way out: gRPC, a folder, nothing at all. Called from the threads of all pipelines.

    `where` tells a person where to look for what it puts out.
    """

    @property
    def where(self) -> str:
        """An address, a folder, or nothing."""

    def write(self, result: Result) -> None:
        """Take one result; must not block on a slow receiver."""

    def close(self) -> None:
        """Flush and release; may be called twice."""


class Viewer(Sink, Protocol):
    """A sink that also wants the pictures. Called from the threads of all sensors and pipelines."""

    def see(self, seen: Frame | Pair) -> None:
        """Take a picture, or one with its events, before the results about it come."""


@runtime_checkable
class PacketSink(Sink, Protocol):
    """A sink that also wants what the sensors say. Called from the threads of all sensors.

    One that does so only now and then has a `wants_packets`; meanwhile they may stay away.
    """

    def take(self, packet: Packet) -> None:
        """Take a packet that passed the checks; must not block."""


@runtime_checkable
class HealthSink(Sink, Protocol):
    """A sink that also tells how the parts of the run are."""

    def report(self, well: Mapping[str, bool]) -> None:
        """Take, now and then, which `sensors/NAME` are there and which `pipelines/NAME` give
        results; must not block.
        """


@runtime_checkable
class AppSink(Sink, Protocol):
    """A sink that asks for the plan or the trackers, and stays when the app changes."""

    def adapt(self, plan: Plan, trackers: Sequence[Any]) -> None:
        """Take what runs from now on, as the constructor took it; must not block.

        The inventory that the constructor was given has changed already.
        """


@runtime_checkable
class CountingSink(Sink, Protocol):
    """A sink that counts what it does, for those who watch the daemon."""

    def counts(self) -> Mapping[str, int]:
        """`clients` is how many there are now; the others only grow: `dropped`, `refused_...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """A sensor as clients see it."""

    name: str
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What runs here, for sinks that answer questions about it."""

    sources: tuple[SourceInfo, ...] = ()
    models: tuple[ModelRef, ...] = ()
