"""TrackingService as its clients meet it: a real server, real clients, some of them bad ones."""

from __future__ import annotations

import gc
import itertools
import math
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edgeperc import masks
from edgeperc.client import Client, connect
from edgeperc.errors import ConfigError, DataError, DeviceError
from edgeperc.packet import Stamp
from edgeperc.prompt import Prompt
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import Instances, LabelMap, ModelRef
from edgeperc.sessions import Sessions
from edgeperc.sink import Inventory
from edgeperc.sinks import tracking as sink_module
from edgeperc.sinks.grpc import Grpc
from edgeperc.sinks.mailbox import Published
from edgeperc.sinks.outbox import MAX_UNREAD, Outbox
from edgeperc.sinks.session_messages import MAX_MESSAGE_BYTES
from edgeperc.tracker import Tracker

from .grey_daemon import PICTURES, Daemon, eventually
from .grey_video import GreyVideo, on, street

Q = pb.DeliveryPolicy(mode=pb.DeliveryPolicy.MODE_QUEUE, depth=256)


@pytest.fixture
def daemons() -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(**options: Any) -> Daemon:
        started.append(Daemon(**options))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


@pytest.fixture
def daemon(daemons: Callable[..., Daemon]) -> Daemon:
    daemon = daemons()
    assert eventually(lambda: daemon.seq > 0)
    return daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with connect(daemon.address) as client:
        yield client


def band(row: int) -> tuple[float, float, float, float]:
    """A box whose middle is, in one picture of 54, on the square in `row`: mostly background."""
    return 0.0, 4.0 + 10 * row, 60.0, 10.0 + 10 * row


class Raw:
    """A session by the stubs alone, as a client in another language has it."""

    def __init__(self, address: str) -> None:
        still = [("grpc.http2.bdp_probe", 0)]  # 64 kB may be on their way unread, and no more
        self.channel = grpc.insecure_channel(address, options=still)
        self.requests: queue.SimpleQueue[tracking.SessionRequest | None] = queue.SimpleQueue()
        self.call = tracking_grpc.TrackingServiceStub(self.channel).Session(  # type: ignore[no-untyped-call]
            iter(self.requests.get, None)
        )

    def say(self, **request: Any) -> None:
        self.requests.put(tracking.SessionRequest(**request))

    def next(self, kind: str) -> Any:
        """The next response of this kind; results in between are passed over."""
        for response in self.call:
            found = response.WhichOneof("response")
            if found == kind:
                return getattr(response, kind)
            assert found == "result", f"{found} instead of {kind}: {response}"
        raise AssertionError(f"the stream ended without {kind}")

    def open(self, **options: Any) -> tracking.SessionOpened:
        self.say(open=tracking.OpenSession(**options))
        opened: tracking.SessionOpened = self.next("opened")
        return opened


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[Callable[[], Raw]]:
    opened: list[Raw] = []

    def connect_raw() -> Raw:
        opened.append(Raw(daemon.address))
        return opened[-1]

    yield connect_raw
    for each in opened:
        each.call.cancel()
        each.channel.close()


def square(grey: int, seq: int) -> np.ndarray[Any, Any]:
    return street(seq).image == grey


def test_four_lines_of_python_follow_a_thing(daemon: Daemon) -> None:
    with connect(daemon.address).track("wide") as session:
        assert next(session).ids.size == 0
        time.sleep(0.05)  # one more has come that is not read yet, and is not to be read any more
        daemon.paused.set()
        time.sleep(0.05)
        x, y = on(1, daemon.seq % PICTURES)
        threading.Timer(0.1, daemon.paused.clear).start()
        session.points(5, (x, y))
        for _, instances in zip(range(5), session, strict=False):
            assert isinstance(instances, Instances)
            assert instances.ids.tolist() == [5]
            np.testing.assert_array_equal(
                masks.decode(instances.masks[0]), square(150, instances.stamp.seq)
            )
    assert eventually(lambda: daemon.sessions == 0)
    assert eventually(lambda: daemon.videos[0].objects == ())


def test_the_example_of_the_page_runs(
    daemons: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = daemons()
    daemon.size_px = (960, 448)
    assert eventually(lambda: daemon.tracker.picture_px == (960, 448))
    page = (Path(__file__).parents[1] / "docs" / "grpc.md").read_text(encoding="utf-8")
    example = re.findall("```python\n(.*?)```", page, flags=re.DOTALL)[1]
    example = example.replace("127.0.0.1:50051", daemon.address).replace('"dvs"', '"wide"')
    running = threading.Thread(target=exec, args=(example, {}))
    running.start()
    assert eventually(lambda: " [1] [[" in capsys.readouterr().out)
    daemon.stop()
    running.join(20)
    assert not running.is_alive()


def test_what_opens_says_what_there_is(daemon: Daemon, client: Client) -> None:
    with client.track(ttl_s=3.0) as session:
        assert (session.source, session.model) == ("wide", ModelRef(name="grey"))
        assert session.picture_px == (60, 40)
        assert (session.ttl_s, session.max_objects, session.max_points) == (3.0, 6, 15)


def test_boxes_masks_and_corrections(daemon: Daemon, client: Client) -> None:
    with client.track() as session:
        session.mask(1, street(0).image == 20)
        session.box(2, (0, 34, 60, 40))
        first = session.prompt(3, Prompt(points=[(1, 1)], labels=[1]))  # type: ignore[arg-type]
        assert session.points(3, [(1, 1), (2, 2)], [1, 0]) == first
        found = next(session)
        while found.ids.tolist() != [1, 2, 3]:
            found = next(session)
        background = masks.encode(street(found.stamp.seq).image == 20)
        assert found.masks == (background,) * 3
        session.remove(2)
        session.reset()
        assert eventually(lambda: next(session).ids.size == 0)


def test_subscribers_see_the_objects_of_all_under_ids_of_their_own(
    daemon: Daemon, client: Client
) -> None:
    with client.track() as one, client.track() as two, connect(daemon.address) as third:
        results = third.subscribe(mode="queue", depth=256)
        ids = [one.points(1, (1, 1)), two.points(1, (1, 39))]
        assert ids == sorted(set(ids))
        received = next(results)
        while received.result.ids.tolist() != ids:  # type: ignore[union-attr]
            received = next(results)
        assert isinstance(received.result, Instances)
        assert received.result.picture_px == (60, 40)
        assert one.source == received.result.stamp.source
        assert eventually(lambda: next(one).ids.tolist() == [1])
        assert eventually(lambda: next(two).ids.tolist() == [1])


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda session: session.points(1, (61, 1)), ConfigError, "outside the picture of 60 × 40"),
        (lambda session: session.box(1, (9, 9, 3, 3)), ConfigError, "is empty"),
        (lambda session: session.mask(1, np.ones((4, 4), bool)), ConfigError, "4 × 4 px in pict"),
        (lambda session: session.mask(1, np.zeros((40, 60), bool)), ConfigError, "is empty"),
        (lambda session: session.points(1, np.ones((10_000, 2))), ConfigError, "10,000 points"),
        (lambda session: session.prompt(1, Prompt()), ConfigError, "asks for nothing"),
        (lambda session: session.points(1, (math.nan, 1)), DataError, "not finite"),
        (lambda session: session.points(-1, (1, 1)), ConfigError, "numbers are 0 to"),
        (lambda session: session.remove(4), ConfigError, "object 4 is not there"),
        (
            lambda session: (session.points(3, (1, 1)), session.remove(3), session.box(3, band(0))),
            ConfigError,
            "object 3 was removed",
        ),
    ],
)
def test_what_makes_no_sense_is_said_and_the_session_goes_on(
    daemon: Daemon, client: Client, ask: Callable[[Any], Any], error: type[Exception], said: str
) -> None:
    with client.track() as session:
        session.points(2, (1, 1))
        with pytest.raises(error, match=said):
            ask(session)
        assert eventually(lambda: next(session).ids.tolist() == [2])


def test_a_mask_larger_than_a_message_is_not_even_sent(daemon: Daemon, client: Client) -> None:
    with client.track() as session:
        assert session.max_message_bytes == MAX_MESSAGE_BYTES
        session.max_message_bytes = 1000
        with pytest.raises(ConfigError, match="bytes; the daemon takes 1,000"):
            session.mask(1, np.add.outer(np.arange(40), np.arange(60)) % 2 == 0)
        session.mask(1, street(0).image == 20)


@pytest.mark.parametrize(
    ("prompt", "code", "said"),
    [
        ({"points": [{"x": math.nan, "y": 1}]}, 3, "not finite"),
        ({"points": [{"x": math.inf, "y": 1}]}, 3, "not finite"),
        ({"box": {"x_max": math.nan, "y_max": 4}}, 3, "not finite"),
        ({"points": [{"x": 1, "y": 1}] * 10_000}, 8, "10,000 points; at most 15"),
        ({"points": [{"x": 1, "y": 1}] * 15, "box": {"x_max": 9, "y_max": 9}}, 8, "17 points"),
        ({}, 3, "asks for nothing"),
        ({"mask": {"width": 60, "height": 40, "counts": b"0"}}, 3, "do not fill"),
        ({"mask": {"width": 60, "height": 40, "counts": b"\x00\xff"}}, 3, "character"),
        ({"mask": {"width": 60, "height": 40}}, 3, "empty"),
        ({"mask": {"width": 1 << 31, "height": 1 << 31, "counts": b"0"}}, 3, "in pictures of 60"),
    ],
)
def test_bad_prompts_on_the_wire_are_refused_by_code(
    daemon: Daemon, raw: Callable[[], Raw], prompt: dict[str, Any], code: int, said: str
) -> None:
    session = raw()
    session.open()
    session.say(request_id=77, prompt=tracking.AddPrompt(object_id=1, **prompt))
    refused = session.next("refused")
    assert (refused.request_id, refused.code) == (77, code)
    assert said in refused.message
    session.say(request_id=78, prompt={"object_id": 1, "points": [{"x": 1, "y": 1}]})
    accepted = session.next("accepted")
    assert (accepted.request_id, accepted.object_id) == (78, 1)
    assert accepted.stamp.source == "wide"
    result = session.next("result")
    while not result.instances.instances:
        result = session.next("result")
    assert result.instances.instances[0].id == 1


def test_a_mask_before_the_first_picture_is_refused(daemons: Callable[..., Daemon]) -> None:
    daemon = daemons()
    daemon.paused.set()
    if daemon.seq:
        pytest.skip("a picture was faster")
    session = Raw(daemon.address)
    session.open()
    session.say(
        request_id=1, prompt={"mask": {"width": 1 << 14, "height": 1 << 14, "counts": b"0"}}
    )
    assert "no picture has come yet" in session.next("refused").message
    session.channel.close()


def test_open_twice_an_empty_request_and_an_unknown_one(raw: Callable[[], Raw]) -> None:
    session = raw()
    session.open()
    session.say(request_id=1, open={})
    assert "open already" in session.next("refused").message
    session.say(request_id=2)
    refused = session.next("refused")
    assert (refused.request_id, refused.code) == (2, 3)
    session.say()
    session.say(request_id=3, reset={})
    assert session.next("accepted").request_id == 3


@pytest.mark.parametrize(
    ("first", "code", "said"),
    [
        ({"open": {"source": "tail"}}, "NOT_FOUND", "no source 'tail' can be prompted; there is: "),
        ({"open": {"model": "sam"}}, "NOT_FOUND", "no model 'sam' can be prompted"),
        ({"open": {"ttl_s": math.nan}}, "INVALID_ARGUMENT", "ttl_s is nan"),
        ({"open": {"ttl_s": -1}}, "INVALID_ARGUMENT", "ttl_s is -1"),
        ({"open": {"delivery": {"mode": 9}}}, "INVALID_ARGUMENT", "mode is 9"),
        ({"open": {"delivery": {"max_rate_hz": math.nan}}}, "INVALID_ARGUMENT", "max_rate_hz"),
        ({"reset": {}}, "INVALID_ARGUMENT", "the first message must be `open`"),
        ({}, "INVALID_ARGUMENT", "the first message must be `open`"),
    ],
)
def test_a_stream_that_begins_wrongly_is_ended_with_a_reason(
    daemon: Daemon, raw: Callable[[], Raw], first: dict[str, Any], code: str, said: str
) -> None:
    session = raw()
    session.say(**first)
    with pytest.raises(grpc.RpcError) as caught:
        next(session.call)
    assert caught.value.code().name == code
    assert said in caught.value.details()
    assert daemon.sessions == 0


def test_a_client_is_told_the_same_in_the_houses_words(daemon: Daemon, client: Client) -> None:
    with pytest.raises(ConfigError, match=r"no source 'tail' can be prompted.*'wide' by 'grey'"):
        client.track("tail")
    sessions = [client.track() for _ in range(3)]
    with pytest.raises(DeviceError, match=r"the 3 sessions of 'wide' are taken \(max_sessions\)"):
        client.track()
    for session in sessions:
        session.close()
        session.close()
    assert eventually(lambda: daemon.sessions == 0)


def test_where_nothing_can_be_prompted_that_is_said() -> None:
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory())
    with connect(sink.address) as client, pytest.raises(ConfigError, match="there is: none"):
        client.track()
    sink.close()


def test_where_several_can_be_prompted_the_client_says_which(
    daemons: Callable[..., Daemon],
) -> None:
    daemon = daemons(sources=("wide", "tail"))
    with connect(daemon.address) as client:
        with pytest.raises(ConfigError, match="say which: 'wide' by 'grey'; 'tail' by 'grey'"):
            client.track()
        with client.track("tail") as tail, client.track("wide") as wide:
            tail.points(1, (1, 1))
            assert eventually(lambda: next(tail).ids.tolist() == [1])
            assert next(wide).ids.size == 0
            assert {next(tail).stamp.source, next(wide).stamp.source} == {"tail", "wide"}


def test_a_stream_that_never_opens_is_ended(
    daemon: Daemon, raw: Callable[[], Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "OPEN_S", 0.2)
    session = raw()
    with pytest.raises(grpc.RpcError) as caught:
        next(session.call)
    assert caught.value.code() == grpc.StatusCode.CANCELLED


def test_a_message_of_100_mb_ends_its_stream_and_no_other(
    daemon: Daemon, raw: Callable[[], Raw], client: Client
) -> None:
    with client.track() as other:
        other.points(1, (1, 1))
        session = raw()
        session.open()
        session.say(prompt={"mask": {"width": 60, "height": 40, "counts": bytes(100 << 20)}})
        with pytest.raises(grpc.RpcError) as caught:
            list(session.call)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(MAX_MESSAGE_BYTES) in caught.value.details()
        assert eventually(lambda: daemon.sessions == 1)
        assert eventually(lambda: next(other).ids.tolist() == [1])


def test_bytes_that_are_no_message_end_their_stream_and_no_other(
    daemon: Daemon, client: Client
) -> None:
    with client.track() as other, grpc.insecure_channel(daemon.address) as channel:
        other.points(1, (1, 1))
        call = channel.stream_stream("/edgeperc.v1.TrackingService/Session")
        opening = tracking.SessionRequest(open={}).SerializeToString()  # type: ignore[arg-type]
        for sent in ([b"\xff" * 50], [opening, b"\xff" * 50]):
            stream = call(iter(sent))
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert eventually(lambda: daemon.sessions == 1)
        assert eventually(lambda: next(other).ids.tolist() == [1])


def test_close_is_answered_with_the_reason_and_a_good_end(
    daemon: Daemon, raw: Callable[[], Raw]
) -> None:
    session = raw()
    session.open()
    session.say(request_id=1, prompt={"points": [{"x": 1, "y": 1}]})
    session.next("accepted")
    session.say(close={})
    assert session.next("closed").reason == tracking.SessionClosed.REASON_ASKED
    assert list(session.call) == []
    assert session.call.code() == grpc.StatusCode.OK
    assert daemon.sessions == 0


def test_requests_after_close_fail_at_once(client: Client) -> None:
    session = client.track()
    session.close()
    with pytest.raises(DeviceError, match="session is over"):
        session.points(1, (1, 1))
    assert list(session) == []


def test_a_silent_client_is_given_up_though_no_picture_comes(
    daemon: Daemon, raw: Callable[[], Raw]
) -> None:
    session = raw()
    assert session.open(ttl_s=0.3).ttl_s == pytest.approx(0.3)
    daemon.paused.set()
    assert session.next("closed").reason == tracking.SessionClosed.REASON_EXPIRED
    assert session.call.code() == grpc.StatusCode.OK
    assert daemon.sessions == 0


def test_a_client_that_said_all_it_had_to_say_is_served_until_its_ttl(
    daemon: Daemon, raw: Callable[[], Raw]
) -> None:
    """As grpcurl, which closes its side after the last message."""
    session = raw()
    session.say(open=tracking.OpenSession(ttl_s=0.5))
    session.say(request_id=1, prompt={"object_id": 9, "points": [{"x": 1, "y": 1}]})
    session.requests.put(None)
    kinds = [response.WhichOneof("response") for response in session.call]
    assert kinds[0] == "opened"
    assert kinds[-1] == "closed"
    assert kinds.count("accepted") == 1
    assert kinds.count("result") > 10
    assert daemon.sessions == 0


def test_a_loop_that_reads_keeps_its_session_for_longer_than_the_ttl(
    daemon: Daemon, client: Client
) -> None:
    with client.track(ttl_s=1.5) as session:
        session.points(1, (1, 1))
        end_s = time.monotonic() + 2.0
        while time.monotonic() < end_s:
            assert next(session).ids.size <= 1
        daemon.paused.set()
        threading.Timer(2.0, daemon.paused.clear).start()
        time.sleep(0.05)
        assert [next(session).ids.tolist() for _ in range(3)][-1] == [1]


def test_a_client_that_stops_reading_is_given_up_and_told(daemon: Daemon, client: Client) -> None:
    session = client.track(ttl_s=0.3)
    session.points(1, (1, 1))
    assert eventually(lambda: daemon.sessions == 0)
    with pytest.raises(DeviceError, match=r"given up: nothing was read for 0.3 s"):
        list(session)
    with pytest.raises(DeviceError, match="session is over"):
        session.remove(1)


def test_a_daemon_that_stops_ends_the_loop(daemons: Callable[..., Daemon]) -> None:
    daemon = daemons()
    with connect(daemon.address) as client, client.track() as session:
        next(session)
        threading.Timer(0.1, daemon.stop).start()
        found = list(session)
        assert all(isinstance(each, Instances) for each in found)


def test_a_second_address_of_the_daemon_may_close_without_the_first(
    daemon: Daemon, client: Client
) -> None:
    second = Grpc(listen="127.0.0.1:0", inventory=Inventory(), trackers=daemon.trackers)
    with client.track() as session, connect(second.address) as other:
        session.points(1, (1, 1))
        guest = other.track()
        guest.points(1, (1, 39))
        second.close()
        assert list(guest) == []
        assert next(session).ids.tolist() == [1]
    assert eventually(lambda: daemon.sessions == 0)


def test_lost_objects_are_said_once_and_the_loop_may_go_on(daemon: Daemon, client: Client) -> None:
    with client.track() as session:
        session.points(1, (1, 1))
        daemon.size_px = (80, 40)
        with pytest.raises(DeviceError, match="now 80 × 40 px grey: all objects are lost"):
            list(session)
        assert eventually(lambda: next(session).picture_px == (80, 40))
        session.reset()
        session.points(1, (70, 1))
        assert eventually(lambda: next(session).ids.tolist() == [1])


CLIENT = """
import sys, time
from edgeperc.client import connect
session = connect(sys.argv[1]).track("wide")
session.points(1, (1, 1))
print("tracking", flush=True)
for found in session:
    pass
"""


def test_a_client_that_is_killed_leaves_nothing_behind(daemon: Daemon, client: Client) -> None:
    with client.track() as other:
        other.points(1, (1, 39))
        command = [sys.executable, "-c", CLIENT, daemon.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "tracking\n"
            assert daemon.sessions == 2
            assert len(daemon.videos[0].objects) == 2
            process.kill()
        assert eventually(lambda: daemon.sessions == 1)
        assert eventually(lambda: len(daemon.videos[0].objects) == 1)
        assert next(other).ids.tolist() == [1]


def test_a_slow_client_loses_results_counts_them_and_slows_nobody(
    daemon: Daemon, client: Client
) -> None:
    with client.track() as slow, client.track(mode="queue", depth=256) as quick:
        first = next(quick).stamp.seq
        seen = [first]
        began = daemon.seq
        for _ in range(3):
            time.sleep(0.2)
            next(slow)
        while len(seen) < 50:
            seen.append(next(quick).stamp.seq)
        assert quick.lost == 0
        assert seen == [(first + k) % PICTURES for k in range(50)]
        assert slow.lost > 20
        assert daemon.seq - began > 40


def test_a_client_that_sends_and_never_reads_keeps_nobody_waiting(
    daemon: Daemon, client: Client
) -> None:
    flood = Raw(daemon.address)
    flood.say(open=tracking.OpenSession(ttl_s=1.0))
    for _ in range(2_000):
        flood.say(request_id=1, remove=tracking.RemoveObject(object_id=7))
    with client.track() as other:
        began_s = time.monotonic()
        other.points(1, (1, 39))
        assert [next(other).ids.tolist() for _ in range(20)][-1] == [1]
        assert time.monotonic() - began_s < 10
        answered = 0
        while answered < 2_000:  # and in the end it is answered, too
            answered += next(flood.call).HasField("refused")
    flood.channel.close()


def test_a_client_that_goes_while_no_picture_comes_leaves_at_once(
    daemon: Daemon, raw: Callable[[], Raw]
) -> None:
    session = raw()
    session.open()
    daemon.paused.set()
    time.sleep(0.05)
    session.call.cancel()
    end_s = time.monotonic() + 30
    while daemon.sessions and time.monotonic() < end_s:
        time.sleep(0.01)
    assert daemon.sessions == 0


def test_what_waits_for_an_answer_fails_when_the_session_ends(
    daemon: Daemon, client: Client
) -> None:
    session = client.track()
    daemon.paused.set()
    time.sleep(0.05)
    threading.Timer(0.2, session.close).start()
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match="session is over"):
        session.points(1, (1, 1))
    assert time.monotonic() - began_s < client.timeout_s - 1


def test_a_request_that_no_picture_answers_says_so(daemon: Daemon) -> None:
    with connect(daemon.address, timeout_s=2.0) as client, client.track() as session:
        daemon.paused.set()
        time.sleep(0.05)
        with pytest.raises(DeviceError, match="no answer within 2 s") as caught:
            session.points(1, (1, 1))
        assert "camera" in caught.value.hint


def test_results_are_thinned_to_a_rate_and_counted(daemon: Daemon, client: Client) -> None:
    with client.track(max_rate_hz=10.0, mode="queue", depth=256) as session:
        seqs = [next(session).stamp.seq for _ in range(6)]
        passed = sum((after - before) % PICTURES for before, after in itertools.pairwise(seqs))
        assert session.lost == passed - 5 > 0


def test_an_accepted_prompt_makes_older_results_go() -> None:
    newest, queued = (Outbox(depth=depth, max_rate_hz=0.0) for depth in (None, 8))
    found = Tracker(GreyVideo(), Sessions(source="wide", max_points=3))(street(0))
    for outbox in (newest, queued):
        outbox.put(Published(found))
        outbox.say(tracking.SessionResponse(refused={}))  # type: ignore[arg-type]
        outbox.say(tracking.SessionResponse(accepted={}))  # type: ignore[arg-type]
        assert isinstance(outbox.next(0.0), tracking.SessionResponse)
        assert isinstance(outbox.next(0.0), tracking.SessionResponse)
    assert newest.next(0.0) is None
    assert isinstance(queued.next(0.0), tuple)


def test_an_outbox_makes_the_hearing_wait_for_a_client_that_does_not_read() -> None:
    outbox = Outbox(depth=None, max_rate_hz=0.0)
    for number in range(MAX_UNREAD):
        outbox.wait_for_room()
        outbox.say(tracking.SessionResponse(accepted={"request_id": number}))  # type: ignore[arg-type]
    waiting = threading.Thread(target=outbox.wait_for_room)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    first = outbox.next(0.0)
    assert isinstance(first, tracking.SessionResponse)
    assert first.accepted.request_id == 0
    waiting.join(5)
    assert not waiting.is_alive()
    outbox.say(tracking.SessionResponse())
    outbox.close()
    outbox.wait_for_room()
    assert not outbox.has_ended


def test_a_stuck_client_is_given_up_and_its_seat_is_free_again(daemon: Daemon) -> None:
    """Its socket is full of large masks, so that not even the end can be sent to it."""
    noise = np.random.default_rng(0).integers(0, 2, (1000, 1000), np.uint8)
    daemon.image = noise
    assert eventually(lambda: daemon.tracker.picture_px == (1000, 1000))
    stuck = Raw(daemon.address)
    stuck.open(ttl_s=4.0, delivery=Q)
    stuck.say(request_id=1, prompt={"points": [{"x": 1, "y": 1}]})
    stuck.next("accepted")
    assert eventually(lambda: daemon.sessions == 0)
    assert eventually(lambda: not daemon.seats_taken)
    with pytest.raises(grpc.RpcError) as caught:
        list(stuck.call)
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    stuck.channel.close()


def test_threads_and_seats_come_back(daemon: Daemon) -> None:
    """A daemon of many visits is as it was after the first."""
    with connect(daemon.address) as client, client.track():
        pass
    assert eventually(lambda: daemon.sessions == 0)
    time.sleep(0.2)
    before = threading.active_count()
    for visit in range(30):
        client = connect(daemon.address)
        session = client.track()
        session.points(1, (1, 1))
        if visit % 2:
            session.close()
        client.close()
        assert eventually(lambda: daemon.sessions == 0)
    gc.collect()
    assert eventually(lambda: threading.active_count() <= before + 8), threading.enumerate()


def test_results_of_other_kinds_do_not_reach_sessions(daemon: Daemon, client: Client) -> None:
    with client.track(mode="queue", depth=256) as session:
        stamp = Stamp(source="wide", seq=0, start_ns=0, end_ns=1)
        labels = np.zeros((4, 4), np.uint8)
        daemon.sink.write(
            LabelMap(stamp=stamp, labels=labels, classes=("a",), model=ModelRef(name="grey"))
        )
        assert all(isinstance(next(session), Instances) for _ in range(5))
