"""The sessions of a promptable pipeline, held by the front process and obeyed in a worker.

Clients talk to the front's `Sessions`. When something is asked there, the worker is told so; with
its next picture it takes what waits, and says by ticket what became of it. Callables stay where
they are.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeperc.errors import EdgepercError
from edgeperc.packet import Stamp
from edgeperc.result import ModelRef
from edgeperc.sessions import Accepted, Add, Answer, Asked, RefusedError, Session, Sessions, Todo
from edgeperc.supervise.orders import Prompted

TAKE_S = 0.25
"""How long a picture waits for what is asked; later it is done in the next one."""

Say = Callable[[str, Any], None]


@dataclass(frozen=True)
class Taken:
    """What the front hands over: a Todo without callables."""

    removed: frozenset[int]
    prompts: dict[int, tuple[int, Add]]
    waits: bool


class RemoteSessions(Sessions):
    """The worker's stand-in. say: to the front process; `hear` takes what that answers."""

    def __init__(self, prompted: Prompted, say: Say) -> None:
        super().__init__(
            source=prompted.source,
            max_points=prompted.max_points,
            max_sessions=prompted.max_sessions,
            max_objects=prompted.max_objects,
            ttl_s=prompted.ttl_s,
        )
        self._say = say
        self._changed = threading.Condition()
        self._taken: deque[Todo] = deque()
        self._is_asked = True  # maybe there is something from before this worker was there
        self._takes = False
        self._tickets = itertools.count(1)
        self._answers: dict[int, Answer] = {}

    def hear(self, kind: str, content: Any) -> None:
        """Take a message of the front."""
        with self._changed:
            if kind == "asked":
                self._is_asked = True
            elif kind == "taken":
                self._takes = False
                self._is_asked |= content.waits
                self._taken.append(self._todo(content))
                self._changed.notify_all()
        if kind == "said":
            ticket, said = content
            self._answers.pop(ticket)(said)

    def ask_for_the_house(self, request: Add, answer: Answer) -> None:
        """See Sessions."""
        ticket = next(self._tickets)
        self._answers[ticket] = answer
        with self._changed:
            self._is_asked = True
        self._say("house", (ticket, request))

    def take(self, picture_px: tuple[int, int], stamp: Stamp) -> Todo:
        """See Sessions."""
        with self._changed:
            if self._is_asked and not self._takes:
                self._is_asked, self._takes = False, True
                self._say("take", (picture_px, stamp))
            if self._takes and not self._taken:
                self._changed.wait_for(lambda: bool(self._taken), TAKE_S)
            return self._taken.popleft() if self._taken else Todo(frozenset(), {})

    def give_back(
        self, prompts: dict[int, Asked], error: EdgepercError, *, followed: Iterable[int]
    ) -> None:
        """See Sessions."""
        tickets = {instance: _ticket(asked) for instance, asked in prompts.items()}
        self._say("give_back", (tickets, error, tuple(followed)))

    def lose_all(self, reason: EdgepercError) -> None:
        """See Sessions."""
        self._say("lose_all", reason)

    def expire(self) -> None:
        """The front looks after that."""

    def _todo(self, taken: Taken) -> Todo:
        prompts = {
            instance: Asked(self._house, request, _Reply(self._say, ticket))
            for instance, (ticket, request) in taken.prompts.items()
        }
        return Todo(taken.removed, prompts)


@dataclass(frozen=True)
class _Reply:
    """Answers a ticket of the front's."""

    say: Say
    ticket: int

    def __call__(self, said: Accepted | EdgepercError) -> None:
        self.say("answer", (self.ticket, said))


def _ticket(asked: Asked) -> int:
    assert isinstance(asked.answer, _Reply)
    return asked.answer.ticket


class RemoteTracker:
    """The front's side of a promptable pipeline: what sinks see in place of its Tracker.

    say: to the worker, whichever it is now. picture_px: width and height of its pictures; (0, 0)
    until one has come.
    """

    def __init__(self, prompted: Prompted, ref: ModelRef, say: Say) -> None:
        self.ref = ref
        self.picture_px = (0, 0)
        self.sessions = _Watched(prompted, on_ask=partial(say, "asked", None))
        self._say = say
        self._tickets = itertools.count(1)
        self._asked: dict[int, Asked] = {}

    @property
    def source(self) -> str:
        """The sensor that it looks at."""
        return self.sessions.source

    def hear(self, kind: str, content: Any) -> bool:
        """Take a message of the worker; False if it is about something else."""
        if kind == "take":
            picture_px, stamp = content
            self.picture_px = picture_px
            self._take(self.sessions.take(picture_px, stamp))
        elif kind == "answer":
            ticket, said = content
            if asked := self._asked.pop(ticket, None):
                asked.answer(said)
        elif kind == "give_back":
            tickets, error, followed = content
            prompts = {
                instance: self._asked.pop(ticket)
                for instance, ticket in tickets.items()
                if ticket in self._asked
            }
            self.sessions.give_back(prompts, error, followed=followed)
        elif kind == "lose_all":
            self.sessions.lose_all(content)
        elif kind == "house":
            ticket, request = content
            self.sessions.ask_for_the_house(request, partial(self._said, ticket))
        else:
            return False
        return True

    def down(self) -> None:
        """The worker is gone, and all it knew: whoever had objects is told so."""
        lost = RefusedError(
            f"the network that looks at '{self.source}' was started anew: all objects are lost",
            hint="reset, and prompt anew",
        )
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.answer(lost)
        self.sessions.lose_all(lost)
        self.sessions.clear_house()

    def end(self) -> None:
        """The pipeline is no more, nor are its sessions."""
        for session in self.sessions.all_open:
            session.close("stopping")

    def _take(self, todo: Todo) -> None:
        prompts = {}
        for instance, asked in todo.prompts.items():
            ticket = next(self._tickets)
            self._asked[ticket] = asked
            prompts[instance] = (ticket, asked.request)
        self._say("taken", Taken(todo.removed, prompts, self.sessions.wait))

    def _said(self, ticket: int, said: Accepted | EdgepercError) -> None:
        self._say("said", (ticket, said))


class _Watched(Sessions):
    """Sessions that tell when there is something to do."""

    def __init__(self, prompted: Prompted, *, on_ask: Callable[[], None]) -> None:
        super().__init__(
            source=prompted.source,
            max_points=prompted.max_points,
            max_sessions=prompted.max_sessions,
            max_objects=prompted.max_objects,
            ttl_s=prompted.ttl_s,
        )
        self._on_ask = on_ask

    def ask(self, session: Any, request: Any, answer: Answer) -> None:
        """See Sessions."""
        super().ask(session, request, answer)
        self._on_ask()

    def end(self, session: Any, why: Any) -> None:
        """See Sessions."""
        super().end(session, why)
        self._on_ask()

    @property
    def wait(self) -> bool:
        """Whether requests wait for another picture."""
        return bool(self._waiting)

    @property
    def all_open(self) -> tuple[Session, ...]:
        """The sessions that clients have."""
        return tuple(self._open)

    def clear_house(self) -> None:
        """Forget the objects that are nobody's; what waits of them was asked by one who is gone."""
        with self._lock:
            self._house.objects.clear()
            self._house.removed.clear()
            self._ownerless.clear()
            self._waiting = deque(each for each in self._waiting if each[0] is not self._house)
