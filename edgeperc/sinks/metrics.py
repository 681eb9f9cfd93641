"""Figures for Prometheus at http://127.0.0.1:9464/metrics, collected when somebody asks for them.

    [[sinks]]
    kind = "metrics"
    listen = "127.0.0.1:9464"

Names follow Prometheus' conventions: base units, `_total` for what only grows. Nothing is counted
here packet by packet: it is what the daemon's own status says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector

from edgeperc.addresses import is_loopback, parse_listen
from edgeperc.control import (
    Daemon,
    DaemonStatus,
    RecordingStatus,
    SinkStatus,
    State,
    WorkerState,
    WorkerStatus,
)
from edgeperc.errors import ConfigError
from edgeperc.inference.engines import building
from edgeperc.machine import HERE
from edgeperc.result import Result
from edgeperc.status import PipelineStatus, SensorStatus

_STATES: tuple[State, ...] = ("starting", "serving", "degraded", "stopping")
_SENSOR_STATES = ("running", "lost", "ended", "failed")
_WORKER_STATES: tuple[WorkerState, ...] = ("starting", "running", "restarting", "failed", "ended")
_CLOSE_S = 0.5
_PATIENCE_S = 10.0
"""For how long a client may hold its connection without a word."""

Values: TypeAlias = Mapping[Any, float]
"""By label values, (N,) strings each."""


class Metrics:
    """Sink that answers Prometheus at `listen` ("host:port"; port 0 picks a free one).

    insecure: allow an address that other machines can reach. The figures name models, sensors and
    files, and anybody who reaches the port may read them. Raises ConfigError if it cannot listen.
    """

    def __init__(
        self, *, daemon: Daemon, listen: str = "127.0.0.1:9464", insecure: bool = False
    ) -> None:
        host, port = parse_listen(listen, "metrics sink")
        if not (insecure or is_loopback(host)):
            raise ConfigError(
                f'metrics sink: listen = "{listen}" would answer everybody on the network',
                hint="listen on 127.0.0.1, or set insecure = true if the network is trusted",
            )
        registry = CollectorRegistry()
        registry.register(_Collector(daemon))
        for build in (ProcessCollector, PlatformCollector, GCCollector):
            build(registry=registry)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics sink: cannot listen on {listen}: {error.strerror}",
                hint="another daemon may have it: ss -ltnp",
            ) from error
        handler: Any = self._server.RequestHandlerClass
        self._server.RequestHandlerClass = type("Patient", (handler,), {"timeout": _PATIENCE_S})
        shown = f"[{host}]" if ":" in host else host
        self.where = f"http://{shown}:{self._server.server_port}/metrics"
        self._lock = threading.Lock()
        self._open = True

    def write(self, result: Result) -> None:
        """Results are counted where they are made."""

    def close(self) -> None:
        """Answer nobody any more; may be called twice."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_CLOSE_S)


class _Collector(Collector):
    """Turns a daemon's status into metrics."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the daemon has no status yet when the sink is made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All that is known now."""
        status = self._daemon.status()
        yield InfoMetricFamily("edgeperc_build", "What runs", value={"version": status.version})
        yield InfoMetricFamily("edgeperc_app", "The app that runs", value={"name": status.app})
        yield _states("edgeperc_state", "How the daemon is", {(): status.state}, _STATES, ())
        yield _gauge("edgeperc_uptime_seconds", "Since it was started", {(): status.uptime_s})
        yield _gauge("edgeperc_errors", "What is wrong now", {(): len(status.errors)})
        yield from _pipelines(status)
        yield from _sensors(status.sensors)
        yield from _workers(status.workers)
        yield from _sinks(status.sinks)
        yield from _recording(status.recording)
        yield from _machine()


def _pipelines(status: DaemonStatus) -> Iterator[Metric]:
    label = ("pipeline",)
    all_of = status.pipelines
    models = InfoMetricFamily(
        "edgeperc_model",
        "What really runs",
        labels=("pipeline", "model", "sha256", "engine", "provider", "precision"),
    )
    for each in all_of:
        ref = each.model
        named = (each.name, ref.name, ref.sha256, ref.engine, ref.provider, ref.precision)
        models.add_metric(named, {})
    yield models
    for name, what, text in (
        ("results", "results", "Results that went out"),
        ("dropped", "dropped", "Packets whose place a newer one took"),
        ("failed", "failed", "Packets that the model could not answer for"),
    ):
        counts = {(each.name,): getattr(each.meter, what) for each in all_of}
        yield _counter(f"edgeperc_pipeline_{name}", text, counts, label)
    rates = {(each.name,): each.meter.rate_hz for each in all_of}
    yield _gauge("edgeperc_pipeline_rate_hertz", "Results a second, of late", rates, label)
    broken = {(each.name,): bool(each.error) for each in all_of}
    yield _gauge("edgeperc_pipeline_has_error", "1 where something is wrong", broken, label)
    yield _stages(all_of)
    pairs = {
        (each.name, field.name): getattr(each.pairs, field.name)
        for each in all_of
        if each.pairs is not None
        for field in fields(each.pairs)
    }
    if pairs:
        text = "What a pairing of frames and events has seen"
        yield _counter("edgeperc_pairing", text, pairs, ("pipeline", "what"))


def _stages(pipelines: Iterable[PipelineStatus]) -> Metric:
    """Quantiles over the newest results; a summary without a sum, as nobody keeps one."""
    name = "edgeperc_stage_latency_seconds"
    metric = Metric(name, "Time in each stage, over the newest 1024 results", "summary")
    for each in pipelines:
        for row in each.meter.stages:
            for quantile, value_ms in (("0.5", row.p50_ms), ("0.99", row.p99_ms)):
                labels = {"pipeline": each.name, "stage": row.stage, "quantile": quantile}
                metric.add_sample(name, labels, value_ms / 1000)
    return metric


def _sensors(sensors: Iterable[SensorStatus]) -> Iterator[Metric]:
    label = ("sensor",)
    all_of = tuple(sensors)
    states = {(each.name,): each.state for each in all_of}
    yield _states("edgeperc_sensor_state", "How a sensor is", states, _SENSOR_STATES, label)
    for what in ("packets", "events", "frames", "moves"):
        counts = {(each.name,): getattr(each, what) for each in all_of}
        yield _counter(f"edgeperc_sensor_{what}", f"{what.title()} of a sensor", counts, label)
    faults = {
        (each.name, field.name): getattr(each.counters, field.name)
        for each in all_of
        for field in fields(each.counters)
        if field.name != "received"
    }
    text = "Events and frames that broke the rules of order, bounds or gaps"
    yield _counter("edgeperc_sensor_faults", text, faults, ("sensor", "fault"))


def _workers(workers: Iterable[WorkerStatus]) -> Iterator[Metric]:
    label = ("worker",)
    all_of = tuple(workers)
    states = {(each.name,): each.state for each in all_of}
    yield _states("edgeperc_worker_state", "How a process is", states, _WORKER_STATES, label)
    restarts = {(each.name,): each.restarts for each in all_of}
    yield _counter("edgeperc_worker_restarts", "Starts after the first", restarts, label)
    rss = {(each.name,): each.rss_bytes for each in all_of}
    yield _gauge("edgeperc_worker_resident_memory_bytes", "Its memory", rss, label)
    beats = {(each.name,): each.beat_s for each in all_of}
    yield _gauge("edgeperc_worker_silence_seconds", "Since it made progress", beats, label)
    doing = {
        (each.name, what.model, what.network, str(what.number), str(what.count)): what.seconds
        for each in all_of
        if (what := each.preparing)
    }
    text = "How long a process has been loading a network, or building its engine"
    named = ("worker", "model", "network", "number", "count")
    yield _gauge("edgeperc_worker_preparing_seconds", text, doing, named)


def _sinks(sinks: Iterable[SinkStatus]) -> Iterator[Metric]:
    label = ("sink", "where")
    clients: dict[Any, int] = {}
    grown: dict[Any, int] = {}
    for each in sinks:
        for name, count in each.counts.items():
            named = (each.kind.lower(), each.where)
            if name == "clients":
                clients[named] = count
            else:
                grown[(each.kind.lower(), each.where, name)] = count
    yield _gauge("edgeperc_sink_clients", "Who is served now", clients, label)
    text = "What a sink counts: dropped results, refused calls"
    yield _counter("edgeperc_sink", text, grown, (*label, "what"))


def _recording(recording: RecordingStatus | None) -> Iterator[Metric]:
    running = {(): bool(recording and recording.running)}
    yield _gauge("edgeperc_recording_running", "1 while everything is recorded", running)
    if recording is None:
        return
    yield _counter("edgeperc_recording_bytes", "Written by this recording", {(): recording.bytes})
    messages, dropped = {(): recording.messages}, {(): recording.dropped}
    yield _counter("edgeperc_recording_messages", "Written by this recording", messages)
    yield _counter("edgeperc_recording_dropped", "Messages the disk was too slow for", dropped)
    wrong = {(): bool(recording.error)}
    yield _gauge("edgeperc_recording_has_error", "1 where it ended by an error", wrong)


def _machine() -> Iterator[Metric]:
    degrees = {(zone,): value for zone, value in HERE.temperatures().items()}
    yield _gauge("edgeperc_temperature_celsius", "Of a thermal zone", degrees, ("zone",))
    slow = {(): len(HERE.throttling())}
    yield _gauge("edgeperc_throttling", "Parts that are slowed down now", slow)
    builds = {(each.network,): each.seconds for each in building()}
    text = "How long an engine has been in the making"
    yield _gauge("edgeperc_engine_build_seconds", text, builds, ("network",))


def _gauge(name: str, text: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(metric: Any, values: Values) -> Metric:
    for named, value in values.items():
        metric.add_metric(named, value)
    filled: Metric = metric
    return filled


def _states(
    name: str,
    text: str,
    now: Mapping[Any, str],
    states: tuple[str, ...],
    labels: tuple[str, ...],
) -> Metric:
    metric = StateSetMetricFamily(name, text, labels=labels)
    for named, state in now.items():
        metric.add_metric(named, {each: each == state for each in states})
    return metric
