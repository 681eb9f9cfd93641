"""Who owns which object of a promptable pipeline, and what they ask of it; safe from any thread.

sessions = Sessions(source="wide", max_points=15)
session = sessions.open(ttl_s=30.0)
session.ask(Add(1, Prompt(box=(300, 120, 520, 400))), answer=print)
todo = sessions.take((960, 448), stamp)     # the pipeline, when a picture has come
session.own(instances)                      # of all instances, this session's

Clients number their objects as they like; results carry ids that are unique among all of them.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from edgeperc.errors import ConfigError, EdgepercError
from edgeperc.packet import Stamp
from edgeperc.prompting.prompts import Prompt
from edgeperc.result import Instances

MAX_WAITING = 64
"""Requests of one session that may wait for a picture."""

Why = Literal["invalid", "unknown", "full", "later"]
End = Literal["asked", "expired", "stopping", "gone"]


class RefusedError(ConfigError):
    """A request that changes nothing.

    why: it makes no sense, names nothing, hits a limit, or comes too early.
    """

    def __init__(self, message: str, *, why: Why = "invalid", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why


@dataclass(frozen=True, slots=True)
class Add:
    """A prompt for an object, by the session's own number; a new number begins an object."""

    number: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Remove:
    """Follow an object no more."""

    number: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Follow none of the session's objects any more; their numbers may be used again."""


Request: TypeAlias = Add | Remove | Reset


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was carried out. instance: the object's id in results. stamp: of the picture."""

    number: int = 0
    instance: int = 0
    stamp: Stamp | None = None


Answer: TypeAlias = Callable[[Accepted | EdgepercError], None]
"""Takes what became of a request; called once, maybe in the pipeline's thread: must not block."""


@dataclass(eq=False)
class Session:
    """One client's objects; opened by `Sessions.open`. The sessions' lock guards its fields.

    name: for people. objects: number -> id in results. removed: numbers that are used up.
    """

    sessions: Sessions
    name: str
    ttl_s: float
    on_lost: Callable[[EdgepercError], None]
    on_end: Callable[[End], None]
    objects: dict[int, int] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    waiting: int = 0
    heard_s: float = 0.0

    def ask(self, request: Request, answer: Answer) -> None:
        """Let a request wait for the next picture, or refuse it at once."""
        self.sessions.ask(self, request, answer)

    def touch(self) -> None:
        """The client is still there."""
        self.heard_s = self.sessions.now_s()

    def own(self, found: Instances) -> Instances:
        """Only this session's instances, under the client's numbers."""
        return self.sessions.own(self, found)

    def close(self, end: End = "asked") -> None:
        """Remove its objects; may be called twice."""
        self.sessions.end(self, end)


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt on its way to the network."""

    session: Session
    request: Add
    answer: Answer


@dataclass(frozen=True, slots=True)
class Todo:
    """What the network has to do with a picture: remove objects, then apply prompts, by id."""

    removed: frozenset[int]
    prompts: dict[int, Asked]


class Sessions:
    """The sessions of one pipeline, and the requests that wait for its next picture.

    source: the sensor, for messages. max_points: in one prompt, where a box counts as two.
    max_sessions, max_objects: at a time. ttl_s: a session that says nothing for so long is ended.
    """

    def __init__(
        self,
        *,
        source: str,
        max_points: int,
        max_sessions: int = 4,
        max_objects: int = 8,
        ttl_s: float = 60.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.max_points = source, max_points
        self.max_sessions, self.max_objects, self.ttl_s = max_sessions, max_objects, ttl_s
        self.now_s = now_s
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._open: list[Session] = []
        self._waiting: deque[tuple[Session, Request, Answer]] = deque()
        self._ownerless: list[int] = []
        self._names = itertools.count(1)
        self._house = Session(self, "house", math.inf, lambda _: None, lambda _: None)

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self,
        *,
        ttl_s: float = 0.0,
        on_lost: Callable[[EdgepercError], None] = lambda _: None,
        on_end: Callable[[End], None] = lambda _: None,
    ) -> Session:
        """Begin a session. ttl_s: 0 is the longest that is allowed, to which more is cut.

        on_lost: told when its objects are lost though nobody removed them. on_end: told, once, why
        it is over. Neither may block. Raises RefusedError.
        """
        if not (math.isfinite(ttl_s) and ttl_s >= 0):
            raise RefusedError(f"ttl_s is {ttl_s}")
        self.expire()
        with self._lock:
            if len(self._open) >= self.max_sessions:
                raise RefusedError(
                    f"the {self.max_sessions} sessions of '{self.source}' are taken (max_sessions)",
                    why="full",
                    hint="close one, or wait until one is given up",
                )
            name = f"{self.source}-{next(self._names)}"
            ttl_s = min(ttl_s or self.ttl_s, self.ttl_s)
            session = Session(self, name, ttl_s, on_lost, on_end)
            session.touch()
            self._open.append(session)
            return session

    def ask(self, session: Session, request: Request, answer: Answer) -> None:
        """See `Session.ask`."""
        with self._lock:
            if session not in self._open:
                refusal = RefusedError("the session is over", why="unknown", hint="open another")
            elif session.waiting >= MAX_WAITING:
                refusal = RefusedError(
                    f"{MAX_WAITING} requests of this session wait for a picture", why="full"
                )
            else:
                session.waiting += 1
                self._waiting.append((session, request, answer))
                return
        answer(refusal)

    def ask_for_the_house(self, request: Add, answer: Answer) -> None:
        """Let a prompt wait for an object that is no client's and stays."""
        with self._lock:
            self._waiting.append((self._house, request, answer))

    def own(self, session: Session, found: Instances) -> Instances:
        """See `Session.own`."""
        with self._lock:
            numbers = {instance: number for number, instance in session.objects.items()}
        kept = [k for k, instance in enumerate(found.ids.tolist()) if instance in numbers]
        return replace(
            found,
            ids=np.array([numbers[int(found.ids[k])] for k in kept], np.int64),
            masks=tuple(found.masks[k] for k in kept),
            boxes=found.boxes[kept],
            scores=found.scores[kept],
            visible=found.visible[kept],
            classes=tuple(found.classes[k] for k in kept) if found.classes else (),
        )

    def end(self, session: Session, why: End) -> None:
        """See `Session.close`."""
        with self._lock:
            if session not in self._open:
                return
            self._open.remove(session)
            self._ownerless += session.objects.values()
            session.objects.clear()
            self._waiting = deque(each for each in self._waiting if each[0] is not session)
        session.on_end(why)

    def expire(self) -> None:
        """End the sessions that have said nothing for their ttl_s."""
        now_s = self.now_s()
        for session in list(self._open):
            if now_s - session.heard_s > session.ttl_s:
                session.close("expired")

    def take(self, picture_px: tuple[int, int], stamp: Stamp) -> Todo:
        """Carry out what waits; prompts are answered by whoever runs the network.

        A session's requests are done in their order: one that follows a prompt for the same object
        waits, with all behind it, for the next picture.
        """
        prompts: dict[int, Asked] = {}
        answers: list[tuple[Answer, Accepted | EdgepercError]] = []
        with self._lock:
            asked, self._waiting = self._waiting, deque()
            held: set[Session] = set()
            for session, request, answer in asked:
                if session in held or _instances(session, request) & prompts.keys():
                    held.add(session)
                    self._waiting.append((session, request, answer))
                    continue
                session.waiting -= 1
                try:
                    if isinstance(request, Add):
                        instance = self._begin(session, request, picture_px)
                        prompts[instance] = Asked(session, request, answer)
                    else:
                        answers.append((answer, self._drop(session, request, stamp)))
                except EdgepercError as error:
                    answers.append((answer, error))
            removed, self._ownerless = frozenset(self._ownerless), []
        for answer, said in answers:
            answer(said)
        return Todo(removed, prompts)

    def give_back(
        self, prompts: dict[int, Asked], error: EdgepercError, *, followed: Iterable[int]
    ) -> None:
        """Refuse prompts that the network did not take; objects they had begun are no more."""
        for instance in prompts.keys() - set(followed):
            with self._lock:
                prompts[instance].session.objects.pop(prompts[instance].request.number, None)
        for asked in prompts.values():
            asked.answer(error)

    def lose_all(self, reason: EdgepercError) -> None:
        """The network has forgotten all objects; whoever had some is told so."""
        with self._lock:
            losers = [session for session in self._all() if session.objects]
            for session in losers:
                session.removed |= session.objects.keys()
                session.objects.clear()
        for session in losers:
            session.on_lost(reason)

    def _all(self) -> tuple[Session, ...]:
        return (*self._open, self._house)

    def _begin(self, session: Session, request: Add, picture_px: tuple[int, int]) -> int:
        """The id of the object that a prompt is for, which may be new. Raises EdgepercError."""
        number, prompt = request.number, request.prompt
        if number in session.removed:
            raise RefusedError(
                f"object {number} was removed", why="unknown", hint="take another id, or reset"
            )
        points = len(prompt.points) + 2 * (prompt.box is not None)
        if points > self.max_points:
            raise RefusedError(
                f"a prompt of {points} points, a box counting as two; at most {self.max_points}",
                why="full",
            )
        prompt.check(*picture_px)
        if number not in session.objects:
            followed = sum(len(each.objects) for each in self._all())
            if followed >= self.max_objects:
                raise RefusedError(
                    f"'{self.source}' has its {followed} objects already (max_objects)",
                    why="full",
                    hint="remove one",
                )
            session.objects[number] = next(self._ids)
        return session.objects[number]

    def _drop(self, session: Session, request: Remove | Reset, stamp: Stamp) -> Accepted:
        """Remove one object of a session, or all. Raises RefusedError."""
        if isinstance(request, Reset):
            self._ownerless += session.objects.values()
            session.objects.clear()
            session.removed.clear()
            return Accepted(stamp=stamp)
        number = request.number
        if number not in session.objects:
            was = "was removed" if number in session.removed else "is not there"
            raise RefusedError(f"object {number} {was}", why="unknown")
        session.removed.add(number)
        instance = session.objects.pop(number)
        self._ownerless.append(instance)
        return Accepted(number, instance, stamp)


def _instances(session: Session, request: Request) -> set[int]:
    """Ids of the objects that a request is about, as far as there are any."""
    if isinstance(request, Reset):
        return set(session.objects.values())
    return {session.objects[request.number]} if request.number in session.objects else set()
