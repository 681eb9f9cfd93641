"""A fault of the wall clock: somebody sets it, an hour ahead and an hour back, while all works."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeperc import client
from edgeperc.bench.fault_parts import SEARCH_APP
from edgeperc.bench.fault_recordings import RECORD, corrupt
from edgeperc.bench.victim import FaultError, Victim
from edgeperc.bench.wall_clock import WallClock
from edgeperc.errors import EdgepercError

Do = Callable[[Path], float | None]

HOUR_S = 3600.0
STEPS_S = (HOUR_S, -HOUR_S, 0.0)
"""What the clock is set to, from the true time on."""
TTL_S = 2.0
SLACK_S = 60.0
MODELS = ("finder-twin", "bayes")


def wall_clock_set(folder: Path) -> float:
    """Set the clock of a daemon that searches and records, three times. Raises ImpossibleError."""
    app = SEARCH_APP.replace('rig = "rig.toml"', 'rig = "twin-search"') + RECORD.format(folder)
    longest_s = 0.0
    with WallClock(folder / "clock") as clock:
        with Victim(app, folder, environment=clock.environment) as victim:
            for model in MODELS:
                victim.wait_results(model)
            workers = victim.workers()
            with _listening(victim) as times:
                for step_s in STEPS_S:
                    longest_s = max(longest_s, _step(victim, clock, step_s, times))
            if victim.workers() != workers:
                raise FaultError("processes were started anew")
            if victim.healthy() is not True:
                raise FaultError("it is not well")
            victim.process.terminate()
            if victim.process.wait(10) != 0:
                raise FaultError(f"exit code {victim.process.returncode}")
        _check_recording(folder / "drive.mcap")
    return longest_s


FAULTS: tuple[tuple[str, str, Do], ...] = (
    (
        "wall clock set 1 h ahead and back",
        "no process dies, results go on, times never fall, leases end in time, recording whole",
        wall_clock_set,
    ),
)


class _Times:
    """When results were said to be published, and whether their stamps ever fell."""

    def __init__(self) -> None:
        self.published_s = 0.0
        self.fell = ""
        self.over = threading.Event()
        self._last: dict[tuple[str, str], int] = defaultdict(int)

    def see(self, received: client.Received) -> None:
        """One more result."""
        stamp = received.result.stamp
        stream = (stamp.source, received.result.model.name)
        if stamp.end_ns < self._last[stream]:
            back_s = (self._last[stream] - stamp.end_ns) * 1e-9
            self.fell = f"{stream[1]} of {stream[0]} went back by {back_s:.3f} s"
        self._last[stream] = stamp.end_ns
        self.published_s = received.published_ns * 1e-9


@contextmanager
def _listening(victim: Victim) -> Iterator[_Times]:
    """A client that reads all results meanwhile."""
    times = _Times()

    def listen() -> None:
        with client.connect(victim.address) as there:
            for received in there.subscribe(mode="queue", depth=256):
                times.see(received)
                if times.over.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield times
    finally:
        times.over.set()
        thread.join(5)


def _step(victim: Victim, clock: WallClock, step_s: float, times: _Times) -> float:
    """Set the clock, and see that all goes on; how long until every model gave results again."""
    with client.connect(victim.address) as there, there.steering("bench", ttl_s=TTL_S) as held:
        clock.set(step_s)
        began_s = time.monotonic()
        before = {model: victim.results(model) for model in MODELS}
        all_came = f"gives results after its clock was set by {step_s:+g} s"
        seconds = victim.until(
            lambda: all(victim.results(model) >= before[model] + 3 for model in MODELS),
            all_came,
            30,
        )
        victim.until(
            lambda: abs(times.published_s - time.time() - step_s) < SLACK_S,
            f"publishes by a clock that is {step_s:+g} s off",
            10,
        )
        if there.is_healthy() is not True:  # within its deadline of 5 s
            raise FaultError("it is not well")
        state = held.state()
        if state.holder != "bench" or not 0 < state.lease_s <= TTL_S:
            raise FaultError(f"the lease lasts {state.lease_s:g} s for '{state.holder}'")
        held._ended.set()  # it renews no more, and is to end by itself
        victim.until(lambda: there.mirror().holder == "", "ends a lease that nobody renews", 30)
        if time.monotonic() - began_s > SLACK_S:
            raise FaultError("the lease outlived its time")
    if times.fell:
        raise FaultError(f"stamps fell: {times.fell}")
    return seconds


def _check_recording(path: Path) -> None:
    """It has its end, and its times are those of one clock."""
    from edgeperc.recording.reader import messages

    first_ns, last_ns, count = 0, 0, 0
    try:
        for entry in messages(path, lambda topic, type_: True):
            first_ns = first_ns or entry.time_ns
            last_ns, count = max(last_ns, entry.time_ns), count + 1
    except EdgepercError as error:
        corrupt.append(str(path))
        raise FaultError(f"{path.name}: {error}") from error
    if not count or not path.read_bytes().endswith(b"\x89MCAP0\r\n"):
        corrupt.append(str(path))
        raise FaultError(f"{path.name}: it has no end")
    if (last_ns - first_ns) * 1e-9 > HOUR_S / 2:
        raise FaultError(f"{path.name}: its times span {(last_ns - first_ns) * 1e-9:.0f} s")
