"""A thread that sends what sinks are given: bounded, the newest wins, every loss counted.

sending = Sending(send, depth=8, name="ros2")
sending.start()
sending.put(("wide", "sltnet"), result)     # never blocks
sending.lost                                # how many were not sent
sending.close()
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger("edgeperc")
Item = TypeVar("Item")
CLOSE_S = 1.5


class Sending(Generic[Item]):
    """Calls `send` for each item, in its one thread; of a stream at most `depth` items wait.

    Streams take turns, so that a fast one does not starve the others. each_s: call `tick` so
    often. What either of them raises ends the thread; `put` raises it then.
    """

    def __init__(
        self,
        send: Callable[[Item], None],
        *,
        name: str,
        depth: int = 8,
        tick: Callable[[], None] | None = None,
        each_s: float = 1.0,
    ) -> None:
        self._send, self._tick = send, tick
        self._depth, self._each_s = depth, each_s
        self._waiting: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._broken: Exception | None = None
        self.sent = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, stream: Hashable, item: Item) -> None:
        """Let an item wait for its turn; the oldest of its stream may be lost for it.

        Raises what `send` or `tick` died of.
        """
        with self._changed:
            if self._broken:
                raise self._broken
            if self._closed:
                return
            waiting = self._waiting.setdefault(stream, deque())
            if len(waiting) == self._depth:
                waiting.popleft()
                self.lost += 1
            waiting.append(item)
            self._changed.notify()

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Send what waits and end; False if that takes longer. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        next_s = time.monotonic()
        try:
            while True:
                if self._tick and time.monotonic() >= next_s:
                    next_s = time.monotonic() + self._each_s
                    self._tick()
                with self._changed:
                    wait_s = max(0.0, next_s - time.monotonic()) if self._tick else None
                    self._changed.wait_for(lambda: self._waiting or self._closed, wait_s)
                    if not self._waiting:
                        if self._closed:
                            return
                        continue
                    stream, waiting = self._waiting.popitem(last=False)
                    item = waiting.popleft()
                    if waiting:
                        self._waiting[stream] = waiting
                self._send(item)
                self.sent += 1
        except Exception as error:  # handed to whoever puts next
            log.info("%s: %s", self._thread.name, error)
            with self._changed:
                self._broken = error
