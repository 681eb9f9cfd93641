"""What hostile or broken clients do to the gRPC sink: the others go on."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.result import ModelRef
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import ASKING, Grpc
from edgeperc.sinks.session_messages import MAX_MESSAGE_BYTES

from .test_client import label_map
from .test_grpc import label_map as sized

OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
CANCELLED = grpc.StatusCode.CANCELLED
MOST_THREADS = 100  # of this sink, all at work; what waits beyond has none


@pytest.fixture
def sink() -> Iterator[Grpc]:
    inventory = Inventory(
        sources=(SourceInfo(name="dvs", driver="twin"),), models=(ModelRef(name="regions-twin"),)
    )
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory, max_streams=6)
    yield sink
    sink.close()


def answers(sink: Grpc) -> bool:
    """Whether somebody who comes now is served: health, a list, a result."""
    with grpc.insecure_channel(sink.address) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        stub = pb_grpc.PerceptionServiceStub(channel)
        stub.ListSources(pb.ListSourcesRequest(), timeout=60)
        stream = stub.Subscribe(pb.SubscribeRequest(), timeout=60)
        stream.initial_metadata()
        sink.write(label_map(1))
        return bool(next(stream).stamp.seq == 1)


def threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_flood_of_calls_is_served_or_refused_and_leaves_nothing_behind(
    sink: Grpc, count: int
) -> None:
    before = threads()
    with grpc.insecure_channel(sink.address) as channel:
        stub = pb_grpc.PerceptionServiceStub(channel)
        calls = [stub.ListModels.future(pb.ListModelsRequest(), timeout=120) for _ in range(count)]
        codes = Counter(call.code() for call in calls)
    assert set(codes) <= {OK, EXHAUSTED, CANCELLED}  # the last is gRPC's own refusal
    assert codes[OK] > 0
    assert answers(sink)
    assert threads() <= before + MOST_THREADS


def test_a_message_that_is_too_long_is_refused_before_it_is_whole(sink: Grpc) -> None:
    with grpc.insecure_channel(sink.address) as channel:
        stub = pb_grpc.PerceptionServiceStub(channel)
        for size in (MAX_MESSAGE_BYTES + 1, 100 << 20):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Segment(pb.SegmentRequest(encoded=bytes(size)), timeout=120)
            assert caught.value.code() == EXHAUSTED
    assert answers(sink)


def test_connections_that_say_nothing_or_nonsense_hinder_nobody(sink: Grpc) -> None:
    host, _, port = sink.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    for number, connection in enumerate(silent):
        if number % 3 == 0:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\n")  # half a greeting
        elif number % 3 == 1:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answers(sink)
    for connection in silent:
        connection.close()
    assert answers(sink)


def test_readers_that_do_not_read_cost_others_nothing_but_their_seats(sink: Grpc) -> None:
    """Three of six streams are never read, while maps of 1 MB are published."""
    with grpc.insecure_channel(sink.address) as stuck, grpc.insecure_channel(sink.address) as well:
        dead = []
        for _ in range(3):
            call = pb_grpc.PerceptionServiceStub(stuck).Subscribe(pb.SubscribeRequest())
            call.initial_metadata()
            dead.append(call)
        stream = pb_grpc.PerceptionServiceStub(well).Subscribe(
            pb.SubscribeRequest(encoding=pb.MASK_ENCODING_ZSTD)
        )
        stream.initial_metadata()
        for seq in range(100):
            sink.write(sized(seq, shape=(1000, 1000)))
            while next(stream).stamp.seq < seq:
                pass
        assert answers(sink)
        for call in dead:
            call.cancel()


def test_networks_run_for_a_few_callers_at_a_time_and_the_others_are_told(sink: Grpc) -> None:
    request = pb.SegmentRequest(
        model="regions-twin", raw=pb.RawImage(width=64, height=64, channels=1, data=bytes(4096))
    )
    with grpc.insecure_channel(sink.address) as channel:
        stub = pb_grpc.PerceptionServiceStub(channel)
        stub.Segment(request, timeout=60)
        with sink._models.get("regions-twin").lock:
            calls = [stub.Segment.future(request, timeout=60) for _ in range(30)]
            refused = 0
            deadline_s = time.monotonic() + 30
            while refused < 30 - ASKING and time.monotonic() < deadline_s:
                refused = sum(call.done() for call in calls)
                time.sleep(0.01)
            assert refused == 30 - ASKING
            assert answers(sink)
        codes = Counter(call.code() for call in calls)
    assert codes == {OK: ASKING, EXHAUSTED: 30 - ASKING}
