"""What one gRPC subscriber has yet to be sent: bounded, newest wins, every loss counted."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from typing import Any, TypeAlias

from edgeperc.errors import ConfigError
from edgeperc.proto.codec import to_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import Result
from edgeperc.sinks.shots import Shot

Stream: TypeAlias = tuple[str, str]
DEFAULT_DEPTH = 8
MAX_DEPTH = 256
MAX_DEPTH_IMAGES = 16
"""Where each result brings its image."""


class Published:
    """A result that was handed out; all its subscribers share one message per encoding.

    shot: what it was made from, where somebody wants to see that.
    """

    def __init__(self, result: Result, shot: Shot | None = None) -> None:
        self.result, self.shot = result, shot
        self.unix_ns = time.time_ns()
        self.monotonic_ns = time.monotonic_ns()
        self._lock = threading.Lock()
        self._messages: dict[pb.MaskEncoding, pb.Result] = {}
        self._bytes: dict[pb.MaskEncoding, bytes] = {}

    @property
    def stream(self) -> Stream:
        """Source and model: results of one stream replace each other and are counted together."""
        return self.result.stamp.source, self.result.model.name

    def message(self, encoding: pb.MaskEncoding) -> pb.Result:
        """The result on the wire, encoded by whoever asks first. Not to be changed."""
        with self._lock:
            if encoding not in self._messages:
                self._messages[encoding] = to_message(
                    self.result, encoding, published_ns=self.unix_ns
                )
            return self._messages[encoding]

    def wire(self, encoding: pb.MaskEncoding, dropped: int) -> bytes:
        """The message, serialized once for all; `dropped` is put behind it where there is any.

        Messages that follow each other are one: the later one's fields count.
        """
        data = self._bytes.get(encoding)
        if data is None:
            message = self.message(encoding)
            with self._lock:
                if encoding not in self._bytes:
                    self._bytes[encoding] = bytes(message.SerializeToString())
                data = self._bytes[encoding]
        if dropped:
            return data + bytes(pb.Result(dropped_before=dropped).SerializeToString())
        return data


class Mailbox:
    """Results on their way to one subscriber. `put` never blocks; `take` waits for one.

    depth: how many may wait, the oldest goes first; None keeps the newest of each stream.
    max_rate_hz: thins each stream to so many on average; 0 keeps all.
    """

    def __init__(self, *, depth: int | None = None, max_rate_hz: float = 0.0) -> None:
        self.depth = depth
        self._period_ns = int(1e9 / max_rate_hz) if max_rate_hz else 0
        self._due_ns: dict[Stream, int] = {}
        self._waiting: deque[tuple[int, Published]] = deque()
        self._arrived: Counter[Stream] = Counter()
        self._taken: Counter[Stream] = Counter()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Published) -> None:
        """Let `item` wait for `take`, or count it as lost."""
        with self._changed:
            if self._closed:
                return
            self._arrived[item.stream] += 1
            if self._replaces(item) or self._is_due(item):
                if len(self._waiting) == self.depth:
                    self._waiting.popleft()
                self._waiting.append((self._arrived[item.stream], item))
                self._changed.notify()

    def take(self, timeout_s: float | None = None) -> tuple[Published, int] | None:
        """Next result, and how many of its stream were lost since the one before.

        None once the mailbox is closed and empty, or after `timeout_s`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            if not self._waiting:
                return None
            ordinal, item = self._waiting.popleft()
            lost = ordinal - self._taken[item.stream] - 1
            self._taken[item.stream] = ordinal
            return item, lost

    def close(self) -> None:
        """Accept nothing more; what waits may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _replaces(self, item: Published) -> bool:
        """Take out the older result that `item` makes stale; the rate stays as it is."""
        if self.depth is None:
            for index, (_, waiting) in enumerate(self._waiting):
                if waiting.stream == item.stream:
                    del self._waiting[index]
                    return True
        return False

    def _is_due(self, item: Published) -> bool:
        due_ns = self._due_ns.get(item.stream, item.monotonic_ns)
        if item.monotonic_ns < due_ns:
            return False
        # On from the last due time, not from now: 30 Hz thinned to 20 gives 20, not 15, and jitter
        # costs nothing. After a pause at most two results come close together.
        self._due_ns[item.stream] = max(due_ns + self._period_ns, item.monotonic_ns)
        return True


def delivery_options(delivery: pb.DeliveryPolicy) -> dict[str, Any]:
    """Arguments of a Mailbox, as a client asks. Raises ConfigError if they are out of range."""
    rate_hz = delivery.max_rate_hz
    if not (math.isfinite(rate_hz) and rate_hz >= 0):
        raise ConfigError(f"max_rate_hz is {rate_hz}")
    if delivery.mode not in pb.DeliveryPolicy.Mode.values():
        raise ConfigError(f"mode is {delivery.mode}")
    if delivery.mode != pb.DeliveryPolicy.MODE_QUEUE:
        return {"depth": None, "max_rate_hz": rate_hz}
    if delivery.depth > MAX_DEPTH:
        raise ConfigError(f"depth is {delivery.depth}, must be at most {MAX_DEPTH}")
    return {"depth": delivery.depth or DEFAULT_DEPTH, "max_rate_hz": rate_hz}
