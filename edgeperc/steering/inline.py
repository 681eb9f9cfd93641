"""The search in a thread of this process, in step with its hints: for replay and tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from edgeperc.packet import Frame, Gaze
from edgeperc.result import ModelRef, Result
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.steering.hints import TimedHints
from edgeperc.steering.lease import MirrorLease, Order

if TYPE_CHECKING:
    from edgeperc.steering.build import Parts

Emit: TypeAlias = Callable[[Result], None]
See: TypeAlias = Callable[[Frame], None]


class InlineSearch:
    """Runs a loop whose hints arrive at fixed times, so that a run is the same each time.

    open_parts: builds the loop around where its results and its pictures go. Raises what that
    raises.
    """

    def __init__(
        self,
        open_parts: Callable[[Emit, See], Parts],
        *,
        hints: TimedHints,
        names: frozenset[str],
    ) -> None:
        self.hints = names
        self._timed = hints
        self._emit: Emit | None = None
        self._see: See | None = None
        self._parts = open_parts(self._pass_on, self._show)
        self._gaze: Gaze | None = None
        self.steering = MirrorLease(
            self._obey, reach=lambda: self._parts.loop.reach, gaze=lambda: self._gaze
        )

    def run(self, emit: Emit, see: See | None = None) -> None:
        """Search until the slots end or `stop`."""
        self._emit, self._see = emit, see
        try:
            self._parts.loop.run()
        finally:
            self._timed.stop()

    def _pass_on(self, result: Result) -> None:
        assert self._emit  # only a loop that runs has results
        self._gaze = getattr(result, "gaze", None) or self._gaze
        self._emit(result)

    def _obey(self, order: Order | None) -> None:
        self._parts.loop.order = order

    def _show(self, frame: Frame) -> None:
        if self._see:
            self._see(frame)

    def show(self, wanted: bool) -> None:
        """Its pictures cost nothing: they are here."""

    def hint(self, pipeline: str, result: Result) -> None:
        """Take a result; waits if the search is far behind."""
        self._timed.put(pipeline, result)

    def passed(self, pipeline: str, end_ns: int) -> None:
        """A pipeline has nothing more to say about the time up to `end_ns`."""
        self._timed.passed(pipeline, end_ns)

    def ended(self, pipeline: str) -> None:
        """A pipeline will say nothing more."""
        self._timed.ended(pipeline)

    def stop(self) -> None:
        """End soon; may be called twice and from any thread."""
        self._parts.clock.stop()
        self._timed.stop()

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        """What computes the results: the detector and the scheduler."""
        return self._parts.refs

    def sensors(self) -> tuple[SensorStatus, ...]:
        """The camera's and mirror's status."""
        return self._parts.status()[0]

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        """The loop's figures."""
        return (self._parts.status()[1],)
