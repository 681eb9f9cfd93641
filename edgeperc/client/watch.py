"""A terminal client: what a running daemon says, as a live picture, as lines or as JSON."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgeperc.client.client import Client, Received, connect
from edgeperc.client.connection import Access
from edgeperc.errors import EdgepercError
from edgeperc.plain import about, content
from edgeperc.render.preview import class_shares, picture, summary
from edgeperc.result import LabelMap, Result

TICK_S = 0.2
LINE_EVERY_S = 1.0
RATE_OVER_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
QUEUE_DEPTH = 256
REDRAW_S = 0.1
WIDEST = 80  # characters; a picture drawn larger tells no more and flickers

Item: TypeAlias = "Arrival | str | None"
"""A result, a notice about the daemon, or nothing: time to look at the clock."""


class Arrival(msgspec.Struct, frozen=True):
    """A result and when it came. delivery_ms: from the daemon's handing it out to here."""

    received: Received
    delivery_ms: float
    arrived_s: float

    @property
    def stream(self) -> tuple[str, str]:
        """Source and model."""
        return self.received.result.stamp.source, self.received.result.model.name

    @property
    def latency_ms(self) -> float:
        """From the packet's arrival at the daemon until the daemon handed the result out."""
        return self.received.result.timings.total_ns * 1e-6


def watch(
    address: str,
    *,
    as_json: bool = False,
    duration_s: float | None = None,
    access: Access | None = None,
) -> None:
    """Show what the daemon at "host:port" says until `duration_s` has passed or Ctrl-C is pressed.

    A picture in a terminal, a line a second where the output is none; as_json: one line a result.
    Once connected, waits for a daemon that goes away. Raises DeviceError if there is none at first.
    """
    console = Console()
    try:
        with _Feed(connect(address, access=access), mode="queue" if as_json else "latest") as feed:
            items = feed.items(duration_s)
            if as_json:
                _show_json(items)
            elif console.is_terminal:
                _show_live(items, console)
            else:
                _show_lines(items)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Feed:
    """Reads results in a thread and connects again when the daemon went away."""

    def __init__(self, client: Client, *, mode: Literal["latest", "queue"]) -> None:
        self._client = client
        self._mode = mode
        self._items: queue.Queue[Arrival | str] = queue.Queue(QUEUE_DEPTH)
        self._stopping = threading.Event()
        threading.Thread(target=self._run, name="edgeperc watch", daemon=True).start()

    def __enter__(self) -> _Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._client.close()
        with suppress(queue.Empty):
            while True:
                self._items.get_nowait()  # the thread may wait for room

    def items(self, duration_s: float | None) -> Iterator[Item]:
        """What comes, and None every `TICK_S` without, for `duration_s`."""
        end_s = float("inf") if duration_s is None else time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                yield self._items.get(timeout=min(TICK_S, left_s))
            except queue.Empty:
                yield None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._receive()
                reason = f"the daemon at {self._client.address} stopped"
            except EdgepercError as error:
                reason = str(error)
            if not self._stopping.is_set():
                self._items.put(f"{reason}; waiting for it")
                self._reconnect()

    def _receive(self) -> None:
        for received in self._client.subscribe(mode=self._mode, depth=QUEUE_DEPTH):
            delivery_ms = max(0, time.time_ns() - received.published_ns) * 1e-6
            self._items.put(Arrival(received, delivery_ms, time.monotonic()))

    def _reconnect(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.wait(pause_s):
            try:
                self._client.sources()
            except EdgepercError:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._items.put(f"connected to {self._client.address} again")
                return


class _Tally:
    """What there is to say about the results of one source and model."""

    def __init__(self) -> None:
        self.newest: Result
        self._first_s = time.monotonic()
        self._results = 0
        self._dropped = 0
        self._recent: deque[tuple[float, float]] = deque(maxlen=2000)  # arrived_s, latency_ms

    def add(self, arrival: Arrival) -> None:
        self.newest = arrival.received.result
        self._results += 1
        self._dropped += arrival.received.dropped_before
        self._recent.append((arrival.arrived_s, arrival.latency_ms + arrival.delivery_ms))

    def figures(self) -> dict[str, str]:
        """Columns of the table. Latency is from the packet's arrival at the daemon to here."""
        now_s = time.monotonic()
        recent_ms = [ms for arrived_s, ms in self._recent if now_s - arrived_s < RATE_OVER_S]
        over_s = max(TICK_S, min(RATE_OVER_S, now_s - self._first_s))
        p50_ms, p99_ms = np.percentile(recent_ms or [np.nan], [50, 99])
        return {
            "source": self.newest.stamp.source,
            "model": self.newest.model.name,
            "engine": self.newest.model.engine,
            "per second": f"{len(recent_ms) / over_s:.1f}",
            "latency p50 ms": f"{p50_ms:.1f}",
            "p99 ms": f"{p99_ms:.1f}",
            "results": f"{self._results:,}",
            "dropped": f"{self._dropped:,}",
        }


Tallies: TypeAlias = defaultdict[tuple[str, str], _Tally]


def _show_json(items: Iterator[Item]) -> None:
    for item in items:
        if isinstance(item, Arrival):
            print(msgspec.json.encode(_json(item)).decode(), flush=True)
        elif item:
            print(item, file=sys.stderr)


def _json(arrival: Arrival) -> dict[str, Any]:
    result = arrival.received.result
    line = about(result) | {
        "engine": result.model.engine,
        "latency_ms": round(arrival.latency_ms, 3),
        "delivery_ms": round(arrival.delivery_ms, 3),
        "dropped_before": arrival.received.dropped_before,
    }
    line |= content(result)
    if isinstance(result, LabelMap):
        line["shares"] = {name: round(share, 5) for name, share in class_shares(result).items()}
    return line


def _show_lines(items: Iterator[Item]) -> None:
    tallies: Tallies = defaultdict(_Tally)
    next_s = time.monotonic() + LINE_EVERY_S
    for item in items:
        if isinstance(item, Arrival):
            tallies[item.stream].add(item)
        elif item:
            print(item, file=sys.stderr)
        if time.monotonic() >= next_s:
            next_s += LINE_EVERY_S
            for tally in tallies.values():
                print(_line(tally), flush=True)


def _line(tally: _Tally) -> str:
    source, model, engine, *figures = tally.figures().items()
    said = ", ".join(f"{name} {value}" for name, value in figures)
    seen = summary(tally.newest).plain.replace("■ ", "")
    return f"{source[1]} by {model[1]} ({engine[1]}): {said}: {seen}"


def _show_live(items: Iterator[Item], console: Console) -> None:
    tallies: Tallies = defaultdict(_Tally)
    notice, drawn_s = "connected; no result yet", 0.0
    with Live(console=console, auto_refresh=False) as live:
        for item in items:
            if isinstance(item, Arrival):
                tallies[item.stream].add(item)
                notice = ""
            elif item:
                notice = item
            if time.monotonic() - drawn_s >= REDRAW_S:
                live.update(_picture(tallies, notice, console), refresh=True)
                drawn_s = time.monotonic()


def _picture(tallies: Tallies, notice: str, console: Console) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    figures = [tally.figures() for tally in tallies.values()]
    for name in figures[0] if figures else ():
        table.add_column(name, justify="left" if name in ("source", "model", "engine") else "right")
    for row in figures:
        table.add_row(*row.values())
    parts: list[RenderableType] = [table]
    rows = (console.height - len(tallies) - 3) // max(1, len(tallies)) - 2
    for tally in tallies.values():
        parts.append(picture(tally.newest, columns=min(console.width, WIDEST), rows=rows))
        parts.append(summary(tally.newest))
    return Group(*parts, Text(notice, "yellow"))
