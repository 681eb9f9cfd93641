"""Tracking by single calls: sessions that no stream holds, by stubs and by the Python client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from edgeperc.client import Client, connect
from edgeperc.client.connection import NotYetError
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.prompt import Prompt
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.proto.retry import retry_s_of
from edgeperc.sinks import held as module
from edgeperc.sinks.tracking import CALLS

from .grey_daemon import Daemon, eventually
from .test_client_orders import example
from .test_tracking import band, daemon, daemons  # noqa: F401

CODE = grpc.StatusCode
LONG_S = 120


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:  # noqa: F811
    with connect(daemon.address, timeout_s=60) as client:
        yield client


@pytest.fixture
def stub(daemon: Daemon) -> Iterator[Any]:  # noqa: F811
    with grpc.insecure_channel(daemon.address) as channel:
        yield tracking_grpc.TrackingServiceStub(channel)  # type: ignore[no-untyped-call]


def created(stub: Any, **options: Any) -> str:
    opened = stub.CreateSession(tracking.CreateSessionRequest(**options), timeout=LONG_S).session
    return str(opened.session_id)


def add(session_id: str, *prompts: Any) -> tracking.AddPromptsRequest:
    return tracking.AddPromptsRequest(session_id=session_id, prompts=prompts)


def point(object_id: int, x: float = 1, y: float = 1) -> dict[str, Any]:
    return {"object_id": object_id, "points": [{"x": x, "y": y}]}


def refused(rpc: Callable[..., Any], request: Any) -> Any:
    def call() -> None:
        answer = rpc(request, timeout=LONG_S)
        if hasattr(answer, "__next__"):
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_the_docs_example_follows_a_thing(
    daemon: Daemon,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = example("create_session(", daemon.address).replace('"dvs"', '"wide"')
    text = text.replace("(220, 128, 268, 158)", f"{band(0)}")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []

        def count(*words: object) -> None:
            said.append(" ".join(map(str, words)))
            if len(said) == 3:
                raise KeyboardInterrupt

        patch.setattr("builtins.print", count)
        with pytest.raises(KeyboardInterrupt):
            exec(text, {})
    assert said[-1].startswith("[1]")
    assert eventually(lambda: daemon.sessions == 0)


def test_a_session_lives_without_a_stream_and_goes_when_it_is_deleted(
    daemon: Daemon,  # noqa: F811
    client: Client,
) -> None:
    session = client.create_session("wide", ttl_s=9)
    assert (session.source, session.ttl_s, session.picture_px) == ("wide", 9.0, (60, 40))
    assert (session.max_objects, session.max_points) == (6, 15)
    assert session.model.name == daemon.tracker.ref.name
    ids = session.prompt({1: Prompt(box=band(0)), 7: Prompt(box=band(1))})
    assert ids.keys() == {1, 7}
    assert len(set(ids.values())) == 2

    again = client.session(session.id)  # another process, with nothing but the id
    found = next(again.watch())
    assert found.ids.tolist() == [1, 7]
    all_of_them = next(iter(client.subscribe())).result
    assert set(ids.values()) <= set(all_of_them.ids.tolist())  # type: ignore[union-attr]

    again.remove(7)
    assert next(session.watch()).ids.tolist() == [1]
    with pytest.raises(ConfigError, match="object 7 was removed"):
        session.points(7, (1, 1))
    session.reset()
    assert next(session.watch()).ids.tolist() == []
    session.points(7, (1, 1))
    again.delete()
    assert daemon.sessions == 0
    with pytest.raises(ConfigError, match="no such session, or it is over"):
        session.points(1, (1, 1))
    with pytest.raises(ConfigError, match="no such session"):
        next(session.watch())
    with pytest.raises(ConfigError, match="no such session"):
        session.delete()


def test_sessions_do_not_see_each_others_objects(client: Client) -> None:
    with client.create_session() as one, client.create_session() as other:
        assert one.box(3, band(0)) != other.box(3, band(1))
        assert next(one.watch()).ids.tolist() == next(other.watch()).ids.tolist() == [3]
        one.remove(3)
        assert next(one.watch()).ids.tolist() == []
        assert next(other.watch()).ids.tolist() == [3]


def test_what_is_refused_says_so_and_the_rest_is_done(stub: Any) -> None:
    session_id = created(stub)
    prompts = (point(1), point(2, x=1000), {"object_id": 3}, point(4), point(4, x=2))
    answers = stub.AddPrompts(add(session_id, *prompts), timeout=LONG_S).answers
    kinds = [answer.WhichOneof("answer") for answer in answers]
    assert kinds == ["accepted", "refused", "refused", "accepted", "accepted"]
    assert "outside" in answers[1].refused.message
    assert {answer.refused.code for answer in answers[1:3]} == {CODE.INVALID_ARGUMENT.value[0]}
    assert answers[4].accepted.stamp.seq != answers[3].accepted.stamp.seq  # one after the other
    assert answers[4].accepted.instance_id == answers[3].accepted.instance_id


@pytest.mark.parametrize(
    ("rpc", "request_", "wanted"),
    [
        ("CreateSession", tracking.CreateSessionRequest(source="tail"), CODE.NOT_FOUND),
        ("CreateSession", tracking.CreateSessionRequest(ttl_s=-1), CODE.INVALID_ARGUMENT),
        ("AddPrompts", add("", point(1)), CODE.NOT_FOUND),
        ("AddPrompts", add("wide-1", point(1)), CODE.NOT_FOUND),
        ("AddPrompts", add("{id}"), CODE.INVALID_ARGUMENT),
        ("AddPrompts", add("{id}", *[point(1)] * 65), CODE.RESOURCE_EXHAUSTED),
        ("RemoveObjects", tracking.RemoveObjectsRequest(session_id="x"), CODE.NOT_FOUND),
        ("RemoveObjects", tracking.RemoveObjectsRequest(session_id="{id}"), CODE.INVALID_ARGUMENT),
        (
            "RemoveObjects",
            tracking.RemoveObjectsRequest(session_id="{id}", object_ids=[1], reset=True),
            CODE.INVALID_ARGUMENT,
        ),
        ("DeleteSession", tracking.DeleteSessionRequest(session_id="x"), CODE.NOT_FOUND),
        ("Watch", tracking.WatchRequest(session_id="x"), CODE.NOT_FOUND),
        (
            "Watch",
            tracking.WatchRequest(session_id="{id}", delivery={"max_rate_hz": -1}),
            CODE.INVALID_ARGUMENT,
        ),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    stub: Any, rpc: str, request_: Any, wanted: grpc.StatusCode
) -> None:
    session_id = created(stub)
    request = type(request_)()
    request.CopyFrom(request_)
    if getattr(request, "session_id", "") == "{id}":
        request.session_id = session_id
    assert refused(getattr(stub, rpc), request).code() == wanted
    stub.AddPrompts(add(session_id, point(1)), timeout=LONG_S)  # the session goes on


def test_an_id_cannot_be_guessed(stub: Any) -> None:
    one, other = created(stub), created(stub)
    assert len(one) == len(other) == 32
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 16


def test_there_are_so_many_sessions_and_no_more(daemon: Daemon, stub: Any) -> None:  # noqa: F811
    ids = [created(stub) for _ in range(3)]
    error = refused(stub.CreateSession, tracking.CreateSessionRequest())
    assert error.code() == CODE.RESOURCE_EXHAUSTED
    assert "max_sessions" in error.details()
    stub.DeleteSession(tracking.DeleteSessionRequest(session_id=ids[0]), timeout=LONG_S)
    created(stub)


def test_a_session_that_nobody_asks_for_is_over_after_its_ttl(
    daemon: Daemon,  # noqa: F811
    client: Client,
) -> None:
    session = client.create_session(ttl_s=0.3)
    assert eventually(lambda: daemon.sessions == 0)
    with pytest.raises(ConfigError, match="no such session, or it is over"):
        session.points(1, (1, 1))

    daemon.paused.set()  # without pictures, too
    session = client.create_session(ttl_s=0.3)
    time.sleep(0.4)
    with pytest.raises(ConfigError, match="no such session, or it is over"):
        session.reset()
    assert daemon.sessions == 0


def test_who_watches_keeps_it_alive(daemon: Daemon, client: Client) -> None:  # noqa: F811
    session = client.create_session(ttl_s=9)
    heard_s = daemon.tracker.sessions._open[0].heard_s
    watching = session.watch()
    next(watching)
    assert eventually(lambda: daemon.tracker.sessions._open[0].heard_s > heard_s + 1)
    assert daemon.sessions == 1
    next(watching)


def test_a_watcher_is_told_the_end_and_its_reason(daemon: Daemon, stub: Any) -> None:  # noqa: F811
    session_id = created(stub)
    watching = stub.Watch(tracking.WatchRequest(session_id=session_id), timeout=LONG_S)
    assert next(watching).opened.session_id == session_id
    assert next(watching).WhichOneof("response") == "result"
    stub.DeleteSession(tracking.DeleteSessionRequest(session_id=session_id), timeout=LONG_S)
    *_, last = watching
    assert last.closed.reason == tracking.SessionClosed.REASON_ASKED
    assert watching.code() == CODE.OK

    session_id = created(stub)
    watching = stub.Watch(tracking.WatchRequest(session_id=session_id), timeout=LONG_S)
    next(watching)
    daemon.stop()
    *_, last = watching
    assert last.closed.reason == tracking.SessionClosed.REASON_STOPPING


def test_the_newest_watcher_is_the_one(client: Client, stub: Any) -> None:
    session = client.create_session()
    first = session.watch()
    next(first)
    second = session.watch()
    next(second)
    with pytest.raises(DeviceError, match="another Watch of this session has begun"):
        for _ in first:
            pass
    next(second)
    del second
    session.points(1, (1, 1))


def test_a_watcher_that_does_not_read_makes_way(daemon: Daemon, client: Client, stub: Any) -> None:  # noqa: F811
    """Its socket is full of large masks; it is not waited for."""
    daemon.image = np.random.default_rng(0).integers(0, 2, (600, 600), np.uint8)
    assert eventually(lambda: daemon.tracker.picture_px == (600, 600))
    session_id = created(stub)
    queue = pb.DeliveryPolicy(mode=pb.DeliveryPolicy.MODE_QUEUE, depth=256)
    stuck = stub.Watch(tracking.WatchRequest(session_id=session_id, delivery=queue))
    next(stuck)
    session = client.session(session_id)
    session.points(1, (1, 1))
    free = daemon.sink._tracking._seats._free
    before = free._value
    watching = session.watch()
    next(watching)
    assert eventually(lambda: free._value == before)  # one came, one went
    next(watching)


def test_lost_objects_are_said_to_who_watches_or_will(
    daemon: Daemon,  # noqa: F811
    client: Client,
) -> None:
    session = client.create_session()
    session.points(1, (1, 1))
    daemon.size_px = (64, 48)
    assert eventually(lambda: daemon.tracker.picture_px == (64, 48))
    with pytest.raises(DeviceError, match="all objects are lost"):
        next(session.watch())
    watching = session.watch()
    next(watching)  # said once
    session.reset()
    session.points(1, (1, 1))
    daemon.size_px = (60, 40)
    with pytest.raises(DeviceError, match="all objects are lost"):
        for _ in watching:
            pass


def test_without_pictures_a_call_is_told_when_to_try_again(
    daemon: Daemon,  # noqa: F811
    client: Client,
    stub: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PICTURE_S", 0.2)
    session_id = created(stub)
    daemon.paused.set()
    time.sleep(0.05)
    error = refused(stub.AddPrompts, add(session_id, point(1)))
    assert error.code() == CODE.UNAVAILABLE
    assert retry_s_of(error.trailing_metadata()) == 1.0
    with pytest.raises(NotYetError, match="no picture that answers came within 0.2 s"):
        client.session(session_id).points(2, (1, 1))
    monkeypatch.setattr(module, "PICTURE_S", 60)
    later = threading.Timer(0.2, daemon.paused.clear)
    later.start()
    assert client.session(session_id).points(2, (1, 1)) > 0
    later.join()


def test_a_call_that_waits_ends_with_its_session_and_leaves_no_thread(
    daemon: Daemon,  # noqa: F811
    stub: Any,
) -> None:
    """As many as may wait do, one more is refused, and all of them go when the session does."""
    session_id = created(stub)
    daemon.paused.set()
    time.sleep(0.05)
    calls = [
        stub.AddPrompts.future(add(session_id, point(9)), timeout=LONG_S) for _ in range(CALLS)
    ]
    free = daemon.sink._tracking._calls._free
    assert eventually(lambda: free._value == 0)
    assert refused(stub.AddPrompts, add(session_id, point(1))).code() == CODE.RESOURCE_EXHAUSTED
    stub.CreateSession(tracking.CreateSessionRequest(), timeout=LONG_S)  # others answer
    calls[0].cancel()
    assert eventually(lambda: free._value == 1)
    stub.DeleteSession(tracking.DeleteSessionRequest(session_id=session_id), timeout=LONG_S)
    codes = {call.code() for call in calls[1:]}
    assert codes == {CODE.NOT_FOUND}
    assert eventually(lambda: free._value == CALLS)
