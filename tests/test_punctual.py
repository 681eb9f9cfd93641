"""Calls that are begun and never finished: everybody else is served."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgeperc.client import connect
from edgeperc.errors import ConfigError
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks import punctual as module
from edgeperc.sinks.grpc import Grpc

from .half_calls import RST_STREAM, HalfCalls
from .test_client import label_map
from .test_grpc import DAEMON, eventually

LIST = "/edgeperc.v1.PerceptionService/ListSources"
SUBSCRIBE = "/edgeperc.v1.PerceptionService/Subscribe"
SEGMENT = "/edgeperc.v1.PerceptionService/Segment"
CHECK = "/grpc.health.v1.Health/Check"
CODE = grpc.StatusCode


@pytest.fixture
def sink() -> Iterator[Grpc]:
    inventory = Inventory(sources=(SourceInfo(name="dvs", driver="twin"),))
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory)
    sink.write(label_map(0))
    yield sink
    sink.close()


@pytest.fixture
def half(sink: Grpc) -> Iterator[HalfCalls]:
    with HalfCalls(sink.address) as half:
        yield half


@pytest.fixture
def daemon() -> Iterator[str]:
    """In a process of its own, with a result every 10 ms."""
    command = [sys.executable, "-c", DAEMON, "127.0.0.1:0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process.stdout.readline().strip()
    process.communicate(timeout=60)


def well(channel: grpc.Channel) -> grpc.StatusCode:
    """What a health check says."""
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


@pytest.mark.parametrize("rpc", [LIST, SUBSCRIBE, SEGMENT])
def test_half_calls_take_no_thread_from_others(
    sink: Grpc, half: HalfCalls, rpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 1.5)
    with grpc.insecure_channel(sink.address) as channel, connect(sink.address) as client:
        results = client.subscribe()
        half.begin(rpc, connections=5, calls=80)
        for seq in range(1, 6):
            assert well(channel) == CODE.OK
            sink.write(label_map(seq))
            assert next(results).result.stamp.seq == seq
        assert eventually(lambda: bool(sink.counts().get("refused_resource_exhausted")))
        assert eventually(lambda: not sink._punctual._begun and not sink._punctual._calls.waiting)
        assert sink.counts()["refused_cancelled"] > 0
        assert client.sources()
        sink.write(label_map(99))
        assert next(results).result.stamp.seq == 99


def test_half_health_checks_are_over_soon(
    sink: Grpc, half: HalfCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 1.5)
    with grpc.insecure_channel(sink.address) as channel, connect(sink.address) as client:
        half.begin(CHECK, connections=5, calls=80)
        assert client.sources()  # other calls do not notice
        assert eventually(lambda: well(channel) == CODE.OK)
        assert eventually(lambda: not sink._punctual._begun)


def test_a_request_that_never_comes_ends_its_call_though_nobody_waits(
    sink: Grpc, half: HalfCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    half.begin(LIST, connections=1, calls=1)
    found: Counter[int] = Counter()

    def is_ended() -> bool:
        found.update(half.frames())
        return found[RST_STREAM] > 0

    assert eventually(is_ended)
    assert sink.counts()["refused_cancelled"] == 1


def late(sink: Grpc, requests: Iterator[Any]) -> Any:
    """A call whose request comes when the iterator has it: by gRPC itself, as a stream."""
    with grpc.insecure_channel(sink.address) as channel:
        call = channel.stream_unary(
            LIST,
            request_serializer=pb.ListSourcesRequest.SerializeToString,
            response_deserializer=pb.ListSourcesResponse.FromString,
        )
        return call(requests, timeout=60)


def test_a_request_that_comes_late_is_answered(sink: Grpc) -> None:
    def slowly() -> Iterator[Any]:
        time.sleep(0.5)
        yield pb.ListSourcesRequest()

    assert late(sink, slowly()).sources[0].name == "dvs"
    assert "refused_cancelled" not in sink.counts()


def test_a_call_without_a_request_is_none(sink: Grpc) -> None:
    with pytest.raises(grpc.RpcError, match="the call has no request") as caught:
        late(sink, iter(()))
    assert caught.value.code() == CODE.INVALID_ARGUMENT


def test_a_sink_that_cannot_be_served_leaves_no_thread(sink: Grpc) -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError, match="cannot listen"):
        Grpc(listen=sink.address, inventory=Inventory())
    assert threading.active_count() == before


def test_threads_are_those_of_before_once_it_is_closed() -> None:
    before = threading.active_count()
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory())
    with grpc.insecure_channel(sink.address) as channel:
        assert well(channel) == CODE.OK
        pb_grpc.PerceptionServiceStub(channel).ListSources(pb.ListSourcesRequest(), timeout=60)
    sink.close()
    assert eventually(lambda: threading.active_count() <= before), threading.enumerate()


@pytest.mark.slow
@pytest.mark.parametrize("rpc", [LIST, SUBSCRIBE, SEGMENT, CHECK])
def test_ten_thousand_slow_half_calls_hurt_neither_subscriber_nor_health(
    daemon: str, rpc: str
) -> None:
    """On a hundred connections, with a byte more now and then, as a slow loris does it."""
    codes: Counter[grpc.StatusCode] = Counter()
    has_ended = threading.Event()

    def look() -> None:
        with grpc.insecure_channel(daemon) as channel:
            while not has_ended.is_set():
                codes[well(channel)] += 1

    watcher = threading.Thread(target=look)
    with connect(daemon, timeout_s=60) as client, HalfCalls(daemon) as half:
        results = client.subscribe(mode="queue", depth=256)
        next(results)
        watcher.start()
        half.begin(rpc, connections=100, calls=100)
        assert half.begun == 10_000
        lost = 0
        for number in range(500):  # five seconds
            lost += next(results).dropped_before
            if number % 100 == 0:
                half.trickle()
        assert lost == 0
        if rpc == CHECK:  # those were held up for a moment, and go on
            before = codes[CODE.OK]
            assert eventually(lambda: codes[CODE.OK] > before + 20)
        else:
            assert client.sources()
        has_ended.set()
        watcher.join()
    if rpc != CHECK:
        assert set(codes) == {CODE.OK}
    assert codes[CODE.OK] > 20
