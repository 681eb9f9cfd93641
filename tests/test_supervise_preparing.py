"""What a daemon says while its processes load networks and build engines."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from edgeperc.client import connect
from edgeperc.config import SuperviseTable
from edgeperc.control import Preparing, WorkerStatus
from edgeperc.inference import engines
from edgeperc.inference.session import Session
from edgeperc.places import find_model
from edgeperc.plan import Plan
from edgeperc.supervise.daemon import SupervisedDaemon
from edgeperc.supervise.orders import Report
from edgeperc.supervise.preparing import Doing, announcing, building_late
from edgeperc.supervise.run import SupervisedRun
from edgeperc.supervise.worker import Worker

from .ticking import Kept, eventually

APP = """
rig = "twin"
[[pipelines]]
name = "objects"
input = "dvs"
model = "promptable"
threads = 1
[[sinks]]
kind = "grpc"
listen = "127.0.0.1:0"
[[sinks]]
kind = "metrics"
listen = "127.0.0.1:0"
[supervise]
hang_s = 1.0
"""


def test_it_says_what_is_prepared_before_it_serves_and_kills_nobody_for_it(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text(APP)
    plan = Plan.load(str(path))
    run = SupervisedRun(plan)
    try:
        thread = threading.Thread(target=SupervisedDaemon, args=(plan, run), daemon=True)
        thread.start()
        worker = next(each for each in run._pipelines.values())
        eventually(lambda: worker._doing and worker._doing.network)
        os.kill(worker.status().pid, signal.SIGSTOP)  # as one that builds an engine for long
        eventually(lambda: len(run.where) == 2)
        before = worker.status()
        with connect(run.where[0].rpartition(" ")[2]) as client:

            def doing() -> WorkerStatus:
                (said,) = (each for each in client.status().workers if each.preparing)
                return said

            eventually(lambda: (doing().preparing or before.preparing).seconds > 2.5)  # type: ignore[union-attr]
            said = doing()
            assert (said.name, said.pid, said.restarts) == ("pipelines/objects", before.pid, 0)
            assert said.preparing
            assert (said.preparing.model, said.preparing.count) == ("promptable", 4)
            assert said.preparing.network.endswith(".onnx")
            assert 1 <= said.preparing.number <= 4
            status = client.status()
            assert status.state == "starting"
            assert status.notes[0].startswith("pipelines/objects: preparing promptable: ")
            assert status.errors == ()
            assert not client.is_healthy()
            with urlopen(run.where[1], timeout=30) as answer:
                figures = answer.read().decode()
            assert 'edgeperc_worker_preparing_seconds{count="4",model="promptable"' in figures
            assert thread.is_alive()
            os.kill(before.pid, signal.SIGCONT)
            thread.join(60)
            assert not thread.is_alive()
            assert [each.name for each in client.models()] == ["promptable"]
        assert worker.status().preparing is None
        sink = Kept()
        run.add(sink)
        run.start()
        eventually(lambda: sink.results.get("dvs", 0) > 1)
        assert worker.status().restarts == 0
    finally:
        run.stop()


def test_a_network_is_announced_with_its_place_among_the_others() -> None:
    said: list[tuple[str, Any]] = []
    model = find_model("promptable")
    with announcing(model.card, lambda kind, content: said.append((kind, content))):
        Session(model.folder / "encoder.onnx")
        Session(model.folder / "decoder.onnx")
    assert said == [
        ("preparing", ("promptable", "", 0, 4)),
        ("preparing", ("promptable", "encoder.onnx", 1, 4)),
        ("preparing", ("promptable", "decoder.onnx", 2, 4)),
    ]


def test_what_is_prepared_is_a_sentence() -> None:
    doing = Preparing(model="m", network="a.onnx", number=2, count=3, seconds=61.2, bytes=3_200_000)
    assert str(doing) == "preparing m: a.onnx, 2 of 3, 61 s, engine of 3 MB so far"
    doing = Preparing(model="m", network="", number=0, count=1, seconds=0.4)
    assert str(doing) == "preparing m, 0 s"


class Building:
    """An engine that this test seems to build in the name of another process."""

    def __init__(self, pid: int) -> None:
        folder = engines.root() / f"{engines.BUILDING}net-{pid}-1"
        folder.mkdir(parents=True)
        about = {"network": "net.onnx", "provider": engines.TENSORRT, "pid": pid}
        about |= {"began_s": time.monotonic() - 5}
        (folder / "key.json").write_text(json.dumps(about))
        (folder / "part.engine").write_bytes(bytes(1000))
        self._lock = (folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def done(self) -> None:
        self._lock.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_the_size_of_an_engine_that_is_built_is_told() -> None:
    other, mine = Building(41), Building(42)
    doing = Doing("m", "net.onnx", 1, 1)
    assert doing.status(42).bytes > 1000
    assert doing.status(43).bytes == 0
    late = building_late("m", 42)
    assert late
    assert (late.model, late.network, late.number) == ("m", "net.onnx", 0)
    assert 5 <= late.seconds < 65
    mine.done()
    other.done()
    assert building_late("m", 42) is None


class Nobody:
    """An owner that hears nothing."""


@pytest.mark.usefixtures("cache")
def test_who_is_long_at_a_packet_is_hung_unless_it_builds_an_engine() -> None:
    limits = SuperviseTable(hang_s=10, start_s=100)
    worker = Worker("pipelines/a", "pipeline", None, Nobody(), limits=limits)  # type: ignore[arg-type]
    worker._process = Process()  # type: ignore[assignment]
    worker._is_ready = worker._is_wanted = True
    worker.report = Report(progress=5, at=6)
    worker._busy_s, worker._heard_s, worker._rss_s = 11.0, time.monotonic(), time.monotonic() + 60
    assert "hung: it was at one packet for 11.0 s" in worker._trouble()
    building = Building(Process.pid)
    assert worker._trouble() == ""
    worker._busy_s = 101.0
    assert "hung" in worker._trouble()
    building.done()


class Process:
    pid = 4242
