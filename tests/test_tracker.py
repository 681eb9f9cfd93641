"""Sessions of a promptable pipeline: who owns what, what is refused, and what the network runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc import masks
from edgeperc.errors import ConfigError, DataError, EdgepercError, ModelError
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.prompt import Prompt
from edgeperc.result import Instances
from edgeperc.sessions import (
    MAX_WAITING,
    Accepted,
    Add,
    RefusedError,
    Remove,
    Request,
    Reset,
    Session,
    Sessions,
)
from edgeperc.tracker import Tracker

from .grey_video import GreyVideo, on, street


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Rig:
    """A tracker with its network, clock, and pictures that follow each other."""

    def __init__(self, **options: object) -> None:
        self.video = GreyVideo(wrong=13)
        self.clock = Clock()
        prompts = options.pop("prompts", ())
        limits = {"max_points": 4, "max_sessions": 2, "max_objects": 3, "ttl_s": 10.0} | options
        self.sessions = Sessions(source="wide", now_s=self.clock, **limits)  # type: ignore[arg-type]
        self.tracker = Tracker(self.video, self.sessions, prompts=prompts)  # type: ignore[arg-type]
        self.seq = -1

    def frame(self, frame: Frame | None = None) -> Instances:
        self.seq += 1
        return self.tracker(frame or street(self.seq))

    def ask(self, session: Session, *requests: Request) -> list[Accepted | EdgepercError]:
        """Ask, and show pictures until all is answered."""
        answers: dict[int, Accepted | EdgepercError] = {}
        for number, request in enumerate(requests):
            session.ask(request, lambda said, number=number: answers.setdefault(number, said))
        for _ in range(20):
            if len(answers) == len(requests):
                break
            self.frame()
        return [answers[number] for number in range(len(requests))]

    def point(self, number: int, row: int, *, after: int = 1) -> Add:
        """A prompt on the square in `row`, as it will be so many pictures from now."""
        return Add(number, Prompt(points=[on(row, self.seq + after)]))  # type: ignore[arg-type]


def centre(found: Instances, number: int) -> tuple[float, float]:
    (index,) = np.flatnonzero(found.ids == number)
    x0, y0, x1, y1 = found.boxes[index].tolist()
    return (x0 + x1) / 2, (y0 + y1) / 2


def test_what_is_pointed_at_is_followed_from_the_next_picture_on() -> None:
    rig = Rig()
    session = rig.sessions.open()
    answers: list[Accepted | EdgepercError] = []
    session.ask(rig.point(7, 1), answers.append)
    assert answers == []
    found = rig.frame()
    (accepted,) = answers
    assert accepted == Accepted(7, int(found.ids[0]), found.stamp)
    for _ in range(3):
        own = session.own(rig.frame())
        assert centre(own, 7) == on(1, rig.seq)
        assert masks.area(own.masks[0]) == 36


def test_without_objects_the_network_does_not_run() -> None:
    rig = Rig()
    found = rig.frame()
    assert rig.video.steps == []
    assert (found.ids.size, found.masks, found.picture_px) == (0, (), (60, 40))
    assert found.boxes.shape == (0, 4)
    assert (found.stamp, found.model) == (street(0).stamp, rig.video.ref)
    session = rig.sessions.open()
    rig.ask(session, rig.point(1, 0))
    rig.ask(session, Remove(1))
    steps = len(rig.video.steps)
    rig.frame()
    assert len(rig.video.steps) == steps


def test_two_sessions_use_the_same_number_and_see_only_their_own() -> None:
    rig = Rig()
    one, two = rig.sessions.open(), rig.sessions.open()
    rig.ask(one, rig.point(1, 0))
    rig.ask(two, rig.point(1, 2))
    found = rig.frame()
    assert len(set(found.ids.tolist())) == 2
    assert centre(one.own(found), 1) == on(0, rig.seq)
    assert centre(two.own(found), 1) == on(2, rig.seq)
    assert len(rig.video.steps) == rig.seq + 1, "one step a picture, whoever asks"
    rig.ask(one, Remove(1))
    found = rig.frame()
    assert one.own(found).ids.size == 0
    assert centre(two.own(found), 1) == on(2, rig.seq)


def test_an_object_is_corrected_under_its_id() -> None:
    rig = Rig()
    session = rig.sessions.open()
    (first,) = rig.ask(session, rig.point(1, 0))
    (second,) = rig.ask(session, rig.point(1, 2))
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert first.instance == second.instance
    assert centre(session.own(rig.frame()), 1) == on(2, rig.seq)


def test_requests_on_one_object_are_done_in_order_one_a_picture() -> None:
    rig = Rig()
    session = rig.sessions.open()
    first, second, removed, other = rig.ask(
        session, rig.point(1, 0), rig.point(1, 2, after=2), Remove(1), rig.point(2, 1, after=3)
    )
    seqs = [each.stamp and each.stamp.seq for each in (first, second, removed, other)]  # type: ignore[union-attr]
    assert seqs == [0, 1, 2, 2]
    assert session.own(rig.frame()).ids.tolist() == [2]


def test_ids_in_results_are_never_used_again() -> None:
    rig = Rig()
    seen: set[int] = set()
    for number in range(5):
        session = rig.sessions.open()
        (accepted,) = rig.ask(session, rig.point(1, number % 3))
        assert isinstance(accepted, Accepted)
        assert accepted.instance not in seen
        seen.add(accepted.instance)
        session.close()


@pytest.mark.parametrize(
    ("request_", "why", "said"),
    [
        (Add(1, Prompt()), "invalid", "asks for nothing"),
        (Add(1, Prompt(points=[(60.5, 1)])), "invalid", "outside the picture of 60 × 40"),  # type: ignore[arg-type]
        (Add(1, Prompt(box=(5, 5, 5, 9))), "invalid", "is empty"),  # type: ignore[arg-type]
        (Add(1, Prompt(mask=np.ones((40, 61), bool))), "invalid", "61 × 40"),
        (Add(1, Prompt(points=np.ones((5, 2)))), "full", "5 points.*at most 4"),  # type: ignore[arg-type]
        (Add(1, Prompt(points=np.ones((3, 2)), box=(1, 1, 9, 9))), "full", "5 points"),  # type: ignore[arg-type]
        (Remove(9), "unknown", "object 9 is not there"),
        (Remove(5), "unknown", "object 5 was removed"),
        (Add(5, Prompt(points=[(3, 3)])), "unknown", "object 5 was removed"),  # type: ignore[arg-type]
    ],
)
def test_a_request_that_makes_no_sense_changes_nothing(
    request_: Request, why: str, said: str
) -> None:
    rig = Rig()
    session, other = rig.sessions.open(), rig.sessions.open()
    rig.ask(other, rig.point(1, 0))
    rig.ask(session, rig.point(5, 1))
    rig.ask(session, Remove(5))
    rig.ask(session, rig.point(2, 2))
    before = dict(rig.video.greys)
    (refused,) = rig.ask(session, request_)
    assert isinstance(refused, EdgepercError)
    assert getattr(refused, "why", "invalid") == why
    with pytest.raises(type(refused), match=said):
        raise refused
    assert rig.video.greys == before
    assert centre(session.own(rig.frame()), 2) == on(2, rig.seq)


def test_one_bad_prompt_does_not_touch_the_good_ones_of_its_picture() -> None:
    rig = Rig()
    one, two = rig.sessions.open(), rig.sessions.open()
    good: list[Accepted | EdgepercError] = []
    one.ask(rig.point(1, 0), good.append)
    (bad,) = rig.ask(two, Add(1, Prompt(points=[(-1, 3)])))  # type: ignore[arg-type]
    assert isinstance(bad, DataError)
    assert isinstance(good[0], Accepted)
    assert centre(one.own(rig.frame()), 1) == on(0, rig.seq)


def test_a_prompt_that_only_the_network_refuses_leaves_no_object_behind() -> None:
    rig = Rig()
    one, two = rig.sessions.open(), rig.sessions.open()
    rig.ask(one, rig.point(1, 0))
    image = street(0).image.copy()
    image[0, 0] = 13
    answers: list[Accepted | EdgepercError] = []
    two.ask(Add(1, Prompt(points=[(0.5, 0.5)])), answers.append)  # type: ignore[arg-type]
    one.ask(rig.point(1, 2), answers.append)
    found = rig.frame(Frame(stamp=street(1).stamp, image=image))
    assert [str(each) for each in answers] == ["grey 13 is no object"] * 2
    assert centre(one.own(found), 1) == on(0, 0), "what was followed still is"
    assert two.objects == {}
    (again,) = rig.ask(two, rig.point(1, 1))
    assert isinstance(again, Accepted)


def test_a_network_that_fails_is_the_pipelines_to_report_and_the_next_picture_works() -> None:
    rig = Rig()
    session = rig.sessions.open()
    rig.ask(session, rig.point(1, 0))
    broken = Frame(stamp=street(1).stamp, image=np.full((40, 60), 13, np.uint8))
    with pytest.raises(ModelError, match="broke"):
        rig.frame(broken)
    assert centre(session.own(rig.frame()), 1) == on(0, rig.seq)


def test_as_many_sessions_and_objects_as_allowed_and_no_more() -> None:
    rig = Rig()
    one, two = rig.sessions.open(), rig.sessions.open()
    with pytest.raises(RefusedError, match=r"the 2 sessions of 'wide' are taken \(max_sessions"):
        rig.sessions.open()
    rig.ask(one, rig.point(1, 0), rig.point(2, 1))
    last, beyond = rig.ask(two, rig.point(1, 2), rig.point(2, 0))
    assert isinstance(last, Accepted)
    assert isinstance(beyond, RefusedError)
    assert "3 objects already (max_objects)" in str(beyond)
    one.close()
    assert isinstance(rig.ask(two, rig.point(2, 0))[0], Accepted)
    rig.sessions.open()


def test_objects_of_a_session_that_ended_are_removed() -> None:
    rig = Rig()
    ends: list[str] = []
    one, two = rig.sessions.open(on_end=ends.append), rig.sessions.open()  # type: ignore[arg-type]
    rig.ask(one, rig.point(1, 0))
    rig.ask(two, rig.point(1, 1))
    one.close("gone")
    one.close()
    assert ends == ["gone"]
    assert rig.frame().ids.size == 1
    answers: list[Accepted | EdgepercError] = []
    one.ask(rig.point(1, 0), answers.append)
    assert "session is over" in str(answers[0])
    assert one.own(rig.frame()).ids.size == 0


def test_what_a_session_asked_before_it_ended_is_not_done() -> None:
    rig = Rig()
    session = rig.sessions.open()
    session.ask(rig.point(1, 0), lambda _: None)
    session.close()
    assert rig.frame().ids.size == 0
    assert rig.video.steps == []


def test_a_session_that_ends_while_the_network_runs_leaves_nothing_behind() -> None:
    rig = Rig()
    session = rig.sessions.open()
    rig.video.during = session.close
    session.ask(rig.point(1, 0), lambda _: None)
    rig.frame()
    assert rig.frame().ids.size == 0
    assert rig.video.objects == ()


def test_a_session_that_ends_while_the_network_refuses_its_prompt_leaves_nothing_behind() -> None:
    rig = Rig()
    session = rig.sessions.open()
    rig.video.during = session.close
    image = street(0).image.copy()
    image[0, 0] = 13
    session.ask(Add(1, Prompt(points=[(0.5, 0.5)])), lambda _: None)  # type: ignore[arg-type]
    rig.frame(Frame(stamp=street(0).stamp, image=image))
    assert rig.frame().ids.size == 0


def test_a_session_that_is_silent_for_its_ttl_is_ended_by_the_next_picture() -> None:
    rig = Rig()
    ends: list[str] = []
    session = rig.sessions.open(ttl_s=4.0, on_end=ends.append)  # type: ignore[arg-type]
    other = rig.sessions.open()
    assert (session.ttl_s, other.ttl_s) == (4.0, 10.0)
    rig.ask(session, rig.point(1, 0))
    rig.clock.now_s = 3.9
    session.touch()
    rig.clock.now_s = 7.8
    assert rig.frame().ids.size == 1
    rig.clock.now_s = 8.0
    assert rig.frame().ids.size == 0
    assert ends == ["expired"]
    assert len(rig.sessions) == 1


def test_a_stale_session_gives_way_to_a_new_one_though_no_picture_comes() -> None:
    rig = Rig(max_sessions=1)
    rig.sessions.open()
    rig.clock.now_s = 10.1
    rig.sessions.open()
    assert len(rig.sessions) == 1


@pytest.mark.parametrize("ttl_s", [math.nan, math.inf, -1.0])
def test_a_ttl_that_is_none_is_refused(ttl_s: float) -> None:
    with pytest.raises(RefusedError, match="ttl_s is"):
        Rig().sessions.open(ttl_s=ttl_s)


def test_more_ttl_than_allowed_is_cut() -> None:
    assert Rig().sessions.open(ttl_s=1e9).ttl_s == 10.0


def test_reset_frees_numbers_and_leaves_the_others_alone() -> None:
    rig = Rig()
    one, two = rig.sessions.open(), rig.sessions.open()
    rig.ask(two, rig.point(1, 2))
    rig.ask(one, rig.point(1, 0), rig.point(2, 1))
    rig.ask(one, Remove(1))
    (done,) = rig.ask(one, Reset())
    assert isinstance(done, Accepted)
    assert rig.frame().ids.size == 1
    assert isinstance(rig.ask(one, rig.point(1, 1))[0], Accepted)


def test_a_session_may_have_only_so_many_requests_waiting() -> None:
    rig = Rig()
    session, other = rig.sessions.open(), rig.sessions.open()
    answers: list[Accepted | EdgepercError] = []
    for _ in range(MAX_WAITING + 2):
        session.ask(Remove(1), answers.append)
    assert [getattr(each, "why", "") for each in answers] == ["full", "full"]
    assert isinstance(rig.ask(other, rig.point(1, 0))[0], Accepted)
    assert len(answers) == MAX_WAITING + 2
    assert session.waiting == 0


def test_pictures_of_another_size_lose_all_objects_and_say_so() -> None:
    rig = Rig()
    lost: list[EdgepercError] = []
    session = rig.sessions.open(on_lost=lost.append)
    idle: list[EdgepercError] = []
    rig.sessions.open(on_lost=idle.append)
    rig.ask(session, rig.point(1, 0))
    found = rig.frame(street(1, size_px=(80, 40)))
    assert found.ids.size == 0
    assert "now 80 × 40 px grey: all objects are lost" in str(lost[0])
    assert idle == []
    colour = np.zeros((40, 80, 3), np.uint8)
    rig.frame(Frame(stamp=street(2).stamp, image=colour))
    assert len(lost) == 1, "there was nothing more to lose"
    rig.frame(street(3))
    (late,) = rig.ask(session, rig.point(1, 0))
    assert isinstance(late, RefusedError), "a click that was meant for the lost object"
    rig.ask(session, Reset())
    assert isinstance(rig.ask(session, rig.point(1, 0))[0], Accepted)


def test_prompts_of_the_app_begin_with_their_frame_and_are_nobodys() -> None:
    planned = [(2, Prompt(points=[on(1, 2)])), (0, Prompt(box=(0, 4, 6, 10)))]  # type: ignore[arg-type]
    rig = Rig(prompts=planned)
    session = rig.sessions.open()
    counts = [rig.frame().ids.size for _ in range(4)]
    assert counts == [1, 1, 2, 2]
    assert session.own(rig.frame()).ids.size == 0


def test_a_misplaced_prompt_of_the_app_is_said_once_and_the_others_are_followed() -> None:
    planned = [(0, Prompt(box=(0, 4, 6, 10))), (0, Prompt(points=[(99, 3)]))]  # type: ignore[arg-type]
    rig = Rig(prompts=planned)
    with pytest.raises(ConfigError, match=r"prompt.objects #2: point \(99, 3\)"):
        rig.frame()
    assert rig.frame().ids.size == 1


def test_events_and_frames_without_pixels_are_refused() -> None:
    rig = Rig()
    stamp = Stamp(source="wide", seq=0, start_ns=0, end_ns=1)
    none = np.empty(0, np.uint16)
    events = Events(
        stamp=stamp, t=none.astype(np.int64), x=none, y=none, p=none > 0, width_px=4, height_px=4
    )
    with pytest.raises(ModelError, match="takes frames, got events"):
        rig.tracker(events)
    with pytest.raises(ModelError, match="no pixels"):
        rig.tracker(Frame(stamp=stamp, image=np.empty((0, 5), np.uint8)))


def test_sessions_of_many_threads_while_pictures_come() -> None:
    """Nothing is left behind, every request is answered once, and one thread runs the network."""
    rig = Rig(max_sessions=8, max_objects=6)
    answered: list[int] = []
    asked: list[int] = []
    stopping = threading.Event()

    def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stopping.is_set():
            session = rig.sessions.open()
            session.ask(rig.point(1, int(random.integers(3))), lambda _: None)
            for _ in range(int(random.integers(1, 6))):
                number, at = int(random.integers(3)), random.uniform(0, 40, 2)
                prompt = Prompt(points=at)
                request: Request = Add(number, prompt) if random.random() < 0.7 else Remove(number)
                asked.append(1)
                done = threading.Event()
                session.ask(request, lambda _, done=done: (answered.append(1), done.set()))
                done.wait(10)
            session.close()

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        rig.frame(street(rig.seq % 40))
    stopping.set()
    while any(thread.is_alive() for thread in threads):
        rig.frame(street(0))
    assert len(answered) == len(asked) > 20
    assert rig.frame(street(0)).ids.size == 0
    assert rig.video.objects == ()
    assert len(rig.video.threads) == 1


actions = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "reset", "close", "frame"]), st.integers(0, 3)),
    max_size=40,
)


@settings(deadline=None)
@given(actions=actions)
def test_the_network_follows_exactly_what_sessions_own(actions: list[tuple[str, int]]) -> None:
    rig = Rig(max_sessions=2, max_objects=3)
    one, two = rig.sessions.open(), rig.sessions.open()
    do: dict[str, Callable[[Session, int], None]] = {
        "add": lambda session, n: session.ask(rig.point(n, n % 3), lambda _: None),
        "remove": lambda session, n: session.ask(Remove(n), lambda _: None),
        "reset": lambda session, n: session.ask(Reset(), lambda _: None),
        "close": lambda session, n: session.close(),
        "frame": lambda session, n: (rig.frame(street(n)), None)[1],
    }
    for index, (what, number) in enumerate(actions):
        do[what]((one, two)[index % 2], number)
        if what == "frame":
            owned = sorted([*one.objects.values(), *two.objects.values()])
            assert sorted(rig.video.objects) == owned
            assert len(owned) <= 3
