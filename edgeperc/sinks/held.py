"""Sessions that no stream holds: for clients that cannot have streams to both sides.

    held = HeldSessions()
    session = held.create(tracker, ttl_s=30.0)
    held.get(session.id).ask([Reset()], context)
    yield from session.responses(delivery, context)     # one watcher at a time, the newest

They go when they are deleted, when nothing was heard of them for ttl_s, and with their pipeline.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import grpc

from edgeperc.errors import EdgepercError
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.sessions import Accepted, End, RefusedError, Request, Session
from edgeperc.sinks.mailbox import Published, delivery_options
from edgeperc.sinks.outbox import Outbox
from edgeperc.sinks.replies import still_wanted
from edgeperc.sinks.session_messages import (
    closed_message,
    opened_message,
    refused_message,
    result_message,
)
from edgeperc.tracker import Tracker

PICTURE_S = 10.0
"""So long a call waits for the pictures that answer it."""
POLL_S, LEAVE_S = 1.0, 1.0


@dataclass(eq=False)
class _Watch:
    """Who reads a session."""

    outbox: Outbox
    context: grpc.ServicerContext
    leave: threading.Timer | None = None

    def dismiss(self) -> None:
        """Send what waits, and end, even if the client does not read."""
        self.outbox.close()
        if self.leave is None:
            self.leave = threading.Timer(LEAVE_S, self.context.cancel)
            self.leave.daemon = True
            self.leave.start()


class Held:
    """One such session. id: what clients ask for it by; nobody can guess it.

    Raises RefusedError where there is no room or the ttl_s makes no sense.
    """

    def __init__(self, tracker: Tracker, ttl_s: float, on_over: Callable[[Held], None]) -> None:
        self.id = secrets.token_hex(16)
        self.tracker = tracker
        self._on_over = on_over
        self._changed = threading.Condition()
        self._ended: End | None = None
        self._watch: _Watch | None = None
        self._lost: EdgepercError | None = None
        self.session: Session = tracker.sessions.open(
            ttl_s=ttl_s, on_lost=self._lose, on_end=self._end
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._ended is not None

    def opened(self) -> tracking.SessionOpened:
        """What there is to know about it."""
        return opened_message(self.tracker, self.session, self.id)

    def ask(
        self, requests: Sequence[Request | EdgepercError], context: grpc.ServicerContext
    ) -> list[Accepted | EdgepercError]:
        """What became of each request, once it is known of all; what is an error already stays one.

        Raises RefusedError ("later") where no picture comes in time, or ("unknown") where the
        session ends meanwhile; ends the call where nobody waits for it.
        """
        answers: dict[int, Accepted | EdgepercError] = {}

        def answer(index: int, said: Accepted | EdgepercError) -> None:
            with self._changed:
                answers[index] = said
                self._changed.notify_all()

        for index, request in enumerate(requests):
            if isinstance(request, EdgepercError):
                answer(index, request)
            else:
                self.session.ask(request, partial(answer, index))
        context.add_callback(self._wake)
        end_s = time.monotonic() + PICTURE_S
        with self._changed:
            while len(answers) < len(requests):
                if self.is_over:
                    raise over()
                still_wanted(context)
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise RefusedError(
                        f"no picture that answers came within {PICTURE_S:g} s",
                        why="later",
                        hint="what was asked may still be done with the next one",
                    )
                self._changed.wait(left_s)
        return [answers[index] for index in range(len(requests))]

    def put(self, item: Published) -> None:
        """Let a result wait for whoever watches, if it is of this session's pipeline."""
        watch = self._watch
        if watch and item.stream == (self.tracker.source, self.tracker.ref.name):
            watch.outbox.put(item)

    def responses(
        self, delivery: pb.DeliveryPolicy, context: grpc.ServicerContext
    ) -> Iterator[tracking.SessionResponse]:
        """What a watcher gets, until the session is over or another one watches, which ends the
        call with ABORTED. Raises ConfigError for a delivery out of range.
        """
        watch = _Watch(Outbox(**delivery_options(delivery)), context)
        self._begin(watch)
        try:
            if not context.add_callback(watch.outbox.close):
                return
            yield tracking.SessionResponse(opened=self.opened())
            while not watch.outbox.has_ended:
                self.session.touch()
                item = watch.outbox.next(min(POLL_S, self.session.ttl_s / 2))
                if isinstance(item, tracking.SessionResponse):
                    yield item
                elif item:
                    yield tracking.SessionResponse(result=result_message(self.session, *item))
                else:  # where no pictures come, nobody else looks at the time
                    self.tracker.sessions.expire()
            if self._ended and self._ended != "gone":
                yield closed_message(self._ended)
            elif self._watch is not watch and context.is_active():
                context.abort(grpc.StatusCode.ABORTED, "another Watch of this session has begun")
        finally:
            self._leave(watch)

    def _begin(self, watch: _Watch) -> None:
        """Watch from now on, in place of whoever did."""
        with self._changed:
            before, self._watch = self._watch, watch
            lost, self._lost = self._lost, None
        if before:
            before.dismiss()
        if lost:
            watch.outbox.say(tracking.SessionResponse(refused=refused_message(lost)))
        if self.is_over:  # meanwhile
            watch.dismiss()

    def _leave(self, watch: _Watch) -> None:
        watch.outbox.close()
        if watch.leave:
            watch.leave.cancel()
        with self._changed:
            if self._watch is watch:
                self._watch = None

    def _lose(self, error: EdgepercError) -> None:
        """The network has forgotten its objects: tell who watches, or who will."""
        with self._changed:
            watch = self._watch
            if watch is None:
                self._lost = error
        if watch:
            watch.outbox.say(tracking.SessionResponse(refused=refused_message(error)))

    def _end(self, why: End) -> None:
        with self._changed:
            self._ended = why
            watch = self._watch
            self._changed.notify_all()
        if watch:
            watch.dismiss()
        self._on_over(self)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class HeldSessions:
    """Those of all pipelines, by id; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}

    def create(self, tracker: Tracker, ttl_s: float) -> Held:
        """Begin one. Raises RefusedError."""
        held = Held(tracker, ttl_s, self._forget)
        with self._lock:
            self._held[held.id] = held
        if held.is_over:  # already, as the pipeline went
            self._forget(held)
        return held

    def get(self, session_id: str) -> Held:
        """One of them, which has heard of its client now. Raises RefusedError ("unknown")."""
        with self._lock:
            held = self._held.get(session_id)
        if held is None:
            raise over()
        held.tracker.sessions.expire()
        if held.is_over:
            raise over()
        held.session.touch()
        return held

    def put(self, item: Published) -> None:
        """Let a result wait for those who watch."""
        with self._lock:
            everyone = tuple(self._held.values())
        for held in everyone:
            held.put(item)

    def close(self) -> None:
        """End all, as the daemon stops."""
        with self._lock:
            everyone = tuple(self._held.values())
        for held in everyone:
            held.session.close("stopping")

    def _forget(self, held: Held) -> None:
        with self._lock:
            self._held.pop(held.id, None)


def over() -> RefusedError:
    """There is no such session."""
    return RefusedError(
        "no such session, or it is over", why="unknown", hint="CreateSession begins another"
    )
