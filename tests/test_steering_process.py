"""The search in a process of its own, on the twin with the bundled detector."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeperc import places
from edgeperc.clock import ReplayClock
from edgeperc.control import ControlError
from edgeperc.errors import ConfigError, DeviceError, ModelError
from edgeperc.packet import Frame, Gaze, Stamp
from edgeperc.plan import Plan
from edgeperc.result import Detections, ModelRef, Result, SearchMap
from edgeperc.simulate.mirror import MirrorSimulator
from edgeperc.steering import process as module
from edgeperc.steering.__main__ import Child
from edgeperc.steering.channel import Channel, pair
from edgeperc.steering.process import ProcessSearch
from edgeperc.supervise.feed import Feed

APP = """
rig = "twin-search"
[[pipelines]]
name = "wide"
input = "wide"
model = "finder-twin"
[[pipelines]]
name = "gaze"
input = "search"
model = "{model}"
rate_hz = 60.0
threads = 1
[search]
gaze = "gaze"
hints = ["wide"]
scheduler = "{scheduler}"
"""


def plan(folder: Path, *, model: str = "finder-twin", scheduler: str = "bayes") -> Plan:
    path = folder / "app.toml"
    path.write_text(APP.format(model=model, scheduler=scheduler))
    return Plan.load(str(path))


def _wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


class Search:
    """A search that runs in a thread, and what it says."""

    def __init__(self, wanted: Plan) -> None:
        self.results: list[Result] = []
        self.frames: list[Frame] = []
        self.clock = ReplayClock()
        self.process = ProcessSearch(wanted, hints=frozenset({"wide"}), anchor=self.clock.origin)
        self.thread = threading.Thread(
            target=self.process.run, args=(self.results.append, self.frames.append), daemon=True
        )
        self.thread.start()

    def looks(self) -> list[Detections]:
        return [result for result in list(self.results) if isinstance(result, Detections)]

    def maps(self) -> list[SearchMap]:
        return [result for result in list(self.results) if isinstance(result, SearchMap)]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    running = Search(plan(tmp_path_factory.mktemp("app")))
    yield running
    running.process.stop()
    running.thread.join(30)
    assert not running.thread.is_alive()


def hint() -> Detections:
    return Detections(
        stamp=Stamp(source="wide", seq=0, start_ns=0, end_ns=0),
        boxes=np.array([[100, 300, 120, 310]], np.float32),
        scores=np.array([0.9], np.float32),
        class_ids=np.array([0]),
        classes=("person", "vehicle"),
        model=ModelRef(name="m"),
        picture_px=(960, 448),
    )


def test_looks_and_maps_come_and_the_parts_say_how_they_are(search: Search) -> None:
    _wait_for(lambda: len(search.looks()) > 30 and len(search.maps()) > 1)
    looks = search.looks()
    assert [look.stamp.seq for look in looks[:10]] == list(range(10))
    assert all(look.gaze is not None for look in looks)
    assert len({look.gaze for look in looks[:30]}) > 10
    camera, mirror = search.process.sensors()
    assert (camera.name, mirror.name) == ("search", "mirror")
    (pipeline,) = search.process.pipelines()
    _wait_for(lambda: search.process.pipelines()[0].meter.results > 0)
    assert pipeline.name == "gaze"
    assert "priority" in pipeline.note
    assert [ref.name for ref in search.process.refs] == ["finder-twin", "bayes"]


def test_its_pictures_come_while_they_are_wanted(search: Search) -> None:
    _wait_for(lambda: len(search.looks()) > 5)
    assert not search.frames
    search.process.show(True)
    _wait_for(lambda: len(search.frames) > 20)
    search.process.show(False)
    frame = search.frames[-1]
    assert frame.image.shape == (224, 224)
    assert frame.gaze is not None
    assert frame.stamp.source == "search"
    worker = search.process.worker()
    assert (worker.name, worker.state, worker.pid) == ("search", "running", search.process.pid)
    count = len(search.looks())
    _wait_for(lambda: len(search.looks()) > count + 5)  # the last of them are here now
    seen = len(search.frames)
    _wait_for(lambda: len(search.looks()) > count + 20)
    assert len(search.frames) == seen


def test_a_hint_moves_the_map(search: Search) -> None:
    _wait_for(lambda: len(search.maps()) > 0)
    search.process.hint("wide", hint())
    column, row = 12, 84  # a third of the way down, at the left

    def glows() -> bool:
        newest = search.maps()[-1].intensity
        around = newest[row - 20 : row + 20, : column + 30]
        return bool(around.max() > 10 * np.median(newest)) or glanced()

    def glanced() -> bool:
        return any(look.gaze and look.gaze.pan_rad < -0.35 for look in search.looks()[-60:])

    _wait_for(glows)


def test_a_killed_process_is_started_again(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESTART_S", 0.1)
    _wait_for(lambda: len(search.looks()) > 0)
    victim = search.process.pid
    os.kill(victim, signal.SIGKILL)
    counted = search.process.pipelines()[0].meter.results
    _wait_for(lambda: search.process.pid != victim)
    before = len(search.looks())
    _wait_for(lambda: len(search.looks()) > before + 10)
    (pipeline,) = search.process.pipelines()
    assert "signal 9" in pipeline.note
    assert pipeline.meter.results >= counted


def test_a_process_that_does_not_come_back_at_once_is_tried_again_and_the_daemon_stays_up(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RESTART_S", 0.1)
    start, attempts = search.process._start, []

    def failing() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise ModelError("its network was taken away")
        start()

    monkeypatch.setattr(search.process, "_start", failing)
    os.kill(search.process.pid, signal.SIGKILL)
    before = len(search.looks())
    _wait_for(lambda: len(attempts) == 3 and len(search.looks()) > before + 10)
    assert search.thread.is_alive()
    assert "network was taken away" in search.process.pipelines()[0].note


def test_a_lease_goes_on_while_the_process_that_obeys_it_is_started_anew(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RESTART_S", 0.5)
    steering, there = search.process.steering, Gaze(pan_rad=0.2, tilt_rad=0.0)
    _wait_for(lambda: search.process.worker().state == "running" and bool(search.looks()))
    lease = steering.acquire("me", 60.0)
    steering.point(lease, there)
    _wait_for(lambda: _is_at(search.looks()[-1], there))
    victim = search.process.pid
    os.kill(victim, signal.SIGKILL)
    _wait_for(lambda: search.process.worker().state == "restarting")
    count = len(search.looks())
    with pytest.raises(DeviceError, match="started anew") as refused:
        steering.point(lease, Gaze(pan_rad=-0.3, tilt_rad=-0.1))
    assert "the lease goes on" in refused.value.hint
    assert (steering.state().holder, steering.state().gaze) == ("me", None)
    with pytest.raises(ControlError, match="'me' steers"):
        steering.acquire("you", 1.0)
    _wait_for(lambda: len(search.looks()) > count + 30)
    assert search.process.pid != victim
    pans = [look.gaze.pan_rad for look in search.looks()[count:] if look.gaze]
    tilts = [look.gaze.tilt_rad for look in search.looks()[count:] if look.gaze]
    assert max(map(abs, tilts)) < 0.01  # the scheduler would look up and down, too
    assert min(pans) > -0.01
    assert max(pans) < 0.21
    assert _is_at(search.looks()[-1], there)
    steering.point(lease, Gaze(pan_rad=-0.2, tilt_rad=0.1))
    _wait_for(lambda: _is_at(search.looks()[-1], Gaze(pan_rad=-0.2, tilt_rad=0.1)))
    steering.release(lease)


@pytest.mark.slow
def test_a_lease_that_runs_out_while_nobody_obeys_is_over(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RESTART_S", 0.5)
    steering = search.process.steering
    _wait_for(lambda: search.process.worker().state == "running")
    lease = steering.acquire("me", 0.3)
    os.kill(search.process.pid, signal.SIGKILL)
    _wait_for(lambda: search.process.worker().state == "restarting")
    _wait_for(lambda: steering.state().holder == "")
    with pytest.raises(ControlError, match="it is over"):
        steering.point(lease, Gaze(pan_rad=0.0, tilt_rad=0.0))
    count = len(search.looks())

    def searches() -> bool:
        return len({look.gaze for look in search.looks()[count:]}) > 10

    _wait_for(searches)
    lease = steering.acquire("you", 1.0)
    steering.release(lease)


def _is_at(look: Detections, gaze: Gaze) -> bool:
    assert look.gaze
    aside = abs(look.gaze.pan_rad - gaze.pan_rad), abs(look.gaze.tilt_rad - gaze.tilt_rad)
    return max(aside) < 4e-3


def test_a_setting_that_a_device_refuses_is_said_before_anything_starts(tmp_path: Path) -> None:
    rig = (places.share() / "devices" / "twin-search.toml").read_text()
    before, _, _ = rig.partition("[mirror]")
    mirror = '[mirror]\ndriver = "twin-mirror"\npan_range_deg = [30.0, -30.0]\n'
    (tmp_path / "rig.toml").write_text(before.replace("calibration =", "# calibration =") + mirror)
    app = APP.format(model="finder-twin", scheduler="raster")
    (tmp_path / "app.toml").write_text(app.replace('"twin-search"', '"./rig.toml"'))
    with pytest.raises(ConfigError, match=r"\[mirror\].*pan_range_deg"):
        ProcessSearch(
            Plan.load(str(tmp_path / "app.toml")), hints=frozenset(), anchor=lambda: (0, 0)
        )


def test_a_daemon_that_is_killed_takes_its_search_along(tmp_path: Path) -> None:
    plan(tmp_path)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "edgeperc", "serve", str(tmp_path / "app.toml")],
        stdout=subprocess.DEVNULL,
    )
    try:
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
        search = [0]

        def is_searching() -> bool:
            search[:] = [pid for pid in map(int, children.read_text().split()) if _searches(pid)]
            return bool(search)

        _wait_for(is_searching)
    finally:
        daemon.kill()
        daemon.wait()
    _wait_for(lambda: not _exists(search[0]))


def _searches(pid: int) -> bool:
    return b"edgeperc.steering" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"scheduler": "bajes"}, ConfigError, "unknown scheduler 'bajes'"),
        ({"model": "sltnet-ddd17"}, ModelError, "not here yet"),
        ({"model": "regions-twin"}, ConfigError, "'regions-twin' gives no boxes"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    options: dict[str, str], kind: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        ProcessSearch(plan(tmp_path, **options), hints=frozenset(), anchor=lambda: (0, 0))


def test_the_plan_of_a_search_crosses_to_its_process_as_it_is(tmp_path: Path) -> None:
    import pickle

    wanted = plan(tmp_path)
    arrived = pickle.loads(pickle.dumps(wanted))
    assert arrived == wanted
    assert msgspec.to_builtins(arrived.app) == msgspec.to_builtins(wanted.app)


def test_a_mirror_that_is_unplugged_stops_the_search_until_it_is_back(tmp_path: Path) -> None:
    rig = (places.share() / "devices" / "twin-search.toml").read_text()
    before, _, _ = rig.partition("[mirror]")
    port = tmp_path / "mirror"
    mirror = f'[mirror]\ndriver = "optotune"\nport = "{port}"\n'
    (tmp_path / "rig.toml").write_text(before.replace("calibration =", "# calibration =") + mirror)
    app = APP.format(model="finder-twin", scheduler="raster")
    (tmp_path / "app.toml").write_text(app.replace('"twin-search"', '"./rig.toml"'))
    with MirrorSimulator("optotune", link=port) as simulator:
        running = Search(Plan.load(str(tmp_path / "app.toml")))
        try:
            _wait_for(lambda: len(running.looks()) > 20)
            simulator.inject("unplug:1s")
            _wait_for(lambda: running.process.sensors()[1].state == "lost")
            assert str(port) in running.process.sensors()[1].error
            looks_while_lost = len(running.looks())
            _wait_for(lambda: running.process.sensors()[1].state == "running")
            _wait_for(lambda: len(running.looks()) > looks_while_lost + 20)
            assert "modelled" in running.process.pipelines()[0].note
        finally:
            running.process.stop()
            running.thread.join(30)


def test_what_comes_right_behind_the_start_is_kept() -> None:
    ours, theirs = pair()
    child = Child(Channel(theirs), Feed())
    child._next_status_s = float("inf")  # it has no loop to tell of
    for message in (("show", False), ("go", (1, 2)), ("show", True)):
        ours.send(message)
    assert child._await("go") == (1, 2)
    assert list(child.take(0)) == []
    assert child._is_shown
    ours.close()
    theirs.close()
