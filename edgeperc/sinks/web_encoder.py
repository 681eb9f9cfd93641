"""From what sensors and pipelines say to messages, in one thread, once for all clients.

    encoder = Encoder(send=hand_out, ...)
    encoder.offer(("frame", "wide", ""), frame)     # from any thread, never blocks
    encoder.want({("frame", "wide", ""): 20.0})     # what clients look at, and how often a second

Of each stream only the newest is kept. What nobody wants is not encoded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from edgeperc.errors import EdgepercError
from edgeperc.packet import Events, Frame, Packet
from edgeperc.result import Detections, Instances, LabelMap, Result, SearchMap
from edgeperc.sinks.web_search import SearchView
from edgeperc.sinks.web_wire import events_message, frame_message, result_message

log = logging.getLogger("edgeperc")

Key: TypeAlias = tuple[str, str, str]
"""Kind, source, model: whatever is newer of one key replaces the older."""

KINDS = {LabelMap: "labels", Detections: "boxes", Instances: "instances", SearchMap: "search"}
_MOST_PACKETS = 4096


class Encoder:
    """Encodes what is wanted and hands it to `send`, which gets key and message in this thread.

    search: draws what a search believes, or None. window_ms: of events that are drawn together.
    """

    def __init__(
        self,
        *,
        send: Callable[[Key, bytes], None],
        search: SearchView | None,
        max_width_px: int,
        window_ms: float,
    ) -> None:
        self._send, self._search = send, search
        self._max_width_px = max_width_px
        self._window_ns = round(window_ms * 1e6)
        self._changed = threading.Condition()
        self._newest: dict[Key, Any] = {}
        self._fresh: set[Key] = set()
        self._wanted: dict[Key, float] = {}
        self._due_s: dict[Key, float] = {}
        self._windows: dict[str, deque[Events]] = {}
        self._closed = False
        self._broken: set[Key] = set()
        self.encoded = 0
        self._thread = threading.Thread(target=self._run, name="web encoder", daemon=True)
        self._thread.start()

    def take(self, packet: Packet) -> None:
        """A packet of a sensor."""
        source = packet.stamp.source
        if isinstance(packet, Frame):
            if search := self._search:
                search.see(packet)
            self._offer(("frame", source, ""), packet)
            return
        key = ("events", source, "")
        with self._changed:
            if key not in self._wanted:
                self._windows.pop(source, None)
                self._newest.setdefault(key, packet)
                return
            window = self._windows.setdefault(source, deque(maxlen=_MOST_PACKETS))
            window.append(packet)
            while window[0].stamp.end_ns < packet.stamp.end_ns - self._window_ns:
                window.popleft()
        self._offer(key, packet)

    def write(self, result: Result) -> None:
        """A result of a pipeline."""
        if isinstance(result, Detections) and result.gaze and (search := self._search):
            search.look(result)
        self._offer((KINDS[type(result)], result.stamp.source, result.model.name), result)

    def want(self, rates_hz: Mapping[Key, float]) -> None:
        """What clients look at from now on; what is there already comes at once."""
        with self._changed:
            new = rates_hz.keys() - self._wanted.keys()
            self._wanted = dict(rates_hz)
            self._fresh = {key for key in self._fresh if key in self._wanted}
            self._fresh |= {key for key in new if key in self._newest}
            self._changed.notify()

    def become(self, search: SearchView | None, *, forget: bool) -> None:
        """Go on as another app runs. forget: other sensors and models, so begin with nothing."""
        with self._changed:
            self._search = search
            if forget:
                self._newest.clear()
                self._windows.clear()
                self._fresh.clear()

    @property
    def streams(self) -> list[Key]:
        """All keys that anything has come for, sorted."""
        with self._changed:
            return sorted(self._newest)

    def close(self) -> None:
        """End the thread; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(2.0)

    def _offer(self, key: Key, item: Any) -> None:
        with self._changed:
            self._newest[key] = item
            if key in self._wanted and key not in self._fresh:
                self._fresh.add(key)
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now_s = time.monotonic()
                due = [key for key in self._fresh if self._due_s.get(key, 0.0) <= now_s]
                if not due:
                    next_s = min((self._due_s[key] for key in self._fresh), default=None)
                    self._changed.wait(None if next_s is None else next_s - now_s)
                    continue
                todo = [(key, self._content(key)) for key in due]
                for key in due:
                    self._fresh.discard(key)
                    due_s = self._due_s.get(key, 0.0)
                    self._due_s[key] = next_due_s(due_s, now_s, self._wanted[key])
            for key, content in todo:
                self._encode(key, content)

    def _content(self, key: Key) -> Any:
        """What is to be encoded: of events, all of the window."""
        if key[0] != "events":
            return self._newest[key]
        return tuple(self._windows.get(key[1], ())) or (self._newest[key],)

    def _encode(self, key: Key, content: Any) -> None:
        try:
            message = self._message(key[0], content)
        except (EdgepercError, ValueError) as error:
            if key not in self._broken:  # say it once
                self._broken.add(key)
                log.warning("web: %s of '%s' cannot be shown: %s", key[0], key[1], error)
            return
        if message:
            self.encoded += 1
            self._send(key, message)

    def _message(self, kind: str, content: Any) -> bytes | None:
        if kind == "frame":
            return frame_message(content, max_width_px=self._max_width_px)
        if kind == "events":
            return events_message(content, window_ns=self._window_ns)
        if kind == "search":
            search = self._search
            return search.message(content) if search else None
        return result_message(content)


def next_due_s(due_s: float, now_s: float, rate_hz: float) -> float:
    """When a stream's next message is due, of which one was due and goes out now.

    On from the due time and not from now, so that jitter costs nothing: 30 Hz thinned to 20 gives
    20, not 15. After a pause nothing is caught up with.
    """
    period_s = 1.0 / rate_hz
    return max(due_s + period_s, now_s + period_s / 2)
