"""`edgeperc.v1.TrackingService`: sessions of clients that point at things in a live video.

A session is held by its stream, or by an id that its client names (`edgeperc.sinks.held`).

Threads: each session's stream has one of the server's pool, which sends, and one of its own, which
hears. A client that only sends is heard no more until it reads its answers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import grpc

from edgeperc.errors import ConfigError, EdgepercError
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import Instances, Result
from edgeperc.sessions import Accepted, End, RefusedError, Remove, Request, Reset, Session
from edgeperc.sinks.grpc_standard import Seats
from edgeperc.sinks.held import HeldSessions
from edgeperc.sinks.mailbox import Published, delivery_options
from edgeperc.sinks.outbox import Outbox
from edgeperc.sinks.prompts import check_count
from edgeperc.sinks.replies import answered, code_of, sentence
from edgeperc.sinks.session_messages import (
    accepted_message,
    add_of,
    closed_message,
    opened_message,
    refused_message,
    result_message,
)
from edgeperc.sinks.waiting import Waiting
from edgeperc.tracker import Tracker

SERVICE = tracking.DESCRIPTOR.services_by_name["TrackingService"].full_name
OPEN_S, LEAVE_S, POLL_S = 5.0, 1.0, 1.0
CALLS = 8  # at a time that wait for a picture
SPARE_SEATS = 4  # for streams that are being refused or left
LEAST_SEATS = 32  # an app that comes later may allow sessions that this one does not


class Tracking(tracking_grpc.TrackingServiceServicer):  # type: ignore[misc]
    """The rpcs. Each open stream holds an outbox that `publish` fills.

    waiting: says why there is nothing to prompt yet. most_threads: of the server's, that they hold.
    """

    def __init__(self, trackers: Sequence[Tracker], waiting: Waiting) -> None:
        self._trackers, self._waiting = tuple(trackers), waiting
        sessions = sum(each.sessions.max_sessions for each in trackers)
        self._seats = Seats(max(sessions, LEAST_SEATS) + SPARE_SEATS)
        self._calls = Seats(CALLS)
        self.most_threads = self._seats.count + CALLS
        self._held = HeldSessions()
        self._streams: set[_Stream] = set()
        self._lock = threading.Lock()

    def adapt(self, trackers: Sequence[Tracker]) -> None:
        """What can be prompted from now on; open sessions end with their pipeline."""
        self._trackers = tuple(trackers)

    def publish(self, result: Result) -> None:
        """Hand out instances; never blocks."""
        if isinstance(result, Instances):
            item = Published(result)
            with self._lock:
                for stream in self._streams:
                    stream.put(item)
            self._held.put(item)

    def close(self) -> None:
        """End the sessions that are held here."""
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.close()
        self._held.close()

    def Session(  # noqa: N802
        self, requests: Iterator[tracking.SessionRequest], context: grpc.ServicerContext
    ) -> Iterator[tracking.SessionResponse]:
        """Serve one client until it or the daemon ends the session."""
        with self._seats.taken(context):
            wanted = _first(requests, context)
            tracker = self._tracker(wanted, context)
            try:
                stream = _Stream(tracker, wanted, context)
            except ConfigError as error:
                context.abort(code_of(error), sentence(error))
            with stream, self._filled(stream):
                hearing = partial(stream.hear, requests)
                threading.Thread(target=hearing, name="grpc session", daemon=True).start()
                yield from stream.responses()

    def CreateSession(  # noqa: N802
        self, request: tracking.CreateSessionRequest, context: grpc.ServicerContext
    ) -> tracking.CreateSessionResponse:
        """Begin a session that no stream holds."""
        with answered(context):
            tracker = self._tracker(request, context)
            held = self._held.create(tracker, request.ttl_s)
            return tracking.CreateSessionResponse(session=held.opened())
        raise AssertionError("abort raises")

    def AddPrompts(  # noqa: N802
        self, request: tracking.AddPromptsRequest, context: grpc.ServicerContext
    ) -> tracking.AddPromptsResponse:
        """Say what objects are."""
        with self._calls.taken(context), answered(context):
            held = self._held.get(request.session_id)
            check_count(len(request.prompts))
            asked = [_add_or_error(prompt, held.tracker) for prompt in request.prompts]
            said = held.ask(asked, context)
            return tracking.AddPromptsResponse(answers=[_prompt_answer(each) for each in said])
        raise AssertionError("abort raises")

    def RemoveObjects(  # noqa: N802
        self, request: tracking.RemoveObjectsRequest, context: grpc.ServicerContext
    ) -> tracking.RemoveObjectsResponse:
        """Follow objects no more."""
        with self._calls.taken(context), answered(context):
            held = self._held.get(request.session_id)
            if request.reset and request.object_ids:
                raise RefusedError("reset is for all objects", hint="name none with it")
            if not request.reset:
                check_count(len(request.object_ids))
            asked = [Reset()] if request.reset else [Remove(each) for each in request.object_ids]
            said = held.ask(asked, context)
            return tracking.RemoveObjectsResponse(answers=[_prompt_answer(each) for each in said])
        raise AssertionError("abort raises")

    def DeleteSession(  # noqa: N802
        self, request: tracking.DeleteSessionRequest, context: grpc.ServicerContext
    ) -> tracking.DeleteSessionResponse:
        """End one."""
        with answered(context):
            self._held.get(request.session_id).session.close("asked")
        return tracking.DeleteSessionResponse()

    def Watch(  # noqa: N802
        self, request: tracking.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[tracking.SessionResponse]:
        """Results of one, and what else happens to it."""
        with self._seats.taken(context), answered(context):
            held = self._held.get(request.session_id)
            yield from held.responses(request.delivery, context)

    @contextmanager
    def _filled(self, stream: _Stream) -> Iterator[None]:
        with self._lock:
            self._streams.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._streams.remove(stream)

    def _tracker(
        self,
        wanted: tracking.OpenSession | tracking.CreateSessionRequest,
        context: grpc.ServicerContext,
    ) -> Tracker:
        fits = [
            tracker
            for tracker in self._trackers
            if wanted.source in ("", tracker.source) and wanted.model in ("", tracker.ref.name)
        ]
        there = "; ".join(f"'{each.source}' by '{each.ref.name}'" for each in self._trackers)
        if not fits:
            with answered(context):
                self._waiting.check(wanted.model)
            asked = " ".join(
                f"{key} '{value}'"
                for key, value in (("source", wanted.source), ("model", wanted.model))
                if value
            )
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no {asked or 'pipeline here'} can be prompted; there is: {there or 'none'}",
            )
        if len(fits) > 1:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"several pipelines can be prompted, say which: {there}",
            )
        return fits[0]


class _Stream:
    """One session on the wire. Raises ConfigError where it makes no sense or there is no room."""

    def __init__(
        self, tracker: Tracker, wanted: tracking.OpenSession, context: grpc.ServicerContext
    ) -> None:
        self._tracker, self._context = tracker, context
        self._outbox = Outbox(**delivery_options(wanted.delivery))
        self._ended: End = "gone"
        self._leave = threading.Timer(LEAVE_S, context.cancel)  # where the client does not read
        self._leave.daemon = True
        self._session: Session = tracker.sessions.open(
            ttl_s=wanted.ttl_s, on_lost=partial(self._answer, 0), on_end=self._end
        )

    def __enter__(self) -> _Stream:
        if not self._context.add_callback(self._outbox.close):
            self._outbox.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._outbox.close()
        self._session.close("gone")
        self._leave.cancel()

    def put(self, item: Published) -> None:
        """Let a result wait, if it is of this session's pipeline."""
        if item.stream == (self._tracker.source, self._tracker.ref.name):
            self._outbox.put(item)

    def close(self) -> None:
        """End it, as the daemon stops."""
        self._session.close("stopping")

    def responses(self) -> Iterator[tracking.SessionResponse]:
        """What the client gets, until the session is over."""
        opened = opened_message(self._tracker, self._session, self._session.name)
        yield tracking.SessionResponse(opened=opened)
        while not self._outbox.has_ended:
            item = self._outbox.next(min(POLL_S, self._session.ttl_s))
            if isinstance(item, tracking.SessionResponse):
                yield item
            elif item:
                yield tracking.SessionResponse(result=result_message(self._session, *item))
            else:  # where no pictures come, nobody else looks at the time
                self._tracker.sessions.expire()
        if self._ended != "gone":
            yield closed_message(self._ended)

    def hear(self, requests: Iterator[tracking.SessionRequest]) -> None:
        """Take what the client says, until it says no more."""
        with suppress(grpc.RpcError):  # it is gone, or the session is over
            for request in requests:
                self._session.touch()
                self._outbox.wait_for_room()
                self._take(request)

    def _take(self, request: tracking.SessionRequest) -> None:
        answer = partial(self._answer, request.request_id)
        kind = request.WhichOneof("request")
        if kind == "close":
            self._session.close("asked")
        elif kind == "open":
            answer(RefusedError("the session is open already"))
        elif kind is None and request.request_id:
            answer(RefusedError("nothing is asked, or nothing that this daemon knows"))
        elif kind is not None:
            try:
                self._session.ask(self._request(request), answer)
            except EdgepercError as error:
                answer(error)

    def _request(self, message: tracking.SessionRequest) -> Request:
        """What is asked, as the sessions take it. Raises EdgepercError."""
        if message.HasField("remove"):
            return Remove(message.remove.object_id)
        if message.HasField("reset"):
            return Reset()
        return add_of(message.prompt, self._tracker)

    def _answer(self, request_id: int, said: Accepted | EdgepercError) -> None:
        if isinstance(said, Accepted):
            accepted = accepted_message(said, request_id)
            self._outbox.say(tracking.SessionResponse(accepted=accepted))
        else:
            refused = refused_message(said, request_id)
            self._outbox.say(tracking.SessionResponse(refused=refused))

    def _end(self, why: End) -> None:
        self._ended = why
        self._outbox.close()
        if why != "gone":
            self._leave.start()


def _first(
    requests: Iterator[tracking.SessionRequest], context: grpc.ServicerContext
) -> tracking.OpenSession:
    """What the client opens, or the end of the call."""
    patience = threading.Timer(OPEN_S, context.cancel)
    patience.daemon = True
    patience.start()
    try:
        first = next(requests, None)
    finally:
        patience.cancel()
    if first is not None and first.HasField("open"):
        return first.open
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be `open`")
    raise AssertionError("abort raises")


def _add_or_error(message: tracking.AddPrompt, tracker: Tracker) -> Request | EdgepercError:
    try:
        return add_of(message, tracker)
    except EdgepercError as error:
        return error


def _prompt_answer(said: Accepted | EdgepercError) -> tracking.PromptAnswer:
    if isinstance(said, Accepted):
        return tracking.PromptAnswer(accepted=accepted_message(said))
    return tracking.PromptAnswer(refused=refused_message(said))
