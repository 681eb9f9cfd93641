"""Figures as Prometheus' own parser reads them."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeperc import plugin
from edgeperc.assemble import assemble
from edgeperc.client import connect
from edgeperc.control import DaemonStatus, RecordingStatus, SinkStatus, WorkerStatus
from edgeperc.errors import ConfigError
from edgeperc.meter import Meter
from edgeperc.pairs import PairCounters
from edgeperc.plan import Plan
from edgeperc.result import ModelRef, Timings
from edgeperc.sinks.metrics import Metrics
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.validate import Counters

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Daemon:
    """A daemon with a status of everything."""

    def __init__(self) -> None:
        meter = Meter()
        for k in range(100):
            meter.finished(Timings(infer_ns=1_000_000 * (k + 1)), 0)
        meter.dropped(3)
        meter.failed()
        ref = ModelRef(
            name="finder-twin", sha256="ab" * 32, engine="onnxruntime", provider='CPU"\\Exe\n'
        )
        self.now = DaemonStatus(
            version="1.2.3",
            app="search",
            state="degraded",
            uptime_s=12.5,
            sensors=(
                SensorStatus(
                    name="wide",
                    state="lost",
                    packets=7,
                    frames=7,
                    counters=Counters(received=9, dropped=2, gaps=1),
                ),
            ),
            pipelines=(
                PipelineStatus(
                    name="gaze",
                    model=ref,
                    meter=meter.snapshot(),
                    error="",
                    pairs=PairCounters(pairs=5),
                ),
            ),
            workers=(
                WorkerStatus(
                    name="pipelines/gaze",
                    state="running",
                    pid=1,
                    restarts=2,
                    rss_bytes=1 << 20,
                    beat_s=0.25,
                ),
            ),
            recording=RecordingStatus(
                name="r", path="r.mcap", running=True, bytes=1000, messages=10, dropped=1
            ),
            sinks=(
                SinkStatus(
                    kind="Grpc",
                    where="edgeperc watch 127.0.0.1:1",
                    counts={"clients": 2, "dropped": 30, "refused_unauthenticated": 4},
                ),
            ),
            errors=("sensor 'wide' lost",),
        )

    def status(self) -> DaemonStatus:
        return self.now


@pytest.fixture
def sink() -> Iterator[Metrics]:
    made = Metrics(daemon=Daemon(), listen="127.0.0.1:0")  # type: ignore[arg-type]
    yield made
    made.close()
    made.close()


def scrape(where: str) -> Samples:
    with urllib.request.urlopen(where, timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, /, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_all_that_the_daemon_says_is_there(sink: Metrics) -> None:
    found = scrape(sink.where)
    assert value(found, "edgeperc_build_info", version="1.2.3") == 1
    assert value(found, "edgeperc_app_info", name="search") == 1
    assert value(found, "edgeperc_state", edgeperc_state="degraded") == 1
    assert value(found, "edgeperc_state", edgeperc_state="serving") == 0
    assert value(found, "edgeperc_uptime_seconds") == 12.5
    assert value(found, "edgeperc_errors") == 1
    of = {"pipeline": "gaze"}
    assert value(found, "edgeperc_pipeline_results_total", **of) == 100
    assert value(found, "edgeperc_pipeline_dropped_total", **of) == 3
    assert value(found, "edgeperc_pipeline_failed_total", **of) == 1
    assert value(found, "edgeperc_pairing_total", what="pairs", **of) == 5
    half = {"stage": "infer", "quantile": "0.5", **of}
    assert value(found, "edgeperc_stage_latency_seconds", **half) == pytest.approx(0.0505)
    model = {
        "model": "finder-twin",
        "sha256": "ab" * 32,
        "engine": "onnxruntime",
        "provider": 'CPU"\\Exe\n',
        "precision": "fp32",
    }
    assert value(found, "edgeperc_model_info", **model, **of) == 1
    wide = {"sensor": "wide"}
    assert value(found, "edgeperc_sensor_state", edgeperc_sensor_state="lost", **wide) == 1
    assert value(found, "edgeperc_sensor_frames_total", **wide) == 7
    assert value(found, "edgeperc_sensor_faults_total", fault="dropped", **wide) == 2
    worker = {"worker": "pipelines/gaze"}
    assert value(found, "edgeperc_worker_restarts_total", **worker) == 2
    assert value(found, "edgeperc_worker_resident_memory_bytes", **worker) == 1 << 20
    assert value(found, "edgeperc_worker_silence_seconds", **worker) == 0.25
    grpc = {"sink": "grpc", "where": "edgeperc watch 127.0.0.1:1"}
    assert value(found, "edgeperc_sink_clients", **grpc) == 2
    assert value(found, "edgeperc_sink_total", what="dropped", **grpc) == 30
    assert value(found, "edgeperc_sink_total", what="refused_unauthenticated", **grpc) == 4
    assert value(found, "edgeperc_recording_running") == 1
    assert value(found, "edgeperc_recording_bytes_total") == 1000
    assert value(found, "edgeperc_recording_dropped_total") == 1
    assert value(found, "process_resident_memory_bytes") > 1e6


def test_names_follow_the_conventions(sink: Metrics) -> None:
    with urllib.request.urlopen(sink.where, timeout=30) as answer:
        text = answer.read().decode()
    ours = [f for f in text_string_to_metric_families(text) if f.name.startswith("edgeperc_")]
    assert len(ours) > 20
    for family in ours:
        assert family.documentation
        assert not family.name.endswith(("_ms", "_ns", "_percent"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name


def test_a_daemon_that_has_hardly_begun(sink: Metrics) -> None:
    daemon = Daemon()
    daemon.now = DaemonStatus(version="1", app="events", state="starting", uptime_s=0.0)
    young = Metrics(daemon=daemon, listen="127.0.0.1:0")  # type: ignore[arg-type]
    assert value(scrape(young.where), "edgeperc_state", edgeperc_state="starting") == 1
    young.close()


def test_it_listens_where_it_may() -> None:
    with pytest.raises(ConfigError, match="would answer everybody"):
        Metrics(daemon=Daemon(), listen="0.0.0.0:0")  # type: ignore[arg-type]
    Metrics(daemon=Daemon(), listen="0.0.0.0:0", insecure=True).close()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected"):
        Metrics(daemon=Daemon(), listen="9464")  # type: ignore[arg-type]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {taken}"):
            Metrics(daemon=Daemon(), listen=taken)  # type: ignore[arg-type]


def test_clients_that_say_nothing_keep_nobody_waiting(sink: Metrics) -> None:
    host, port = sink.where.removeprefix("http://").removesuffix("/metrics").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    for each in silent[:10]:
        each.sendall(b"GET /met")
    assert value(scrape(sink.where), "edgeperc_uptime_seconds") == 12.5
    for each in silent:
        each.close()


def test_after_the_end_nobody_is_answered(sink: Metrics) -> None:
    sink.close()
    with pytest.raises(urllib.error.URLError):
        scrape(sink.where)


def test_an_app_with_this_sink_is_scraped_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "app.toml"
    pipeline = 'name = "events"\ninput = "dvs"\nmodel = "sltnet-twin"\n'
    sink = "".join(
        f'[[sinks]]\nkind = "{kind}"\nlisten = "127.0.0.1:0"\n' for kind in ("metrics", "grpc")
    )
    file.write_text(f'rig = "twin"\n[[pipelines]]\n{pipeline}{sink}')
    assert "metrics" in plugin.SINKS
    run = assemble(Plan.load(str(file)))
    where = next(each for each in run.where if each.endswith("/metrics"))
    run.start()
    try:
        deadline_s = time.monotonic() + 60
        while not (found := scrape(where)).get(
            ("edgeperc_pipeline_results_total", (("pipeline", "events"),))
        ):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert value(found, "edgeperc_sensor_packets_total", sensor="dvs") > 0
        (watch,) = (each for each in run.where if "watch" in each)
        grpc = {"sink": "grpc", "where": watch}
        assert value(found, "edgeperc_sink_clients", **grpc) == 0
        with connect(watch.split()[-1]) as client:
            results = client.subscribe()
            assert value(scrape(where), "edgeperc_sink_clients", **grpc) == 1
            results.close()
    finally:
        run.stop()
    assert not [t for t in threading.enumerate() if "metrics" in t.name]
