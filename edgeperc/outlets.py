"""The sinks of a run at work: each gets everything, and one that fails is left out.

    outlets = Outlets(sinks, note=lambda who, error: ...)
    outlets.write(result)       # from any thread
    outlets.take(packet)        # to those that want packets

Sinks may come and go meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from edgeperc.control import SinkStatus
from edgeperc.errors import EdgepercError
from edgeperc.packet import Packet
from edgeperc.result import Result
from edgeperc.sink import CountingSink, HealthSink, PacketSink, Sink


class Outlets:
    """Some sinks. note: takes who failed, and of what."""

    def __init__(self, sinks: Iterable[Sink], *, note: Callable[[str, Exception], None]) -> None:
        self._sinks = list(sinks)
        self._seeing = self._those_that_see()
        self._note = note

    def write(self, result: Result) -> None:
        """Hand a result to every sink."""
        for sink in list(self._sinks):
            try:
                sink.write(result)
            except (EdgepercError, OSError) as error:
                self._leave_out(sink, error)

    def take(self, packet: Packet) -> None:
        """Hand a packet to every sink that wants packets."""
        for sink in self._seeing:
            try:
                sink.take(packet)
            except (EdgepercError, OSError) as error:
                self._leave_out(sink, error)

    def report(self, well: Mapping[str, bool]) -> None:
        """Tell the sinks that want to know what is well."""
        for sink in list(self._sinks):
            if isinstance(sink, HealthSink):
                sink.report(well)

    @property
    def want_packets(self) -> bool:
        """Whether any sink wants packets now."""
        return any(getattr(sink, "wants_packets", True) for sink in self._seeing)

    @property
    def where(self) -> tuple[str, ...]:
        """Where to look for the results."""
        return tuple(sink.where for sink in list(self._sinks) if sink.where)

    def statuses(self) -> tuple[SinkStatus, ...]:
        """What those count that do."""
        return tuple(
            SinkStatus(kind=type(sink).__name__, where=sink.where, counts=sink.counts())
            for sink in list(self._sinks)
            if isinstance(sink, CountingSink)
        )

    def add(self, sink: Sink) -> None:
        """Give one more sink what comes from now on."""
        self._sinks.append(sink)
        self._seeing = self._those_that_see()

    def remove(self, sink: Sink) -> None:
        """Close a sink and give it nothing more; one that is gone already is no error."""
        with suppress(ValueError):  # another thread was faster
            self._sinks.remove(sink)
        self._seeing = self._those_that_see()
        self._close(sink)

    def close(self) -> None:
        """Close all."""
        for sink in list(self._sinks):
            self._close(sink)

    def _leave_out(self, sink: Sink, error: Exception) -> None:
        """Go on without a sink that failed."""
        self._note(_name(sink), error)
        self.remove(sink)

    def _close(self, sink: Sink) -> None:
        try:
            sink.close()
        except (EdgepercError, OSError) as error:  # what it still held may not fit either
            self._note(_name(sink), error)

    def _those_that_see(self) -> tuple[PacketSink, ...]:
        """Asked only when sinks change, since such a question takes a while."""
        return tuple(sink for sink in list(self._sinks) if isinstance(sink, PacketSink))


def _name(sink: Sink) -> str:
    return f"sink {sink.where or type(sink).__name__}"
