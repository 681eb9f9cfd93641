"""A sink that records: all that sensors say and pipelines find, into MCAP files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgeperc.errors import EdgepercError
from edgeperc.packet import Packet
from edgeperc.plan import Plan
from edgeperc.recording.head import About
from edgeperc.recording.names import file_name, recordings_home
from edgeperc.recording.recorder import Limits, Recorder
from edgeperc.result import Result
from edgeperc.sink import Inventory

Positive = Annotated[float, msgspec.Meta(gt=0)]


class RecordSink:
    """Hands all to a recorder, and fails once when that has failed."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.is_stopped = False

    @property
    def where(self) -> str:
        """The newest file."""
        return str(self.recorder.path)

    def take(self, packet: Packet) -> None:
        """Record a packet; never waits."""
        self._put(packet)

    def write(self, result: Result) -> None:
        """Record a result; never waits. Raises EdgepercError once the recording has ended."""
        self._put(result)

    def close(self) -> None:
        """Make the file whole; may be called twice. Raises EdgepercError if some of it is lost."""
        before, self.is_stopped = self.is_stopped, True
        self.recorder.close()
        if self.recorder.error and not before:
            raise EdgepercError(self.recorder.error)

    def _put(self, item: Packet | Result) -> None:
        self.recorder.put(item)
        if self.recorder.error:
            raise EdgepercError(self.recorder.error)


class Record(RecordSink):
    """`[[sinks]] kind = "record"`.

    folder: is made if it is not there; relative to where edgeperc was started. name: of the file,
    by default the time of day. max_mb, max_minutes: then it goes on in a new, numbered file.
    topics: patterns of what is recorded, such as "wide/*", or with a "!" in front of what is not,
    see docs/recording.md. queue_mb: what may wait for the disk before packets are dropped
    and counted. wait: wait for the disk instead; for replays. Raises ConfigError if the file is
    there already or cannot be written.
    """

    def __init__(
        self,
        folder: str = "",
        *,
        plan: Plan,
        inventory: Inventory,
        name: str = "",
        max_mb: Positive | None = None,
        max_minutes: Positive | None = None,
        topics: tuple[str, ...] = (),
        queue_mb: Positive = 64.0,
        wait: bool = False,
    ) -> None:
        limits = Limits(
            max_bytes=None if max_mb is None else round(max_mb * 1e6),
            max_s=None if max_minutes is None else 60 * max_minutes,
            queue_bytes=round(queue_mb * 1e6),
        )
        self._inventory = inventory
        path = (Path(folder) if folder else recordings_home()) / file_name(name)
        about = About.of(plan, inventory.models)
        super().__init__(Recorder(path, about, topics=topics, limits=limits, wait=wait))

    def adapt(self, plan: Plan, trackers: Sequence[Any]) -> None:
        """See AppSink: the recording goes on, and says what runs from now on."""
        self.recorder.become(About.of(plan, self._inventory.models))
