"""The gRPC sink as its clients meet it: by stubs, by health checks, by reflection alone."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from edgeperc.errors import ConfigError
from edgeperc.packet import Stamp
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import STANDARD_STREAMS, Grpc

MODEL = ModelRef(name="sltnet-twin", sha256="c0ffee", engine="onnxruntime")
INVENTORY = Inventory(
    sources=(SourceInfo(name="dvs", driver="twin"), SourceInfo(name="wide", driver="video")),
    models=(MODEL,),
)
QUEUE = pb.DeliveryPolicy(mode=pb.DeliveryPolicy.MODE_QUEUE, depth=256)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# A daemon with a result every 10 ms; ends when its standard input is closed.
DAEMON = """
import sys, threading
import numpy as np
from edgeperc.packet import Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc

model = ModelRef(name="m")
inventory = Inventory(sources=(SourceInfo(name="dvs", driver="twin"),), models=(model,))
sink = Grpc(listen=sys.argv[1], inventory=inventory)
stopping = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
print(sink.address, flush=True)
seq = 0
while not stopping.wait(0.01):
    labels = np.full((4, 6), seq % 3, np.uint8)
    stamp = Stamp(source="dvs", seq=seq, start_ns=seq * 1000, end_ns=(seq + 1) * 1000)
    sink.write(LabelMap(stamp=stamp, labels=labels, classes=("road", "car", "sky"), model=model))
    seq += 1
sink.close()
"""


def label_map(seq: int, source: str = "dvs", shape: tuple[int, int] = (4, 6)) -> LabelMap:
    return LabelMap(
        stamp=Stamp(source=source, seq=seq, start_ns=seq, end_ns=seq + 1),
        labels=np.full(shape, seq % 256, np.uint8),
        classes=("road", "car"),
        model=MODEL,
    )


def eventually(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def sink() -> Iterator[Grpc]:
    sink = Grpc(listen="127.0.0.1:0", inventory=INVENTORY, max_streams=3)
    yield sink
    sink.close()


@pytest.fixture
def channel(sink: Grpc) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(sink.address) as channel:
        yield channel


@pytest.fixture
def subscribe(channel: grpc.Channel) -> Callable[..., Any]:
    """Open a stream; returns when the daemon has let it in or turned it away."""
    stub = pb_grpc.PerceptionServiceStub(channel)

    def open_stream(**request: Any) -> Any:
        call = stub.Subscribe(pb.SubscribeRequest(**request))
        call.initial_metadata()
        return call

    return open_stream


def test_subscriber_gets_result_with_all_that_is_known(
    sink: Grpc, subscribe: Callable[..., Any]
) -> None:
    stream = subscribe()
    sink.write(label_map(7))
    found = MessageToDict(next(stream), preserving_proto_field_name=True)
    assert int(found["timings"].pop("published_ns")) > 0
    assert found == {
        "stamp": {"source": "dvs", "seq": "7", "start_ns": "7", "end_ns": "8"},
        "model": {
            "name": "sltnet-twin",
            "sha256": "c0ffee",
            "engine": "onnxruntime",
            "precision": "fp32",
        },
        "label_map": {
            "width": 6,
            "height": 4,
            "encoding": "MASK_ENCODING_RAW",  # this client is on the daemon's host
            "data": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
            "classes": ["road", "car"],
        },
        "timings": {},
    }


def test_lists_name_sources_and_models(sink: Grpc, channel: grpc.Channel) -> None:
    stub = pb_grpc.PerceptionServiceStub(channel)
    sources = stub.ListSources(pb.ListSourcesRequest()).sources
    assert [(source.name, source.driver) for source in sources] == [
        ("dvs", "twin"),
        ("wide", "video"),
    ]
    models = stub.ListModels(pb.ListModelsRequest()).models
    assert [(model.name, model.sha256) for model in models] == [("sltnet-twin", "c0ffee")]


def test_source_filter_and_two_subscribers(sink: Grpc, subscribe: Callable[..., Any]) -> None:
    everything = subscribe(delivery=QUEUE, encoding=pb.MASK_ENCODING_ZSTD)
    wide = subscribe(source="wide", delivery=QUEUE, encoding=pb.MASK_ENCODING_RLE)
    for seq in range(3):
        sink.write(label_map(seq, "dvs"))
        sink.write(label_map(seq, "wide"))
    sink.close()
    assert [(m.stamp.source, m.stamp.seq) for m in everything] == [
        (source, seq) for seq in range(3) for source in ("dvs", "wide")
    ]
    assert [(m.stamp.source, m.stamp.seq) for m in wide] == [("wide", seq) for seq in range(3)]


def test_subscriber_that_does_not_read_loses_and_is_told_how_much(
    sink: Grpc, subscribe: Callable[..., Any]
) -> None:
    """300 maps of 1 MB cannot wait in any socket; `write` returns all the same."""
    stream = subscribe()
    for seq in range(300):
        sink.write(label_map(seq, shape=(1000, 1000)))
    threading.Thread(target=sink.close).start()
    received = list(stream)
    assert received[-1].stamp.seq == 299
    assert len(received) < 300
    assert len(received) + sum(message.dropped_before for message in received) == 300


@pytest.mark.parametrize(
    ("request_fields", "code", "details"),
    [
        ({"source": "tail"}, grpc.StatusCode.NOT_FOUND, "no source 'tail'; there are: dvs, wide"),
        ({"encoding": 99}, grpc.StatusCode.INVALID_ARGUMENT, "encoding is 99"),
        ({"delivery": {"mode": 99}}, grpc.StatusCode.INVALID_ARGUMENT, "mode is 99"),
        (
            {"delivery": {"mode": pb.DeliveryPolicy.MODE_QUEUE, "depth": 257}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "depth is 257, must be at most 256",
        ),
        ({"delivery": {"max_rate_hz": -1}}, grpc.StatusCode.INVALID_ARGUMENT, "max_rate_hz is -1"),
        (
            {"delivery": {"max_rate_hz": float("nan")}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "max_rate_hz is nan",
        ),
    ],
)
def test_request_that_makes_no_sense_is_refused(
    subscribe: Callable[..., Any],
    request_fields: dict[str, Any],
    code: grpc.StatusCode,
    details: str,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(subscribe(**request_fields))
    assert caught.value.code() == code
    assert details in caught.value.details()


def test_health_is_serving_once_a_first_result_came(sink: Grpc, channel: grpc.Channel) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    names = ("", "edgeperc.v1.PerceptionService", "edgeperc.v1.TrackingService")
    requests = [health_pb2.HealthCheckRequest(service=name) for name in names]
    assert [check(request).status for request in requests] == [NOT_SERVING] * 3
    sink.write(label_map(0))
    assert [check(request).status for request in requests] == [SERVING] * 3


def open_watches(channel: grpc.Channel, count: int) -> list[Any]:
    stub = health_pb2_grpc.HealthStub(channel)
    return [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(count)]


def open_reflections(channel: grpc.Channel, count: int) -> list[Any]:
    """Ask one question and leave the stream open."""
    answered = threading.Event()

    def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        answered.wait(60)

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return [stub.ServerReflectionInfo(questions()) for _ in range(count)]


def test_streams_are_capped_so_that_short_calls_still_answer(
    sink: Grpc, channel: grpc.Channel, subscribe: Callable[..., Any]
) -> None:
    opened: dict[str, list[Any]] = {"seated": [], "refused": []}
    for stream in (
        *(subscribe() for _ in range(40)),
        *open_watches(channel, 40),
        *open_reflections(channel, 40),
    ):
        stream.initial_metadata()
        opened["seated" if stream.is_active() else "refused"].append(stream)
    assert len(opened["seated"]) == 3 + STANDARD_STREAMS
    assert {call.code() for call in opened["refused"]} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    check = health_pb2_grpc.HealthStub(channel).Check
    assert check(health_pb2.HealthCheckRequest(), timeout=10).status == NOT_SERVING

    for stream in opened["seated"]:
        stream.cancel()
    assert eventually(lambda: bool(subscribe().is_active()))


def test_watcher_of_health_hears_of_every_change(sink: Grpc, channel: grpc.Channel) -> None:
    (watch,) = open_watches(channel, 1)
    heard = [next(watch).status]
    sink.write(label_map(0))
    heard.append(next(watch).status)
    sink.close()
    heard.append(next(watch).status)
    assert heard == [NOT_SERVING, SERVING, NOT_SERVING]


def test_close_ends_streams_of_clients_that_read_and_that_do_not(
    sink: Grpc, subscribe: Callable[..., Any]
) -> None:
    idle, stuck = subscribe(source="wide"), subscribe(source="dvs")
    for seq in range(50):
        sink.write(label_map(seq, shape=(1000, 1000)))
    sink.close()
    sink.close()
    sink.write(label_map(50))
    assert list(idle) == []
    assert idle.code() == grpc.StatusCode.OK
    with contextlib.suppress(grpc.RpcError):  # cut off, or all had fitted into the socket
        assert len(list(stuck)) <= 50
    assert not stuck.is_active()


def test_port_in_use_is_said_with_what_to_do(sink: Grpc) -> None:
    with pytest.raises(ConfigError, match="Address already in use") as caught:
        Grpc(listen=sink.address, inventory=INVENTORY)
    assert "another" in caught.value.hint


def test_port_is_free_again_after_close() -> None:
    first = Grpc(listen="127.0.0.1:0", inventory=INVENTORY)
    first.close()
    Grpc(listen=first.address, inventory=INVENTORY).close()


@pytest.mark.parametrize("listen", ["", "50051", "localhost", ":1", "127.0.0.1:x", "[::1]:70000"])
def test_listen_must_be_host_and_port(listen: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        Grpc(listen=listen, inventory=INVENTORY)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "robot.local"])
def test_address_that_others_can_reach_needs_consent(host: str) -> None:
    with pytest.raises(ConfigError, match="everybody on the network") as caught:
        Grpc(listen=f"{host}:0", inventory=INVENTORY)
    assert "insecure = true" in caught.value.hint


def test_reflection_is_off_where_others_can_reach_it() -> None:
    sink = Grpc(listen="0.0.0.0:0", inventory=INVENTORY, insecure=True)
    port = sink.address.rpartition(":")[2]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert pb_grpc.PerceptionServiceStub(channel).ListModels(pb.ListModelsRequest()).models
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(channel).get_services()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    sink.close()


@pytest.fixture
def daemon() -> Iterator[str]:
    """Address of a daemon in a process of its own."""
    command = [sys.executable, "-c", DAEMON, "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_client_that_knows_nothing_but_reflection_can_subscribe(daemon: str) -> None:
    """What grpcurl does: ask for services, build messages of the descriptors, call."""
    with grpc.insecure_channel(daemon) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "edgeperc.v1.PerceptionService",
            "edgeperc.v1.TrackingService",
            "edgeperc.v1.ControlService",
            "edgeperc.v1.SearchService",
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service = DescriptorPool(database).FindServiceByName("edgeperc.v1.PerceptionService")
        method = service.methods_by_name["Subscribe"]
        call = channel.unary_stream(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        request = GetMessageClass(method.input_type)(source="dvs")
        stream = call(request, timeout=20)
        first, second = next(stream), next(stream)
        stream.cancel()
    assert second.stamp.seq == first.stamp.seq + second.dropped_before + 1
    assert first.label_map.data == bytes([first.stamp.seq % 3] * 24)
    assert list(first.label_map.classes) == ["road", "car", "sky"]


def test_second_daemon_on_one_port_is_refused(daemon: str) -> None:
    """gRPC would by default let both have it and give each client to one of them by chance."""
    command = [sys.executable, "-c", DAEMON, daemon]
    second = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "ConfigError" in second.stderr


def test_ipv6_loopback_is_loopback() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    sink = Grpc(listen="[::1]:0", inventory=INVENTORY)
    with grpc.insecure_channel(sink.address) as channel:
        assert ProtoReflectionDescriptorDatabase(channel).get_services()
        stream = pb_grpc.PerceptionServiceStub(channel).Subscribe(pb.SubscribeRequest())
        stream.initial_metadata()
        sink.write(label_map(0))
        assert next(stream).label_map.encoding == pb.MASK_ENCODING_RAW
    sink.close()


def test_health_of_a_part_follows_what_the_run_reports(sink: Grpc, channel: grpc.Channel) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    mirror = health_pb2.HealthCheckRequest(service="sensors/mirror")
    with pytest.raises(grpc.RpcError) as caught:
        check(mirror, timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    for is_well, expected in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
        sink.report({"sensors/mirror": is_well, "sensors/dvs": True})
        assert check(mirror, timeout=10).status == expected
    whole = health_pb2.HealthCheckRequest(service="")
    assert check(whole, timeout=10).status == NOT_SERVING  # no result came yet
