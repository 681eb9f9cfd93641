"""A recording as a sensor: its pace, its decoder's process, and what happens when that breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.drivers.formats.packets import UntilError, cut, in_order
from edgeperc.drivers.formats.wire import Job
from edgeperc.drivers.formats.worker import Worker
from edgeperc.drivers.replay import Replay
from edgeperc.errors import ConfigError, DataError, DeviceError
from edgeperc.packet import Events, Packet

Written = Callable[[str], Path]


def times(packets: list[Packet]) -> Any:
    return np.concatenate([packet.t for packet in packets if isinstance(packet, Events)])


class Log:
    """A clock that never waits and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked_ns: list[int] = []

    def wait_until(self, time_ns: int) -> bool:
        self.asked_ns.append(time_ns)
        return True

    def stop(self) -> None:
        pass


def test_each_packet_waits_for_its_end(written: Written) -> None:
    clock = Log()
    for packet in Replay(str(written("evt2")), clock=clock).packets():
        assert clock.asked_ns[-1] == packet.stamp.end_ns
    assert clock.asked_ns == sorted(clock.asked_ns)


def test_a_long_wait_is_done_in_steps_and_a_jump_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "events.txt"
    times_us = [0, 1_000, 9_000_000, 3_600_000_000, 3_600_001_000, 500, 1_500]
    path.write_text("".join(f"{t} 1 1 1\n" for t in times_us))
    clock = Log()
    packets = list(Replay(str(path), clock=clock, packet_us=500).packets())
    assert times(packets).tolist() == times_us
    steps_ms = np.diff(clock.asked_ns) / 1e6
    assert steps_ms.max() <= 20
    assert steps_ms.min() >= 0
    assert clock.asked_ns[-1] == 9_001_000 * 1000  # the jumps take no time


def test_a_stopped_clock_ends_the_replay(written: Written) -> None:
    clock = ReplayClock(1.0)
    packets = Replay(str(written("evt2")), clock=clock).packets()
    next(packets)
    clock.stop()
    assert list(packets) == []


def test_start_and_duration_cut_to_the_event(scene: Any, written: Written) -> None:
    replay = Replay(str(written("aedat4")), start_s=0.1, duration_s=0.2)
    packets = list(replay.packets())
    first_us = min(int(scene.t[0]), scene.exposures_us[0][0])
    inside = (scene.t >= first_us + 100_000) & (scene.t < first_us + 300_000)
    assert (times(packets) == scene.t[inside]).all()
    ends = [end for _, end in scene.exposures_us]
    expected = [e for e in ends if first_us + 100_000 <= e < first_us + 300_000]
    frames = [p.stamp.end_ns // 1000 for p in packets if not isinstance(p, Events)]
    assert frames == expected


def test_mistakes_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.raw: no such file"):
        Replay("nowhere.raw")
    (tmp_path / "empty.raw").touch()
    with pytest.raises(DataError, match=r"empty.raw: the file is empty"):
        Replay(str(tmp_path / "empty.raw"))
    (tmp_path / "metadata.yaml").touch()
    with pytest.raises(DataError, match=r"the folder holds no ROS 2 recording"):
        list(Replay(str(tmp_path)).packets())


def test_a_contradiction_about_the_sensor_is_a_config_error(written: Written) -> None:
    path = str(written("evt2"))
    with pytest.raises(ConfigError, match=f"{path}: the sensor is 64 × 48 px in the file"):
        list(Replay(path, width_px=65).packets())


def test_close_from_another_thread_ends_a_wait(written: Written) -> None:
    replay = Replay(str(written("evt2")), clock=ReplayClock(0.05))
    started = threading.Event()

    def consume() -> None:
        for _ in replay.packets():
            started.set()

    thread = threading.Thread(target=consume)
    thread.start()
    assert started.wait(10)
    replay.close()
    thread.join(30)
    assert not thread.is_alive()
    replay.close()
    assert list(replay.packets()) == []


READER = """
import ctypes, os, signal, sys, time
import numpy as np
from edgeperc.drivers.formats.packets import events
from edgeperc.errors import DataError

def good(k):
    t = np.arange(10) + 20_000 * k
    return events(t, t % 4, t % 4, t % 2, (4, 4))

def read(path, options):
    yield good(0)
    yield good(1)
    {then}

watch = read
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    """A worker whose reader yields 20 events and then does something."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(then: str, *, live: bool = False, deadline_s: float = 10.0) -> Worker:
        module = f"reader_{abs(hash(then))}"
        (tmp_path / f"{module}.py").write_text(READER.format(then=then))
        job = Job(module=module, source="here", live=live)
        error = DeviceError if live else DataError
        return Worker(job, label="rec.x", deadline_s=deadline_s, error=error)

    return make


def delivered(worker: Worker) -> Iterator[int]:
    for packet in worker.packets():
        assert isinstance(packet, Events)
        yield len(packet)


@pytest.mark.parametrize(
    ("then", "complaint"),
    [
        ("while True: pass", "the decoder hung for 1.5 s"),
        ("ctypes.PyDLL(None).sleep(60)", "the decoder hung for 1.5 s"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"the decoder crashed \(SIGSEGV\)"),
        ("print('out of luck', file=sys.stderr); os._exit(3)", r"\(exit code 3\): out of luck"),
        ("raise DataError('byte 7 is wrong')", "byte 7 is wrong"),
        ("raise RuntimeError('lz4: bad block')", "lz4: bad block"),
        ("raise type('PanicException', (BaseException,), {})('panicked')", "panicked"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_what_came_is_delivered_and_the_end_explained(
    worker: Callable[..., Worker], then: str, complaint: str
) -> None:
    deadline_s = 1.5 if "hung" in complaint else 10.0
    packets = UntilError(worker(then, deadline_s=deadline_s).packets())
    held_back = in_order(cut(packets, span_us=10_000, count=1000))
    assert times(list(held_back)).size == 20
    with pytest.raises(DataError, match=rf"^rec.x: .*{complaint} \(after 20 events\)$"):
        packets.reraise()


def test_a_live_source_fails_as_a_device(worker: Callable[..., Worker]) -> None:
    with pytest.raises(DeviceError, match="rec.x: unplugged"):
        list(delivered(worker("raise RuntimeError('unplugged')", live=True)))


def test_an_error_brings_its_hint_and_the_decoders_traceback(worker: Callable[..., Worker]) -> None:
    with pytest.raises(DataError) as caught:
        list(delivered(worker("raise DataError('broken', hint='mend it')")))
    assert caught.value.hint == "mend it"
    assert "in read" in str(caught.value.__cause__)


def test_what_a_library_prints_does_not_come_between(worker: Callable[..., Worker]) -> None:
    then = "print('hello'); os.write(1, b'x' * 1000); yield good(2)"
    assert sum(delivered(worker(then))) == 30


def test_an_abandoned_replay_leaves_no_process(worker: Callable[..., Worker]) -> None:
    stuck = worker("while True: pass")
    packets = stuck.packets()
    next(packets)
    process = stuck._process
    assert process
    packets.close()  # type: ignore[attr-defined]
    assert process.returncode == -signal.SIGKILL


def test_times_beyond_64_bits_come_as_far_off(worker: Callable[..., Worker]) -> None:
    image = "np.zeros((2, 3), np.uint8)"
    then = f"from edgeperc.drivers.formats.packets import frame; yield frame({image}, 0, 1 << 70)"
    *_, last = worker(then).packets()
    assert last.stamp.end_ns == 1 << 62


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


PLAYER = """
    import sys
    from edgeperc.drivers.formats.wire import Job
    from edgeperc.drivers.formats.worker import Worker
    worker = Worker(Job(module="stuck", source="x"), label="x", deadline_s=100)
    try:
        for packet in worker.packets():
            print(worker._process.pid, flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.parametrize("how", ["kill -9", "Ctrl-C"])
def test_the_decoder_ends_with_its_parent(how: str, tmp_path: Path) -> None:
    """Also while it hangs in native code, and without a word on the terminal."""
    hang = "ctypes.PyDLL(None).sleep(60)"
    (tmp_path / "stuck.py").write_text(READER.format(then=hang))
    player = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PLAYER)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert player.stdout
    decoder = int(player.stdout.readline())
    try:
        if how == "kill -9":
            player.kill()
        else:
            os.killpg(player.pid, signal.SIGINT)
        out, err = player.communicate(timeout=10)
        assert err == ""
        assert out.endswith("stopped\n") == (how == "Ctrl-C")
        for _ in range(100):
            if not runs(decoder):
                break
            time.sleep(0.05)
        assert not runs(decoder)
    finally:
        if runs(decoder):
            os.kill(decoder, signal.SIGKILL)


PATIENT = """
    import signal
    from edgeperc.drivers.formats.wire import Job
    from edgeperc.drivers.formats.worker import Worker
    signal.signal(signal.SIGINT, lambda *_: None)
    worker = Worker(Job(module="slow", source="x"), label="x", deadline_s=100)
    print(*(len(packet) for packet in worker.packets() if not print("packet", flush=True)))
"""


def test_ctrl_c_leaves_the_decoder_to_its_parent(tmp_path: Path) -> None:
    """Which may want to finish what it has begun."""
    then = "time.sleep(0.5); yield good(2)"
    (tmp_path / "slow.py").write_text(READER.format(then=then))
    player = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PATIENT)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert player.stdout
    assert player.stdout.readline() == "packet\n"
    os.killpg(player.pid, signal.SIGINT)
    out, err = player.communicate(timeout=20)
    assert err == ""
    assert out.endswith("10 10 10\n")
