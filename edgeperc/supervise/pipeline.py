"""A pipeline's process: reads its sensors' rings, and sends its results to the front process."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from edgeperc.assemble import open_pipeline
from edgeperc.clock import ReplayClock
from edgeperc.errors import EdgepercError
from edgeperc.pipeline import Pipeline, Run
from edgeperc.result import Model, Result
from edgeperc.supervise.child import Child
from edgeperc.supervise.feed import Feed
from edgeperc.supervise.link import Link
from edgeperc.supervise.orders import PipelineOrder, Prompted, Ready, Report
from edgeperc.supervise.preparing import announcing
from edgeperc.supervise.remote_sessions import RemoteSessions
from edgeperc.supervise.ring_sensor import RingSensor, Source, Unchecked
from edgeperc.tracker import Tracker


class PipelineWorker:
    """Runs one pipeline with the loop of `edgeperc.pipeline`."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._sessions: RemoteSessions | None = None
        self._tracker: Tracker | None = None
        self._sources: dict[str, Source] = {}

    def main(self) -> None:
        """Load the model, wait for the start, run to the end."""
        child = self._child
        order: PipelineOrder = child.wait_for("order")
        try:
            with announcing(order.plan.model(order.name).card, child.say):
                pipeline = open_pipeline(order.plan, order.name)
        except EdgepercError as error:
            child.fail(error)
        child.say("ready", Ready(ref=pipeline.ref, prompted=self._prompted(pipeline.model)))
        names = dict.fromkeys(filter(None, (pipeline.input, pipeline.frames)))
        self._sources = {name: Source(name) for name in names}
        self._run = Run(
            sensors={name: partial(RingSensor, source) for name, source in self._sources.items()},
            pipelines=[pipeline],
            sinks=[_ToFront(child.link)],
            clock=ReplayClock(None),
            validator=Unchecked,
            lossless=False,
        )
        child.wait_for("go")
        self._run.start()
        child.serve(
            hear=self._hear,
            report=partial(self._report, pipeline),
            has_ended=lambda: self._run.wait(0),
            stop=self._run.stop,
        )

    def _prompted(self, model: Model) -> Prompted | None:
        """What can be asked of it; its sessions are held by the front from now on."""
        if not isinstance(model, Tracker):
            return None
        local = model.sessions
        prompted = Prompted(
            source=local.source,
            max_points=local.max_points,
            max_sessions=local.max_sessions,
            max_objects=local.max_objects,
            ttl_s=local.ttl_s,
        )
        self._tracker = model
        self._sessions = model.sessions = RemoteSessions(prompted, self._child.say)
        return prompted

    def _hear(self, kind: str, content: Any, fds: list[int]) -> None:
        if kind == "source":
            self._sources[content].connect(Link(socket.socket(fileno=fds[0])))
        elif self._sessions is not None:  # it may be empty
            self._sessions.hear(kind, content)

    def _report(self, pipeline: Pipeline) -> Report:
        (status,) = self._run.pipelines()
        meter = status.meter
        return Report(
            pipeline=status,
            progress=meter.results + meter.failed,
            at=self._run.at_packet(pipeline.name),
            silent=self._run.silent(),
            lost=sum(source.lost for source in self._sources.values()),
            picture_px=self._tracker.picture_px if self._tracker else (0, 0),
        )


class _ToFront:
    """A sink that sends results to the front process."""

    where = ""

    def __init__(self, link: Link) -> None:
        self._feed = Feed()
        self._feed.add(link)

    def write(self, result: Result) -> None:
        """Send one; lost, and counted, if the front is too slow."""
        self._feed.put(result)

    def close(self) -> None:
        """The link is the worker's."""
