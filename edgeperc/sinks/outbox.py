"""What one tracking session has yet to be sent: answers, which are never lost, and results."""

from __future__ import annotations

from collections import deque

from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.sinks.mailbox import Mailbox, Published

MAX_UNREAD = 64
"""Answers that may wait for a client before it is heard again."""


class Outbox(Mailbox):
    """A mailbox that also carries answers: they are never lost and go before the results.

    Where only the newest result counts, those of before a request was carried out go: the next one
    shows what was asked for.
    """

    def __init__(self, *, depth: int | None, max_rate_hz: float) -> None:
        super().__init__(depth=depth, max_rate_hz=max_rate_hz)
        self._said: deque[tracking.SessionResponse] = deque()

    def say(self, response: tracking.SessionResponse) -> None:
        """Let an answer wait for `next`; never blocks."""
        with self._changed:
            if not self._closed:
                self._said.append(response)
                if self.depth is None and response.HasField("accepted"):
                    self._waiting.clear()
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait until the client has read what was answered, or is gone."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._said) < MAX_UNREAD or self._closed)

    def next(self, timeout_s: float) -> tracking.SessionResponse | tuple[Published, int] | None:
        """An answer, or else a result as from `take`."""
        with self._changed:
            self._changed.wait_for(lambda: self._said or self._waiting or self._closed, timeout_s)
            if self._said:
                self._changed.notify_all()
                return self._said.popleft()
        return self.take(0.0)

    @property
    def has_ended(self) -> bool:
        """Whether it is closed, and all was taken."""
        with self._changed:
            return self._closed and not (self._said or self._waiting)
