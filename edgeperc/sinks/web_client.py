"""One open page: what it has yet to be sent, and what it asks for.

All of it runs in the web loop's thread, but what it asks of sessions, which may have to wait. Of
each stream only the newest message waits; what is replaced is counted. A page says when it has
drawn a message, and gets no more than a few ahead of that, so that a slow one is not late but sees
less.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
from aiohttp import WSMsgType, web

from edgeperc.errors import ConfigError, EdgepercError
from edgeperc.prompting.prompts import Prompt
from edgeperc.sessions import Accepted, Add, End, RefusedError, Remove, Request, Reset, Session
from edgeperc.sinks.security import Role
from edgeperc.sinks.web_encoder import Key, next_due_s
from edgeperc.sinks.web_guard import allows
from edgeperc.sinks.web_wire import pack
from edgeperc.tracker import Tracker

log = logging.getLogger("edgeperc")

AHEAD = 4
"""Pictures and results on their way to a page that has not drawn them."""
MAX_ANSWERS = 64
MAX_STREAMS = 256
_POLL_S = 1.0


class Mailbox:
    """What waits for one page. `answers` are never lost; of each stream the newest waits.

    A stream is sent at most `rate_hz` times a second and only while fewer than `AHEAD` messages
    are not drawn yet.
    """

    def __init__(self) -> None:
        self.rate_hz = 15.0
        self.dropped = self.sent = self.unseen = 0
        self._answers: list[bytes] = []
        self._news: bytes | None = None
        self._waiting: dict[Key, bytes] = {}
        self._due_s: dict[Key, float] = {}
        self._changed = asyncio.Event()

    def put(self, key: Key, message: bytes) -> None:
        """Let a message wait, in place of an older one of its stream."""
        self.dropped += key in self._waiting
        self._waiting[key] = message
        self._changed.set()

    def say(self, message: bytes) -> None:
        """Let an answer wait."""
        self._answers.append(message)
        self._changed.set()

    def tell(self, message: bytes) -> None:
        """Let news of the daemon wait, in place of older ones."""
        self._news = message
        self._changed.set()

    def drawn(self, count: int) -> None:
        """The page has drawn so many messages."""
        self.unseen = max(0, self.unseen - count)
        self._changed.set()

    def keep(self, keys: frozenset[Key]) -> None:
        """Forget what waits of other streams; nobody looks at it."""
        self._waiting = {key: each for key, each in self._waiting.items() if key in keys}

    @property
    def is_full(self) -> bool:
        """Whether the page has to read answers before it may ask for more."""
        return len(self._answers) >= MAX_ANSWERS

    async def next(self) -> bytes | None:
        """The next message, or None if for a second there was nothing to send."""
        give_up_s = time.monotonic() + _POLL_S
        while True:
            self._changed.clear()
            if self._answers:
                return self._answers.pop(0)
            if self._news:
                news, self._news = self._news, None
                return news
            now_s = time.monotonic()
            wait_s = give_up_s - now_s
            if wait_s <= 0:
                return None
            if self._waiting and self.unseen < AHEAD:
                key = min(self._waiting, key=lambda each: self._due_s.get(each, 0.0))
                due_s = self._due_s.get(key, 0.0)
                if due_s <= now_s:
                    self._due_s[key] = next_due_s(due_s, now_s, self.rate_hz)
                    self.unseen += 1
                    self.sent += 1
                    return self._waiting.pop(key)
                wait_s = min(wait_s, due_s - now_s)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)


Number = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class Look(msgspec.Struct, tag="look", tag_field="op", forbid_unknown_fields=True):
    """Streams that the page shows now. rate_hz: so many a second of each are enough."""

    streams: Annotated[list[tuple[str, str, str]], msgspec.Meta(max_length=MAX_STREAMS)]
    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=60)] = 15.0


class Drawn(msgspec.Struct, tag="drawn", tag_field="op", forbid_unknown_fields=True):
    """The page has drawn `count` messages."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Point(msgspec.Struct, tag="point", tag_field="op", forbid_unknown_fields=True):
    """A prompt for an object: points (x, y, on it or beside it), a box; px of the sensor."""

    ask: int
    source: str
    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    points: Annotated[list[tuple[Number, Number, bool]], msgspec.Meta(max_length=64)] = []
    box: tuple[Number, Number, Number, Number] | None = None


class Drop(msgspec.Struct, tag="drop", tag_field="op", forbid_unknown_fields=True):
    """Follow an object no more, or, without a number, none."""

    ask: int
    source: str
    number: int | None = None


class Record(msgspec.Struct, tag="record", tag_field="op", forbid_unknown_fields=True):
    """Begin or end a recording."""

    ask: int
    on: bool


class Alive(msgspec.Struct, tag="alive", tag_field="op", forbid_unknown_fields=True):
    """The page is still there."""


_ORDERS = msgspec.json.Decoder(Look | Drawn | Point | Drop | Record | Alive)
Recorder = Callable[[bool], Awaitable[Any]]


class Client:
    """A page and its sessions of promptable pipelines, which end with it.

    role: asked anew for each order that changes something. changed: called when it looks at
    something else. record: begins or ends a recording. orders: one thread, for what sessions are
    asked.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        role: Callable[[], Role | None],
        trackers: Sequence[Tracker],
        changed: Callable[[], None],
        record: Recorder,
        orders: Executor,
    ) -> None:
        self.mailbox = Mailbox()
        self.looks_at: frozenset[Key] = frozenset()
        self._socket, self._role = socket, role
        self.adapt(trackers)
        self._changed, self._record, self._orders = changed, record, orders
        self._sessions: dict[str, Session] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def adapt(self, trackers: Sequence[Tracker]) -> None:
        """What can be prompted from now on; open sessions end with their pipeline."""
        self._trackers = {tracker.source: tracker for tracker in trackers}

    def put(self, key: Key, message: bytes) -> None:
        """A message of a stream; kept if the page looks at it."""
        if key in self.looks_at:
            self.mailbox.put(key, message)

    def tell(self, message: bytes) -> None:
        """How the daemon is; only the newest of these waits. Sends away who may look no more."""
        self.mailbox.tell(message)
        if self._role() is None:
            self._start(self._socket.close(code=1008, message=b"the token is known no more"))

    async def serve(self) -> None:
        """Talk to the page until it goes."""
        sending = asyncio.create_task(self._send())
        try:
            async for message in self._socket:
                if message.type != WSMsgType.TEXT or not self._hear(message.data):
                    await self._socket.close(code=1008, message=b"not understood")
                    break
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sending
            self.close()

    def close(self) -> None:
        """End its sessions; may be called twice."""
        with suppress(RuntimeError):  # no more orders are taken: the daemon ends
            self._orders.submit(self._leave)

    def _leave(self) -> None:
        """In the orders' thread."""
        for session in list(self._sessions.values()):
            session.close("gone")
        self._sessions.clear()

    async def _send(self) -> None:
        said = (-1, -1)
        said_s = 0.0
        while not self._socket.closed:
            message = await self.mailbox.next()
            if message:
                await self._socket.send_bytes(message)
            counts = (self.mailbox.sent, self.mailbox.dropped)
            if time.monotonic() - said_s > _POLL_S and counts != said:
                said, said_s = counts, time.monotonic()
                await self._socket.send_bytes(
                    pack({"kind": "you", "sent": counts[0], "dropped": counts[1]})
                )

    def _hear(self, text: str) -> bool:
        """Carry out an order; False if it is none."""
        try:
            order = _ORDERS.decode(text)
        except msgspec.MsgspecError as error:
            log.info("web: a page was sent away: %s", error)
            return False
        for session in list(self._sessions.values()):
            session.touch()
        if isinstance(order, Look):
            self.mailbox.rate_hz = order.rate_hz
            self.looks_at = frozenset(order.streams)
            self.mailbox.keep(self.looks_at)
            self._changed()
        elif isinstance(order, Drawn):
            self.mailbox.drawn(order.count)
        elif isinstance(order, Point | Drop):
            if not self.mailbox.is_full:
                self._orders.submit(self._ask, order)
        elif isinstance(order, Record):
            self._start(self._do_record(order))
        return True

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask(self, order: Point | Drop) -> None:
        """In the orders' thread."""
        answer = partial(self._answer, order.ask, order.source)
        try:
            self._check("prompt")
            request = _request(order)
            if isinstance(order, Drop) and order.source not in self._sessions:
                raise RefusedError("there is nothing of yours to be dropped", why="unknown")
            self._session(order.source).ask(request, answer)
        except EdgepercError as error:
            answer(error)

    def _session(self, source: str) -> Session:
        """This page's session of a source, opened when it is first needed. Raises RefusedError."""
        if source not in self._sessions:
            tracker = self._trackers.get(source)
            if tracker is None:
                raise RefusedError(
                    f"nothing that looks at '{source}' can be prompted",
                    why="unknown",
                    hint="serve an app with a promptable model, such as `prompt`",
                )
            self._sessions[source] = tracker.sessions.open(
                on_lost=partial(self._answer, 0, source), on_end=partial(self._end, source)
            )
        return self._sessions[source]

    def _answer(self, ask: int, source: str, said: Accepted | EdgepercError) -> None:
        """Tell the page what became of what it asked; from any thread."""
        header: dict[str, Any] = {"kind": "answer", "ask": ask, "source": source}
        if isinstance(said, Accepted):
            header |= {"ok": True, "number": said.number, "instance": said.instance}
        else:
            header |= {"ok": False, "error": str(said), "hint": said.hint}
        self._say(header)

    def _end(self, source: str, why: End) -> None:
        """A session is over; from any thread."""
        self._sessions.pop(source, None)
        if why != "gone":
            self._say({"kind": "over", "source": source, "why": why})

    def _say(self, header: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.mailbox.say, pack(header))

    async def _do_record(self, order: Record) -> None:
        header: dict[str, Any] = {"kind": "answer", "ask": order.ask}
        try:
            self._check("admin")
            status = await self._record(order.on)
            header |= {"ok": True, "recording": msgspec.to_builtins(status)}
        except (EdgepercError, OSError) as error:
            header |= {"ok": False, "error": str(error), "hint": getattr(error, "hint", "")}
        self.mailbox.say(pack(header))

    def _check(self, wanted: Role) -> None:
        """Raises ConfigError if the client may not."""
        role = self._role()
        if role is None or not allows(role, wanted):
            raise ConfigError(f"this needs a token of the role '{wanted}', yours is '{role}'")


def _request(order: Point | Drop) -> Request:
    """What is asked, as sessions take it. Raises DataError."""
    if isinstance(order, Drop):
        return Reset() if order.number is None else Remove(order.number)
    prompt = Prompt(
        points=np.array([(x, y) for x, y, _ in order.points], np.float32).reshape(-1, 2),
        labels=np.array([on_it for *_, on_it in order.points], np.float32),
        box=None if order.box is None else np.array(order.box, np.float32),
    )
    return Add(order.number, prompt)
