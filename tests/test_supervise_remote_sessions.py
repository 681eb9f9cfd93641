"""Sessions on one side of a link, and the tracker that obeys them on the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeperc.errors import EdgepercError
from edgeperc.prompting.prompts import Prompt
from edgeperc.result import ModelRef
from edgeperc.sessions import Accepted, Add, RefusedError, Remove, Reset
from edgeperc.supervise.link import Link, pair
from edgeperc.supervise.orders import Prompted
from edgeperc.supervise.remote_sessions import RemoteSessions, RemoteTracker
from edgeperc.tracker import Tracker

from .grey_video import GreyVideo, street
from .ticking import eventually

PROMPTED = Prompted(source="wide", max_points=15, max_sessions=2, max_objects=3, ttl_s=30.0)
BOX = Prompt(points=[(5, 20)])


class Both:
    """The front's side and a worker, which can be replaced."""

    def __init__(self) -> None:
        self.worker_link: Link | None = None
        self.tracker = RemoteTracker(PROMPTED, ModelRef(name="grey"), self.tell)
        self.seq = 0
        self.begin()

    def begin(self, prompts: tuple[tuple[int, Prompt], ...] = ()) -> None:
        self.front, theirs = pair()
        worker = Link(theirs)
        self.worker_link = worker
        sessions = RemoteSessions(PROMPTED, lambda kind, content: worker.send((kind, content)))
        self.video = GreyVideo(wrong=13)
        self.worker = Tracker(self.video, sessions, prompts=prompts)
        for link, hear in ((self.front, self.tracker.hear), (worker, sessions.hear)):
            threading.Thread(target=_pump, args=(link, hear), daemon=True).start()

    def end(self) -> None:
        self.front.close()
        if self.worker_link:
            self.worker_link.close()

    def tell(self, kind: str, content: Any) -> None:
        if self.front.fileno() >= 0:
            self.front.send((kind, content))

    def picture(self) -> list[int]:
        """The worker answers for one more picture."""
        self.seq += 1
        found = self.worker(street(self.seq % 50, size_px=(60, 40), source="wide"))
        return [int(each) for each in found.ids]


def _pump(link: Link, hear: Callable[[str, Any], object]) -> None:
    try:
        while True:
            for (kind, content), _ in link.receive(0.05):
                hear(kind, content)
    except (EOFError, ValueError, OSError):
        pass


@pytest.fixture
def both() -> Iterator[Both]:
    each = Both()
    yield each
    each.end()


def asked(both: Both, session: Any, request: Any) -> list[Accepted | EdgepercError]:
    """What became of a request, once pictures have come."""
    said: list[Accepted | EdgepercError] = []
    session.ask(request, said.append)

    def answered() -> bool:
        both.picture()
        return bool(said)

    eventually(answered)
    return said


def test_a_prompt_is_taken_with_a_picture_answered_once_and_followed(both: Both) -> None:
    assert both.picture() == []
    session = both.tracker.sessions.open()
    (said,) = asked(both, session, Add(7, BOX))
    assert isinstance(said, Accepted)
    assert (said.number, said.instance) == (7, 1)
    assert said.stamp
    assert both.picture() == [1]
    assert both.tracker.picture_px == (60, 40)
    (gone,) = asked(both, session, Remove(7))
    assert isinstance(gone, Accepted)
    eventually(lambda: both.picture() == [])


def test_what_the_network_or_the_sessions_refuse_comes_back(both: Both) -> None:
    session = both.tracker.sessions.open()
    for prompt, words in (
        (Prompt(points=[(61, 3)]), "outside the picture"),
        (Prompt(points=[(1, 1)] * 16), "at most 15"),
    ):
        (said,) = asked(both, session, Add(1, prompt))
        assert isinstance(said, EdgepercError)
        assert words in str(said)
    (said,) = asked(both, session, Remove(5))
    assert isinstance(said, RefusedError)
    assert said.why == "unknown"
    assert not session.objects


def test_an_ended_session_takes_its_objects_along(both: Both) -> None:
    session = both.tracker.sessions.open()
    asked(both, session, Add(1, BOX))
    assert both.picture() == [1]
    session.close()
    eventually(lambda: both.picture() == [])


def test_a_new_worker_knows_nothing_and_all_are_told(both: Both) -> None:
    lost: list[EdgepercError] = []
    session = both.tracker.sessions.open(on_lost=lost.append)
    asked(both, session, Add(1, BOX))
    waiting: list[Accepted | EdgepercError] = []
    both.end()
    session.ask(Add(2, BOX), waiting.append)  # asked while nobody is there
    both.tracker.down()
    assert "started anew" in str(lost[0])
    assert not session.objects
    both.begin()
    (said,) = asked(both, session, Add(1, BOX))
    assert isinstance(said, RefusedError)  # that number is used up
    eventually(lambda: bool(waiting))
    assert isinstance(waiting[0], Accepted)
    (reset,) = asked(both, session, Reset())
    assert isinstance(reset, Accepted)
    (again,) = asked(both, session, Add(1, BOX))
    assert isinstance(again, Accepted)
    assert again.instance > waiting[0].instance > 1  # ids are never used again


def test_a_prompt_that_was_taken_and_not_answered_is_refused(both: Both) -> None:
    session = both.tracker.sessions.open()
    said: list[Accepted | EdgepercError] = []
    both.front.close()
    session.ask(Add(1, BOX), said.append)
    both.tracker.hear("take", ((60, 40), street(0, size_px=(60, 40), source="wide").stamp))
    assert not said
    both.tracker.down()
    assert isinstance(said[0], RefusedError)


def test_the_apps_own_objects_are_asked_for_by_each_worker(both: Both) -> None:
    both.end()
    for expected in (1, 2):
        both.tracker.down()
        both.begin(prompts=((0, BOX),))
        eventually(lambda wanted=expected: both.picture() == [wanted])
        both.end()
