"""Steering over gRPC: the rpcs on a pretended mirror, and the twin's search in its own process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.packet import Gaze, GazeRange, Stamp
from edgeperc.plan import Plan
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import search_pb2 as search
from edgeperc.proto.edgeperc.v1 import search_pb2_grpc as search_grpc
from edgeperc.result import Detections, ModelRef
from edgeperc.sink import Inventory
from edgeperc.sinks.grpc import Grpc
from edgeperc.steering.lease import MirrorLease, Order
from edgeperc.steering.process import ProcessSearch

from .test_steering_process import plan

REACH = GazeRange(lowest=Gaze(pan_rad=-0.5, tilt_rad=-0.2), highest=Gaze(pan_rad=0.5, tilt_rad=0.2))
AWAY = pb.Gaze(pan_rad=0.25, tilt_rad=-0.125)


class Mirror:
    """A daemon whose mirror is where it was told to be at once; looks every 10 ms from there."""

    def __init__(self) -> None:
        self.gaze = Gaze(pan_rad=0.0, tilt_rad=0.0)
        self.blind = threading.Event()
        self.steering = MirrorLease(self._obey, reach=lambda: REACH, gaze=lambda: self.gaze)
        self.sink = Grpc(listen="127.0.0.1:0", inventory=Inventory(), daemon=self)  # type: ignore[arg-type]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.sink.close()

    def _obey(self, order: Order | None) -> None:
        if order and order.gaze:
            self.gaze = order.gaze

    def _look(self) -> None:
        seq = 0
        while not self._stopping.wait(0.01):
            if not self.blind.is_set():
                self.sink.write(look(seq, self.gaze))
                seq += 1


def look(seq: int, gaze: Gaze) -> Detections:
    return Detections(
        stamp=Stamp(source="search", seq=seq, start_ns=seq, end_ns=seq + 1),
        boxes=np.empty((0, 4), np.float32),
        scores=np.empty(0, np.float32),
        class_ids=np.empty(0, np.int64),
        classes=(),
        model=ModelRef(name="m"),
        gaze=gaze,
    )


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.stop()


@pytest.fixture
def rpcs(mirror: Mirror) -> Iterator[Any]:
    with grpc.insecure_channel(mirror.sink.address) as channel:
        yield search_grpc.SearchServiceStub(channel)


def lease_of(rpcs: Any, **request: Any) -> str:
    return str(rpcs.AcquireSteering(search.AcquireSteeringRequest(**request)).lease)


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_a_client_takes_the_mirror_points_it_and_gives_it_back(mirror: Mirror, rpcs: Any) -> None:
    lease = lease_of(rpcs, holder="survey", ttl_s=30)
    rpcs.PointAt(search.PointAtRequest(lease=lease, gaze=AWAY))
    state = rpcs.GetMirrorState(search.GetMirrorStateRequest())
    assert (state.gaze, state.holder) == (AWAY, "survey")
    assert 0 < state.lease_s <= 30
    assert (state.lowest.pan_rad, state.highest.tilt_rad) == (-0.5, pytest.approx(0.2))
    rpcs.RenewSteering(search.RenewSteeringRequest(lease=lease, ttl_s=50))
    assert rpcs.GetMirrorState(search.GetMirrorStateRequest()).lease_s > 30
    rpcs.ReleaseSteering(search.ReleaseSteeringRequest(lease=lease))
    assert rpcs.GetMirrorState(search.GetMirrorStateRequest()).holder == ""


def test_what_cannot_be_is_said_with_the_code_that_goes_with_it(mirror: Mirror, rpcs: Any) -> None:
    far = pb.Gaze(pan_rad=0.6)
    point = lambda lease, gaze: rpcs.PointAt(search.PointAtRequest(lease=lease, gaze=gaze))  # noqa: E731
    assert refusal(lambda: point("", AWAY))[0] == grpc.StatusCode.FAILED_PRECONDITION
    lease = lease_of(rpcs, holder="survey")
    code, words = refusal(lambda: lease_of(rpcs))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "'survey' steers the mirror" in words
    assert refusal(lambda: point(lease, far))[0] == grpc.StatusCode.OUT_OF_RANGE
    assert mirror.gaze == Gaze(pan_rad=0.0, tilt_rad=0.0)  # not clipped: nothing moved
    assert refusal(lambda: point(lease, None))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(lambda: lease_of(rpcs, ttl_s=math.nan))[0] == grpc.StatusCode.INVALID_ARGUMENT
    rpcs.Stop(search.StopRequest())
    code, words = refusal(lambda: point(lease, AWAY))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "acquire one first" in words


def test_a_scan_gives_looks_at_each_place_in_order(mirror: Mirror, rpcs: Any) -> None:
    places = [pb.Gaze(pan_rad=0.125 * k, tilt_rad=0.0625) for k in range(-3, 4)]
    request = search.ScanRequest(lease=lease_of(rpcs, ttl_s=30), places=places, looks=3)
    looks = list(rpcs.Scan(request))
    assert [look.place for look in looks] == [k for k in range(7) for _ in range(3)]
    for seen in looks:
        assert seen.result.detections.gaze == places[seen.place]
    assert len({seen.result.stamp.seq for seen in looks}) == 21


def test_a_scan_begins_nothing_that_it_could_not_end(mirror: Mirror, rpcs: Any) -> None:
    lease = lease_of(rpcs)
    scan = lambda **request: list(rpcs.Scan(search.ScanRequest(**request)))  # noqa: E731
    bad = [AWAY, pb.Gaze(pan_rad=2.0)]
    assert refusal(lambda: scan(lease=lease, places=bad))[0] == grpc.StatusCode.OUT_OF_RANGE
    nan = [pb.Gaze(pan_rad=math.nan)]
    assert refusal(lambda: scan(lease=lease, places=nan))[0] == grpc.StatusCode.OUT_OF_RANGE
    assert refusal(lambda: scan(places=[AWAY]))[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(lambda: scan(lease=lease))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert mirror.gaze == Gaze(pan_rad=0.0, tilt_rad=0.0)


def test_a_scan_without_looks_ends_and_says_so(
    mirror: Mirror, rpcs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeperc.sinks.searching.LOOK_S", 0.2)
    mirror.blind.set()
    request = search.ScanRequest(lease=lease_of(rpcs), places=[AWAY])
    code, words = refusal(lambda: list(rpcs.Scan(request)))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "no look at pan 14.32°" in words


def test_a_scan_stops_where_the_lease_is_taken_away(mirror: Mirror, rpcs: Any) -> None:
    lease = lease_of(rpcs, ttl_s=30)
    scan = rpcs.Scan(search.ScanRequest(lease=lease, places=[AWAY] * 1000))
    next(scan)
    rpcs.Stop(search.StopRequest())
    assert refusal(lambda: list(scan))[0] == grpc.StatusCode.FAILED_PRECONDITION


def test_without_a_mirror_every_call_says_so() -> None:
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory())
    with grpc.insecure_channel(sink.address) as channel:
        rpcs = search_grpc.SearchServiceStub(channel)
        calls = (
            lambda: lease_of(rpcs),
            lambda: rpcs.PointAt(search.PointAtRequest(lease="x", gaze=AWAY)),
            lambda: list(rpcs.Scan(search.ScanRequest(places=[AWAY]))),
            lambda: rpcs.GetMirrorState(search.GetMirrorStateRequest()),
            lambda: rpcs.Stop(search.StopRequest()),
        )
        for call in calls:
            code, words = refusal(call)
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert "steers no mirror" in words
    sink.close()


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The twin's search in its process, behind the sink."""

    class Daemon:
        def __init__(self, wanted: Plan) -> None:
            clock = ReplayClock()
            self.search = ProcessSearch(wanted, hints=frozenset(), anchor=clock.origin)
            self.steering = self.search.steering
            self.sink = Grpc(listen="127.0.0.1:0", inventory=Inventory(), daemon=self)  # type: ignore[arg-type]
            self.gazes: list[Gaze] = []
            self.thread = threading.Thread(target=self.search.run, args=(self.take,), daemon=True)
            self.thread.start()

        def take(self, result: Any) -> None:
            if isinstance(result, Detections) and result.gaze:
                self.gazes.append(result.gaze)
            self.sink.write(result)

    daemon = Daemon(plan(tmp_path_factory.mktemp("app"), scheduler="raster"))
    yield daemon
    daemon.search.stop()
    daemon.thread.join(5)
    daemon.sink.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_the_search_process_obeys_a_lease_and_goes_on_when_it_expires(twin: Any) -> None:
    with grpc.insecure_channel(twin.sink.address) as channel:
        rpcs = search_grpc.SearchServiceStub(channel)
        reach = rpcs.GetMirrorState(search.GetMirrorStateRequest())
        assert reach.lowest.pan_rad < -0.4 < 0.4 < reach.highest.pan_rad
        wait_for(lambda: len(twin.gazes) > 5)
        lease = lease_of(rpcs, holder="me", ttl_s=30)
        places = [pb.Gaze(pan_rad=0.3, tilt_rad=0.1), pb.Gaze(pan_rad=-0.3, tilt_rad=-0.1)]
        seen = list(rpcs.Scan(search.ScanRequest(lease=lease, places=places, looks=2)))
        assert [each.place for each in seen] == [0, 0, 1, 1]
        for each in seen:
            assert each.result.detections.gaze.pan_rad == pytest.approx(
                places[each.place].pan_rad, abs=4e-3
            )
        rpcs.RenewSteering(search.RenewSteeringRequest(lease=lease, ttl_s=0.5))
        count = len(twin.gazes)

        def searches_again() -> bool:
            return len({(g.pan_rad, g.tilt_rad) for g in twin.gazes[count:]}) > 20

        wait_for(searches_again)
        assert rpcs.GetMirrorState(search.GetMirrorStateRequest()).holder == ""
