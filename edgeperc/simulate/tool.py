"""`edgeperc simulate mirror`: a simulated mirror in a process of its own, and what it hears."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from edgeperc.simulate.devices import Kind
from edgeperc.simulate.faults import parse
from edgeperc.simulate.mirror import MirrorSimulator

REDRAW_S = 0.1
RATE_OVER_S = 2.0


def simulate_mirror(
    kind: Kind,
    *,
    faults: Sequence[str],
    duration_s: float | None,
    **options: Any,
) -> None:
    """Print the port, or the link to it, and play the mirror until Ctrl-C, SIGTERM or duration_s.

    Shows a live line on stderr if that is a terminal, and one line at the end. faults: in the words
    of `edgeperc.simulate.faults`. options: see `MirrorSimulator`. Used from the main thread.
    Raises ConfigError.
    """
    wanted = [parse(fault) for fault in faults]
    with _signals() as stopping, MirrorSimulator(kind, **options) as simulator:
        for fault in wanted:
            simulator.inject(fault)
        print(options.get("link") or simulator.port, flush=True)
        _show(simulator, duration_s, stopping)


@contextmanager
def _signals() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set."""
    stopping = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stopping.set()) for number in numbers]
    try:
        yield stopping
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _show(simulator: MirrorSimulator, duration_s: float | None, stopping: Event) -> None:
    console = Console(stderr=True, highlight=False)
    rate = _Rate()
    end_s = math.inf if duration_s is None else time.monotonic() + duration_s
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while time.monotonic() < end_s and not stopping.wait(REDRAW_S):
            if console.is_terminal:
                live.update(Text(_line(simulator, rate), no_wrap=True), refresh=True)
    print(_line(simulator, rate), file=sys.stderr)


class _Rate:
    """Commands a second, over the last `RATE_OVER_S`."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def of(self, count: int) -> float:
        now_s = time.monotonic()
        self._counts.append((now_s, count))
        while now_s - self._counts[0][0] > RATE_OVER_S:
            self._counts.popleft()
        first_s, first = self._counts[0]
        return (count - first) / max(now_s - first_s, REDRAW_S)


def _line(simulator: MirrorSimulator, rate: _Rate) -> str:
    at = simulator.position()
    last = simulator.received[-1].command if simulator.received else b""
    return "  ".join(
        [
            f"{simulator.kind} on {simulator.port if simulator.plugged else '(unplugged)'}",
            f"{simulator.count} commands, {rate.of(simulator.count):.0f}/s",
            f"({math.degrees(at.pan_rad):+.2f}°, {math.degrees(at.tilt_rad):+.2f}°)",
            simulator.device.shown(last),
        ]
    ).rstrip()
