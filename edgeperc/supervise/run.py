"""A run in several processes: one for each sensor and each pipeline, sinks and all else here.

    run = SupervisedRun(plan)       # its processes begin to load the models
    run.load()                      # raises what is wrong with them
    run.start()
    while not run.wait(0.2): print(run.workers())
    run.stop()

Has the face of `edgeperc.pipeline.Run`. Packets go from a sensor's process straight to those of its
pipelines; results come here. The search has a process of its own, as in one-process runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from edgeperc.clock import ReplayClock, host_clock
from edgeperc.control import SinkStatus, WorkerStatus
from edgeperc.errors import EdgepercError
from edgeperc.outlets import Outlets
from edgeperc.pipeline import Search, health
from edgeperc.plan import Plan, check_names, own_time
from edgeperc.result import ModelRef
from edgeperc.sink import Sink
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.steering.process import ProcessSearch
from edgeperc.supervise.change import STOP_S, Change, end
from edgeperc.supervise.needs import (
    inputs_of,
    pipeline_key,
    pipelines_of,
    search_key,
    sensor_order,
    sensors_of,
)
from edgeperc.supervise.orders import PipelineOrder
from edgeperc.supervise.remote_sessions import RemoteTracker
from edgeperc.supervise.statuses import pipeline_status, ref_of, sensor_status, successor
from edgeperc.supervise.taps import Taps, connect
from edgeperc.supervise.worker import Worker

log = logging.getLogger("edgeperc")


LATE_NS = 2_000_000_000
_POLL_S = 0.2


class SupervisedRun:
    """A plan's workers and its search, which begin to load at once. Sinks are added from outside.

    Raises ConfigError for a plan that cannot be.
    """

    def __init__(self, plan: Plan) -> None:
        check_names(plan)
        self._plan = plan
        self._clock = ReplayClock()
        self._outlets = Outlets([], note=self._note)
        self._errors: dict[str, str] = {}
        self._lock = threading.RLock()  # of connections and taps
        self._trackers: dict[Worker, RemoteTracker] = {}
        self._taps = Taps(self._outlets.take)
        self._search: ProcessSearch | None = None
        self._search_thread: threading.Thread | None = None
        self._search_key = search_key(plan)
        self._bug: BaseException | None = None
        self._stopped = threading.Event()
        self._sensors: dict[str, Worker] = {}
        self._pipelines: dict[str, Worker] = {}
        self._is_loaded = False
        self._coming: tuple[Worker, ...] = ()
        self._first = self._begin_change(plan)
        self._sensors, self._pipelines = self._first.sensors, self._first.pipelines
        self._search = self._open_search(plan)

    def load(self) -> None:
        """Wait until all models are loaded. Raises what keeps one from that; then all has ended."""
        if self._is_loaded:
            return
        try:
            self._first.await_ready()
            if self._search:
                self._search.load()
        except BaseException:
            self.stop()
            raise
        self._is_loaded = True

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        """What computes the results."""
        return (*(ref_of(worker) for worker in self._pipelines.values()), *self.search_refs)

    @property
    def search_refs(self) -> tuple[ModelRef, ...]:
        """What computes those of the search."""
        return self._search.refs if self._search else ()

    @property
    def trackers(self) -> tuple[RemoteTracker, ...]:
        """The pipelines that can be prompted."""
        return self.trackers_of(self._pipelines)

    def trackers_of(self, named: Mapping[str, Worker]) -> tuple[RemoteTracker, ...]:
        """Those of some pipelines, such as a change brings."""
        pipelines = named.values()
        return tuple(self._trackers[worker] for worker in pipelines if worker in self._trackers)

    def start(self) -> None:
        """Send the workers off, once they are loaded: sensors are opened now."""
        self.load()
        self._clock.origin()
        for worker in (*self._pipelines.values(), *self._sensors.values()):
            worker.go()
        self._start_search()

    def prepare(self, plan: Plan) -> Change:
        """Get ready what another plan needs and this run has not. Raises ConfigError, ModelError.

        Nothing that runs is touched. The answer goes to `become`, or is discarded.
        """
        check_names(plan)
        change = self._begin_change(plan)
        self._coming = tuple(change.fresh)
        try:
            change.await_ready()
        except BaseException:
            change.discard()
            raise
        finally:
            self._coming = ()
        return change

    def become(self, change: Change) -> None:
        """Run what was prepared: who is in both plans goes on, the others end first.

        Raises what keeps a changed search from starting; then nothing else has changed.
        """
        plan = change.plan
        if (key := search_key(plan)) != self._search_key:
            self._renew_search(plan)
            self._search_key = key
        with self._lock:
            before = (*self._sensors.values(), *self._pipelines.values())
            places = {worker.name: worker for worker in before}
            followed = [(new, places[new.name]) for new in change.fresh if new.name in places]
            for new, place in followed:
                new.follow(place)
            self._sensors, self._pipelines = change.sensors, change.pipelines
            self._plan = plan
        after = (*self._pipelines.values(), *self._sensors.values())
        old = [worker for worker in before if worker not in after]
        end(old)
        for new, place in followed:  # it has counted on to its end
            new.follow(place)
        for worker in old:
            if tracker := self._trackers.pop(worker, None):
                tracker.end()
            if worker.kind == "sensor":
                self._taps.close(worker.order.name)
        for worker in after:
            worker.limits = plan.app.supervise
        for worker in change.fresh:
            worker.go()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of all sensors; True if it came. Raises what a thread died of."""
        deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads():
            while not thread.join(max(0.0, min(_POLL_S, deadline_s - time.monotonic()))):
                if self._bug:
                    raise self._bug
                if time.monotonic() >= deadline_s:
                    return False
        if self._bug:
            raise self._bug
        return True

    def stop(self) -> None:
        """End every process and close the sinks; at most about two seconds."""
        self._halt()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._threads():
            thread.join(max(0.0, deadline_s - time.monotonic()))
        end([*self._sensors.values(), *self._pipelines.values()], within_s=0.0)
        if self._search and not self._search_thread:
            self._search.discard()
        with self._lock:  # nobody is about to open one
            self._taps.close_all()
        self._outlets.close()

    def sensors(self) -> tuple[SensorStatus, ...]:
        """As each said last; one whose process is away is lost."""
        own = (sensor_status(name, worker) for name, worker in list(self._sensors.items()))
        return (*own, *(self._search.sensors() if self._search else ()))

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        """As each said last."""
        own = (pipeline_status(name, worker) for name, worker in list(self._pipelines.items()))
        return (*own, *(self._search.pipelines() if self._search else ()))

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Each process that does the work, and those that are to take its place."""
        workers = (*self._sensors.values(), *self._pipelines.values())
        search = (self._search.worker(),) if self._search else ()
        taken = {worker.name for worker in workers}
        coming = (successor(worker.status(), taken) for worker in self._coming)
        return (*(worker.status() for worker in workers), *search, *coming)

    def sinks(self) -> tuple[SinkStatus, ...]:
        """What the ways out count, those that do."""
        return self._outlets.statuses()

    def stuck(self) -> str:
        """Who makes no progress though it should; those that are started anew are at it."""
        patience_s = self._plan.app.supervise.hang_s
        for worker in (*self._sensors.values(), *self._pipelines.values()):
            if worker.unattended_s > patience_s:
                return f"nobody has looked after {worker.name} for {worker.unattended_s:.1f} s"
        return ""

    def waiting(self) -> frozenset[str]:
        """See Running: those whose process is away, or has just begun, too."""
        own = {name for name, worker in self._pipelines.items() if not worker.has_answered}
        return frozenset(own | (self._search.waiting() if self._search else set()))

    def report(self) -> None:
        """Tell the sinks that want to know what is well; also look after what nobody else does."""
        silent = {name for worker in self._pipelines.values() for name in worker.report.silent}
        feeds = {name: self._plan.pipeline(name)[0].input for name in self._pipelines}
        well = health(
            self.sensors(), self.pipelines(), feeds=feeds, silent=silent, waiting=self.waiting()
        )
        self._outlets.report(well)
        for tracker in self.trackers:
            tracker.sessions.expire()
        self._tap()

    def add(self, sink: Sink) -> None:
        """Give one more sink what comes from now on."""
        self._outlets.add(sink)
        self._tap()

    def remove(self, sink: Sink) -> None:
        """Close a sink and give it nothing more; one that is gone already is no error."""
        self._outlets.remove(sink)
        self._tap()

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
        failed = [
            f"pipeline {status.name}: {status.error}".replace(
                f"pipeline {status.name}: pipeline", "pipeline"
            )
            for status in self.pipelines()
            if status.error
        ]
        return (*lost, *failed, *self._errors.values())

    @property
    def hints(self) -> tuple[str, ...]:
        """What may mend it, where a sensor knows."""
        return tuple(status.hint for status in self.sensors() if status.hint)

    def ready(self, worker: Worker) -> None:
        """See Owner."""
        made = worker.made
        if made.prompted and worker not in self._trackers:
            self._trackers[worker] = RemoteTracker(made.prompted, ref_of(worker), worker.send)

    def going(self, worker: Worker) -> Any:
        """See Owner: the time at which it begins.

        A sensor with a time of its own that is alone begins anew where it would have to catch up.
        """
        sensor_ns, monotonic_ns = self._clock.origin()
        is_alone = worker.kind == "sensor" and len(self._sensors) == 1 and not self._search
        if is_alone and time.monotonic_ns() - monotonic_ns > LATE_NS:
            return 0, time.monotonic_ns()
        return sensor_ns, monotonic_ns

    def gone(self, worker: Worker) -> None:
        """See Owner: connect it with those that it works with."""
        with self._lock:
            for sensor, pipeline in self._edges():
                if worker in (sensor, pipeline):
                    connect(sensor, pipeline)
        if worker.kind == "sensor":
            self._taps.close(worker.order.name)
        self._tap()

    def heard(self, worker: Worker, kind: str, content: Any) -> None:
        """See Owner."""
        name = worker.order.name
        if kind == "object":
            self._outlets.write(content)
            if self._search and name in self._search.hints:
                self._search.hint(name, content)
        elif kind == "anchor":
            worker.send("anchor", (content, self._clock.anchored(content)))
        elif tracker := self._trackers.get(worker):
            tracker.hear(kind, content)

    def down(self, worker: Worker, why: str) -> None:
        """See Owner."""
        if tracker := self._trackers.get(worker):
            tracker.down()

    def _begin_change(self, plan: Plan) -> Change:
        """Begin the workers that a plan needs beside those that are there."""
        limits = plan.app.supervise
        change = Change(plan)
        for name in sensors_of(plan):
            order = sensor_order(plan, name)
            there = self._sensors.get(name)
            if there is None or there.order != order:
                there = Worker(f"sensors/{name}", "sensor", order, self, limits=limits)
                change.fresh.append(there)
            change.sensors[name] = there
        for name in pipelines_of(plan):
            there = self._pipelines.get(name)
            key = pipeline_key(plan, name)
            if there is None or there.key != key:
                pipeline = PipelineOrder(name=name, plan=plan)
                there = Worker(f"pipelines/{name}", "pipeline", pipeline, self, limits=limits)
                there.key = key
                change.fresh.append(there)
            change.pipelines[name] = there
        for worker in change.fresh:
            worker.begin()
        return change

    def _open_search(self, plan: Plan) -> ProcessSearch | None:
        if plan.app.search is None:
            return None
        anchor = self._clock.origin if own_time(plan) else host_clock().origin
        hints = frozenset(plan.app.search.hints)
        return ProcessSearch(plan, hints=hints, anchor=anchor, wait=False)

    def _start_search(self) -> None:
        if self._search:
            run = partial(self._run_search, self._search)
            self._search_thread = threading.Thread(target=run, name="search", daemon=True)
            self._search_thread.start()

    def _renew_search(self, plan: Plan) -> None:
        """End the search and begin another: they want the same mirror."""
        old, thread = self._search, self._search_thread
        self._search = None
        if old and thread:
            old.stop()
            thread.join()
        try:
            self._search = self._loaded_search(plan)
        except EdgepercError:
            self._search = self._loaded_search(self._plan)
            raise
        finally:
            if old and self._search:
                self._search.follow(old)
            self._start_search()
            self._tap()

    def _loaded_search(self, plan: Plan) -> ProcessSearch | None:
        self._search = search = self._open_search(plan)
        if search:
            search.load()
        return search

    def _run_search(self, search: ProcessSearch) -> None:
        """Search to the end. Where the search ends by itself, all does."""
        try:
            search.run(self._outlets.write, self._outlets.take)
        except BaseException as bug:  # handed to whoever waits, with its traceback
            self._bug = bug
        if self._search is search or self._bug:
            self._halt()

    def _threads(self) -> list[_Joinable]:
        workers = (*self._sensors.values(), *self._pipelines.values())
        search = [_Thread(self._search_thread)] if self._search_thread else []
        return [*workers, *search]

    def _halt(self) -> None:
        """Tell everyone to end."""
        self._stopped.set()
        for worker in (*self._sensors.values(), *self._pipelines.values()):
            worker.stop()
        if self._search:
            self._search.stop()

    def _edges(self) -> list[tuple[Worker, Worker]]:
        """Which sensor's packets go to which pipeline, of those that are at work."""
        edges = []
        for name, pipeline in self._pipelines.items():
            for source in inputs_of(self._plan, name):
                sensor = self._sensors[source]
                if sensor.is_up and pipeline.is_up:
                    edges.append((sensor, pipeline))
        return edges

    def _tap(self) -> None:
        """Read the sensors' packets here, too, while some sink wants them."""
        with self._lock:
            wanted = self._outlets.want_packets and not self._stopped.is_set()
            for name, worker in self._sensors.items():
                if wanted:
                    self._taps.open(worker)
                else:
                    self._taps.close(name)
            if self._search:
                self._search.show(wanted)

    def _note(self, who: str, error: Exception) -> None:
        """Keep the first error of each party."""
        if who not in self._errors:
            log.info("%s: %s", who, error)
            self._errors[who] = f"{who}: {error}"


class _Thread:
    """A thread, joined as a worker is."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def join(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


_Joinable = Worker | _Thread
