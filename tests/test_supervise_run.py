"""A daemon's processes: killed, stopped and crashing, one at a time, while the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeperc.errors import ConfigError, ModelError
from edgeperc.packet import Events, Frame
from edgeperc.plan import Plan
from edgeperc.supervise import worker as module
from edgeperc.supervise.daemon import supervise
from edgeperc.supervise.run import SupervisedRun

from .ticking import Kept, Seeing, eventually, exists, write_app


class Started:
    """A run at work with a sink."""

    def __init__(self, folder: Path, **how: Any) -> None:
        self.folder = folder
        self.run = SupervisedRun(Plan.load(str(write_app(folder, **how))))
        self.sink = Kept()
        self.run.add(self.sink)
        self.run.start()

    def pid(self, name: str) -> int:
        return {worker.name: worker.pid for worker in self.run.workers()}[name]

    def restarts(self, name: str) -> int:
        return {worker.name: worker.restarts for worker in self.run.workers()}[name]

    def count(self, source: str) -> int:
        return self.sink.results.get(source, 0)

    def goes_on(self, *sources: str) -> None:
        before = {source: self.count(source) for source in sources}
        eventually(lambda: all(self.count(each) > before[each] + 2 for each in sources))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    each = Started(tmp_path_factory.mktemp("app"), hang_s=4)
    each.goes_on("left", "right")
    yield each
    pids = [worker.pid for worker in each.run.workers()]
    each.run.stop()
    assert not any(exists(pid) for pid in pids if pid)
    assert each.sink.closed == 1


def test_each_sensor_and_each_pipeline_has_a_process_and_says_how_it_is(started: Started) -> None:
    workers = {worker.name: worker for worker in started.run.workers()}
    assert set(workers) == {"sensors/left", "sensors/right", "pipelines/a", "pipelines/b"}
    assert len({worker.pid for worker in workers.values()} - {os.getpid()}) == 4
    eventually(lambda: all(worker.rss_bytes > 1 << 20 for worker in started.run.workers()))
    eventually(lambda: all(worker.state == "running" for worker in started.run.workers()))
    left, right = started.run.sensors()
    assert (left.name, right.name) == ("left", "right")
    eventually(lambda: started.run.sensors()[0].events > 0 and started.run.sensors()[0].frames > 0)
    a, _ = started.run.pipelines()
    assert a.model.name == "sltnet-twin"
    eventually(lambda: all(pipeline.meter.results for pipeline in started.run.pipelines()))

    def all_well() -> bool:
        started.run.report()
        return all(started.sink.well.values())

    eventually(all_well)
    assert set(started.sink.well) == set(workers)


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("sensors/left", signal.SIGKILL),
        ("pipelines/a", signal.SIGKILL),
        ("pipelines/a", signal.SIGSTOP),
        pytest.param("sensors/left", signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
def test_who_dies_or_hangs_is_started_anew_and_nobody_else_is(
    victim: str, number: signal.Signals, started: Started
) -> None:
    eventually(lambda: started.pid(victim))
    before = {worker.name: worker.pid for worker in started.run.workers()}
    restarts = started.restarts(victim)
    os.kill(before[victim], number)
    started.goes_on("right")
    eventually(lambda: started.restarts(victim) > restarts)
    eventually(lambda: started.pid(victim) not in (0, before[victim]))
    started.goes_on("left", "right")
    others = {worker.name: worker.pid for worker in started.run.workers() if worker.name != victim}
    assert others == {name: pid for name, pid in before.items() if name != victim}
    assert not exists(before[victim])


@pytest.mark.slow
def test_who_waits_to_be_sent_off_does_not_hang(tmp_path: Path) -> None:
    run = SupervisedRun(Plan.load(str(write_app(tmp_path, hang_s=1))))
    try:
        time.sleep(2.5)
        assert [worker.restarts for worker in run.workers()] == [0] * 4
    finally:
        run.stop()


def test_a_device_that_is_lost_is_waited_for_in_its_process(started: Started) -> None:
    pid, trouble = started.pid("sensors/left"), started.folder / "left"
    trouble.write_text("lost")
    eventually(lambda: started.run.sensors()[0].state == "lost")
    assert "unplugged" in started.run.sensors()[0].error
    started.run.report()
    assert started.sink.well == {
        "sensors/left": False,
        "sensors/right": True,
        "pipelines/a": False,
        "pipelines/b": True,
    }
    started.goes_on("right")
    trouble.unlink()
    eventually(lambda: started.run.sensors()[0].state == "running")
    started.goes_on("left", "right")
    assert started.pid("sensors/left") == pid


def test_a_sink_sees_the_packets_while_it_is_there(started: Started) -> None:
    sink = Seeing()
    started.run.add(sink)
    eventually(lambda: {packet.stamp.source for packet in sink.packets} == {"left", "right"})
    eventually(lambda: {type(packet) for packet in sink.packets} == {Events, Frame})
    frame = next(packet for packet in sink.packets if isinstance(packet, Frame))
    assert (frame.image == frame.stamp.seq % 256).all()
    assert not frame.image.flags.writeable
    eventually(lambda: bool(sink.results))
    before = started.pid("sensors/left")
    os.kill(before, signal.SIGKILL)  # the new one's packets come, too
    eventually(lambda: started.pid("sensors/left") not in (0, before))
    count = len(sink.packets)
    eventually(
        lambda: any(packet.stamp.source == "left" for packet in list(sink.packets[count + 10 :]))
    )
    started.run.remove(sink)
    assert sink.closed == 1
    time.sleep(0.3)
    count = len(sink.packets)
    started.goes_on("right")
    assert len(sink.packets) == count


@pytest.mark.slow
def test_who_dies_again_and_again_has_failed_and_is_tried_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "FAILED_S", 0.5)
    monkeypatch.setattr(module, "QUICK_DEATHS", 2)
    each = Started(tmp_path)
    try:
        (tmp_path / "left").write_text("exit")

        def failed() -> bool:
            return any(worker.state == "failed" for worker in each.run.workers())

        eventually(failed)
        assert each.run.sensors()[0].state == "lost"
        assert any("exit code 7" in error for error in each.run.errors)
        each.goes_on("right")
        (tmp_path / "left").unlink()
        each.goes_on("left", "right")
        eventually(lambda: not each.run.errors)
    finally:
        each.run.stop()


@pytest.mark.slow
def test_who_takes_too_much_memory_is_started_anew(tmp_path: Path) -> None:
    each = Started(tmp_path, supervise="max_rss_mib = 3")
    try:
        eventually(lambda: any("max_rss_mib" in worker.error for worker in each.run.workers()))
    finally:
        each.run.stop()


def test_it_ends_when_all_its_sensors_end(tmp_path: Path) -> None:
    each = Started(tmp_path, left="count = 30", right="count = 30")
    try:
        assert each.run.wait(60)
        assert [sensor.state for sensor in each.run.sensors()] == ["ended", "ended"]
        assert each.count("left") >= 1
        assert each.run.errors == ()
    finally:
        each.run.stop()


@pytest.mark.parametrize(
    ("old", "new", "kind", "words"),
    [
        ('"sltnet-twin"', '"sltnet-ddd17"', ModelError, "not here yet"),
        pytest.param(
            *(
                "threads = 1",
                "threads = 1\nwindow_us = 5\nwindow_events = 5",
                ConfigError,
                "one of",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    old: str, new: str, kind: type[Exception], words: str, tmp_path: Path
) -> None:
    path = write_app(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(kind, match=words):
        supervise(Plan.load(str(path)))
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        supervise(Plan.load(str(write_app(tmp_path, left="colour = 3"))))


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_daemon_that_ends_takes_all_along_and_leaves_nothing(
    number: signal.Signals, tmp_path: Path
) -> None:
    path = write_app(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "edgeperc", "serve", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stdout
        for line in daemon.stdout:
            if "Ctrl-C" in line:
                break
        children = Path(f"/proc/{daemon.pid}/task")
        pids: set[int] = set()

        def are_there() -> bool:
            for task in list(children.iterdir()):
                with suppress(OSError):  # a thread that has ended since
                    pids.update(map(int, (task / "children").read_text().split()))
            return len(pids) == 4

        eventually(are_there)
        daemon.send_signal(number)
        started_s = time.monotonic()
        _, err = daemon.communicate(timeout=30)
        eventually(lambda: not any(exists(pid) for pid in pids), 10)
        assert time.monotonic() - started_s < 10  # one to two seconds on a machine at rest
    assert daemon.returncode == (-number if number == signal.SIGKILL else 0), err
    assert "Traceback" not in err
    assert not [name for name in os.listdir("/dev/shm") if "edgeperc" in name]
