"""THE loop: newest packet -> model -> result -> sinks, and the edge that leads back to the mirror.

One thread reads each sensor, one runs each pipeline; an intake cuts or pairs what the sensors say
and hands it over. Live, the newest wins; in a lossless run the reader waits. What pipelines find is
a hint to the search, which steers a mirror and looks through it by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from edgeperc.clock import Clock
from edgeperc.control import SinkStatus, Steering, WorkerStatus
from edgeperc.errors import DataError, EdgepercError
from edgeperc.intake import Inbox, Intake, PairIntake, SingleIntake
from edgeperc.meter import Meter
from edgeperc.outlets import Outlets
from edgeperc.packet import Frame, ModelInput, Packet, Pair, Sensor
from edgeperc.pairs import Rules
from edgeperc.reading import Reading
from edgeperc.result import Model, ModelRef, Result
from edgeperc.sink import Sink, Viewer
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.validate import Validator
from edgeperc.window import Windows

log = logging.getLogger("edgeperc")

_STOP_S = 0.8


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A model, the sensor it looks at and how its packets are cut. Owned by one thread.

    windows: None for a network that takes frames. pairs: how frames and events are paired, for a
    network that fuses them; frames: the sensor of the frames, if not `input`. period_ns: packets
    that begin sooner after the last one that was answered are passed over.
    """

    name: str
    input: str
    model: Model
    ref: ModelRef
    windows: Windows | None
    pairs: Rules | None = None
    frames: str = ""
    period_ns: int = 0
    meter: Meter = field(default_factory=Meter)

    def intake(self, *, lossless: bool) -> Intake:
        """What takes the packets of its sensors."""
        inbox = Inbox(self.meter, lossless=lossless)
        if self.pairs is None:
            return SingleIntake(inbox, self.windows, source=self.input)
        sources = (self.frames or self.input, self.input)
        return PairIntake(inbox, self.pairs, sources=sources, lossless=lossless)


class Search(Protocol):
    """A search that steers a mirror, with camera, detector and thread or process of its own.

    hints: the pipelines whose results it wants.
    """

    hints: frozenset[str]

    @property
    def steering(self) -> Steering:
        """Lets clients steer instead of it."""

    def run(self, emit: Callable[[Result], None], see: Callable[[Frame], None] | None) -> None:
        """Search until its camera ends or `stop`; emit takes its results, see its pictures.

        A search in a process of its own keeps its pictures there.
        """

    def show(self, wanted: bool) -> None:
        """Whether its pictures are wanted by `see`."""

    def hint(self, pipeline: str, result: Result) -> None:
        """Take a result; a lossless search may wait until it has come that far itself."""

    def passed(self, pipeline: str, end_ns: int) -> None:
        """A pipeline has nothing more to say about the time up to `end_ns`."""

    def ended(self, pipeline: str) -> None:
        """A pipeline will say nothing more."""

    def stop(self) -> None:
        """End `run` soon; may be called twice and from any thread."""

    def sensors(self) -> tuple[SensorStatus, ...]:
        """Its camera's and mirror's status."""

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        """Its own figures, as those of a pipeline."""


class Running(Protocol):
    """A run as those see it that start it and show it, be it one process or several."""

    def start(self) -> None:
        """Begin."""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of all sensors; True if it came. Raises what a thread died of."""

    def stop(self) -> None:
        """End everything and close the sinks; within about two seconds."""

    def sensors(self) -> tuple[SensorStatus, ...]:
        """Each sensor's status."""

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        """Each pipeline's figures now."""

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Each process that does the work."""

    def sinks(self) -> tuple[SinkStatus, ...]:
        """What the ways out count, those that do."""

    def waiting(self) -> frozenset[str]:
        """Pipelines that have given no result yet, or none since they were started anew."""

    def stuck(self) -> str:
        """Who makes no progress though it should, in a sentence; "" if nobody."""

    def report(self) -> None:
        """Tell the sinks that want to know what is well."""

    def add(self, sink: Sink) -> None:
        """Give one more sink what comes from now on."""

    def remove(self, sink: Sink) -> None:
        """Close a sink and give it nothing more; one that is gone already is no error."""

    @property
    def search(self) -> Search | None:
        """What steers the mirror, if there is one."""

    @property
    def where(self) -> tuple[str, ...]:
        """Where to look for the results."""

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, one sentence each."""

    @property
    def hints(self) -> tuple[str, ...]:
        """What may mend it, where a sensor knows."""


class Run:
    """Sensors, pipelines and sinks at work, from `start` to `stop` or the sensors' end.

    sensors: a constructor for each, called again when a device was lost. lossless: readers wait
    and a lost device ends its stream (replay), instead of newest wins and reconnect (live). viewer:
    one more sink, which is also shown the frames. hang_s: at one packet for so long, a pipeline is
    stuck.
    """

    def __init__(
        self,
        *,
        sensors: Mapping[str, Callable[[], Sensor]],
        pipelines: Sequence[Pipeline],
        sinks: Sequence[Sink],
        clock: Clock,
        validator: Callable[[], Validator],
        lossless: bool,
        search: Search | None = None,
        viewer: Viewer | None = None,
        hang_s: float = 10.0,
    ) -> None:
        self._pipelines = tuple(pipelines)
        self._outlets = Outlets([*sinks, *([viewer] if viewer else [])], note=self._note)
        self._viewer = viewer
        self._clock = clock
        self._search = search
        self._intakes = {p.name: p.intake(lossless=lossless) for p in pipelines}
        self._readings = {
            name: Reading(name, open_sensor, self, validator=validator, lossless=lossless)
            for name, open_sensor in sensors.items()
        }
        self._hang_s = hang_s
        self._since_s: dict[str, float | None] = {}
        self._begun: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._bug: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start one thread a pipeline and one a sensor."""
        for pipeline in self._pipelines:
            self._spawn(f"pipeline {pipeline.name}", partial(self._process, pipeline))
        for name, reading in self._readings.items():
            self._spawn(f"sensor {name}", reading.run)
        if self._search:
            self._show_search()
            self._spawn("search", self._run_search)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of all sensors; True if it came. Raises what a thread died of."""
        self._join(timeout_s)
        if self._bug:
            raise self._bug
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End every thread and close the sinks; at most about two seconds."""
        self._halt()
        self._join(_STOP_S)
        self._outlets.close()

    def sensors(self) -> tuple[SensorStatus, ...]:
        """A copy of each sensor's status."""
        steered = self._search.sensors() if self._search else ()
        return (*(replace(reading.status) for reading in self._readings.values()), *steered)

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        """Each pipeline's figures now."""
        own = (
            PipelineStatus(
                name=p.name,
                model=p.ref,
                meter=p.meter.snapshot(),
                error=self._errors.get(f"pipeline {p.name}", ""),
                note=self._intakes[p.name].note(),
                pairs=self._intakes[p.name].counters(),
            )
            for p in self._pipelines
        )
        return (*own, *(self._search.pipelines() if self._search else ()))

    def silent(self) -> frozenset[str]:
        """Sensors that a pipeline waits for in vain."""
        return frozenset(name for intake in self._intakes.values() for name in intake.silent())

    def workers(self) -> tuple[WorkerStatus, ...]:
        """None: all is one process."""
        return ()

    def sinks(self) -> tuple[SinkStatus, ...]:
        """See Running."""
        return self._outlets.statuses()

    def busy_s(self, name: str) -> float:
        """How long a pipeline has been at the packet in hand; 0 between two packets."""
        since_s = self._since_s.get(name)
        return 0.0 if since_s is None else time.monotonic() - since_s

    def at_packet(self, name: str) -> int:
        """Number of the packet that a pipeline is at, from 1; 0 between two packets."""
        return self._begun.get(name, 0) if self._since_s.get(name) else 0

    def waiting(self) -> frozenset[str]:
        """See Running."""
        return frozenset(each.name for each in self.pipelines() if not each.meter.results)

    def stuck(self) -> str:
        """See Running."""
        for pipeline in self._pipelines:
            busy_s = self.busy_s(pipeline.name)
            if pipeline.meter.snapshot().results and busy_s > self._hang_s:
                return f"pipeline {pipeline.name} has been at one packet for {busy_s:.1f} s"
        return ""

    def report(self) -> None:
        """Tell the sinks that want to know what is well: sensors, mirrors, pipelines."""
        self._show_search()  # a sink may have begun to want packets
        feeds = {pipeline.name: pipeline.input for pipeline in self._pipelines}
        parts = self.sensors(), self.pipelines()
        well = health(*parts, feeds=feeds, silent=self.silent(), waiting=self.waiting())
        self._outlets.report(well)

    def add(self, sink: Sink) -> None:
        """Give one more sink what comes from now on."""
        self._outlets.add(sink)
        self._show_search()

    def remove(self, sink: Sink) -> None:
        """Close a sink and give it nothing more; one that is gone already is no error."""
        self._outlets.remove(sink)
        self._show_search()

    @property
    def search(self) -> Search | None:
        """What steers the mirror, if there is one."""
        return self._search

    @property
    def where(self) -> tuple[str, ...]:
        """Where to look for the results."""
        return self._outlets.where

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, one sentence each."""
        lost = [status.error for status in self.sensors() if status.error]
        searching = [p.error for p in self._search.pipelines() if p.error] if self._search else []
        return (*lost, *self._errors.values(), *searching)

    @property
    def hints(self) -> tuple[str, ...]:
        """What may mend it, where a sensor knows."""
        return tuple(status.hint for status in self.sensors() if status.hint)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as bug:  # handed to whoever waits, with its traceback
                self._bug = self._bug or bug
                self._halt()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _halt(self) -> None:
        """Tell every thread to end."""
        for reading in self._readings.values():
            reading.stop()
        self._clock.stop()
        if self._search:
            self._search.stop()
        for intake in self._intakes.values():
            intake.abort()

    def _run_search(self) -> None:
        """Search to the end. Where the search ends by itself, all does."""
        assert self._search
        self._search.run(self._outlets.write, self._see)
        self._halt()

    def _see(self, frame: Frame) -> None:
        """Show what the search sees, and hand it on."""
        if self._viewer:
            self._viewer.see(frame)
        self._outlets.take(frame)

    def _show_search(self) -> None:
        if self._search:
            self._search.show(self._viewer is not None or self._outlets.want_packets)

    def _join(self, timeout_s: float | None) -> None:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))

    def opened(self, name: str) -> None:
        """See Listener."""
        for _, intake in self._fed_by(name):
            intake.restart(name)

    def take(self, name: str, packet: Packet) -> None:
        """See Listener: show a packet, and hand it to the pipelines that look at its sensor."""
        if self._viewer and isinstance(packet, Frame):
            self._viewer.see(packet)
        self._outlets.take(packet)
        for pipeline, intake in self._fed_by(name):
            try:
                intake.put(name, packet)
            except DataError as error:  # its sensors do not go together
                self._note(f"pipeline {pipeline}", error)
                intake.abort()

    def lost(self, name: str) -> None:
        """See Listener."""
        for _, intake in self._fed_by(name):
            intake.lost(name)

    def ended(self, name: str) -> None:
        """See Listener."""
        for _, intake in self._fed_by(name):
            intake.end(name)

    def _fed_by(self, name: str) -> list[tuple[str, Intake]]:
        return [each for each in self._intakes.items() if name in each[1].sources]

    def _process(self, pipeline: Pipeline) -> None:
        """Answer for one packet after the other until the inbox ends."""
        search = self._search if self._search and pipeline.name in self._search.hints else None
        last_ns: int | None = None
        for packet, arrived_ns in self._intakes[pipeline.name].inbox:
            start_ns = packet.stamp.start_ns
            if last_ns is not None and 0 <= start_ns - last_ns < pipeline.period_ns:
                result = None
            else:
                last_ns = start_ns
                result = self._answer(pipeline, packet, arrived_ns)
            if search and result:
                search.hint(pipeline.name, result)
            elif search:
                search.passed(pipeline.name, packet.stamp.end_ns)
        if search:
            search.ended(pipeline.name)

    def _answer(self, pipeline: Pipeline, packet: ModelInput, arrived_ns: int) -> Result | None:
        """Run the model and hand its result to the sinks; None if it could not answer."""
        if self._viewer and isinstance(packet, Pair):
            self._viewer.see(packet)
        started_ns = time.perf_counter_ns()
        self._begun[pipeline.name] = self._begun.get(pipeline.name, 0) + 1
        self._since_s[pipeline.name] = time.monotonic()
        try:
            result = pipeline.model(packet)
        except EdgepercError as error:
            pipeline.meter.failed()
            self._note(f"pipeline {pipeline.name}", error)
            return None
        finally:
            self._since_s[pipeline.name] = None
        done_ns = time.perf_counter_ns()
        timings = replace(
            result.timings, wait_ns=started_ns - arrived_ns, total_ns=done_ns - arrived_ns
        )
        result = replace(result, timings=timings)
        self._outlets.write(result)
        pipeline.meter.finished(timings, time.perf_counter_ns() - done_ns)
        return result

    def _note(self, who: str, error: Exception) -> None:
        """Keep the first error of each party; later ones are only counted."""
        if who not in self._errors:
            log.info("%s: %s", who, error)
            self._errors[who] = f"{who}: {error}"


def health(
    sensors: Iterable[SensorStatus],
    pipelines: Iterable[PipelineStatus],
    *,
    feeds: Mapping[str, str],
    silent: Container[str] = (),
    waiting: Container[str] = (),
) -> dict[str, bool]:
    """Which `sensors/NAME` are there and which `pipelines/NAME` give results.

    feeds: pipeline -> the sensor without which it has nothing to say. silent, waiting: sensors and
    pipelines from which nothing has come yet.
    """
    here = {
        status.name: status.state in ("running", "ended") and status.name not in silent
        for status in sensors
    }
    well = {f"sensors/{name}": is_here for name, is_here in here.items()}
    for status in pipelines:
        has_packets = here.get(feeds.get(status.name, ""), True)
        well[f"pipelines/{status.name}"] = status.name not in waiting and has_packets
    return well
