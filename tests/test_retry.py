"""When to try again, as anybody's client reads it: google.rpc.RetryInfo."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from edgeperc.client import connect
from edgeperc.client.connection import NotYetError
from edgeperc.errors import DeviceError
from edgeperc.proto.edgeperc.v1 import errors_pb2 as errors
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.proto.retry import KEY, LONGEST_S, retry_metadata, retry_s_of
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks import models
from edgeperc.sinks.grpc import Grpc

from .test_client import label_map


@pytest.fixture
def sink() -> Iterator[Grpc]:
    inventory = Inventory(
        sources=(SourceInfo(name="dvs", driver="twin"),), models=(ModelRef(name="regions-twin"),)
    )
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory)
    yield sink
    sink.close()


@pytest.mark.parametrize("retry_s", [0.0, 0.25, 1.0, 600.5])
def test_what_is_said_is_what_is_read(retry_s: float) -> None:
    said = retry_metadata(14, "später", retry_s=retry_s)
    assert retry_s_of([("other", "x"), said]) == pytest.approx(retry_s)


@pytest.mark.parametrize("value", [b"", b"\xff\xff", b"\x1a\x02\x0a\x7f", "text"])
def test_metadata_that_say_nothing_or_are_damaged_are_none(value: bytes | str) -> None:
    assert retry_s_of([(KEY, value)]) is None
    assert retry_s_of(None) is None


@pytest.mark.parametrize(("seconds", "wanted"), [(-5, 0.0), (1 << 40, LONGEST_S)])
def test_a_pause_is_bounded(seconds: int, wanted: float) -> None:
    info = errors.RetryInfo()
    info.retry_delay.seconds = seconds
    status = errors.ErrorStatus()
    status.details.add(type_url="x/google.rpc.RetryInfo", value=info.SerializeToString())
    assert retry_s_of([(KEY, status.SerializeToString())]) == wanted


def test_googles_own_messages_read_it(sink: Grpc) -> None:
    google = pytest.importorskip("google.rpc.error_details_pb2", reason="googleapis is not here")
    status_pb2 = pytest.importorskip("google.rpc.status_pb2")
    with grpc.insecure_channel(sink.address) as channel, pytest.raises(grpc.RpcError) as caught:
        pb_grpc.PerceptionServiceStub(channel).GetLatest(pb.GetLatestRequest(), timeout=60)
    error = caught.value
    details = dict(error.trailing_metadata())[KEY]
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = google.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 1000


def test_a_client_is_told_when_to_ask_again_or_waits_itself(sink: Grpc) -> None:
    with connect(sink.address) as client:
        with pytest.raises(NotYetError, match="no such result has come yet") as caught:
            client.latest()
        assert (caught.value.retry_s, caught.value.hint) == (1.0, "try again in 1 s")
        with pytest.raises(NotYetError):
            client.latest(wait_s=0.1)
        later = threading.Timer(0.3, sink.write, [label_map(5)])
        later.start()
        assert client.latest(wait_s=60).result.stamp.seq == 5
        later.join()


def test_only_unavailable_is_worth_another_try(sink: Grpc) -> None:
    with grpc.insecure_channel(sink.address) as channel, pytest.raises(grpc.RpcError) as caught:
        pb_grpc.PerceptionServiceStub(channel).Segment(pb.SegmentRequest(), timeout=60)
    assert retry_s_of(caught.value.trailing_metadata()) is None


def test_a_daemon_that_is_not_there_is_another_matter() -> None:
    with pytest.raises(DeviceError) as caught:
        connect("127.0.0.1:1")
    assert not isinstance(caught.value, NotYetError)


def test_a_model_that_is_being_loaded_is_asked_again_until_it_is_there(
    sink: Grpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller loads, as long as an engine takes; others are told to come back, and do."""
    monkeypatch.setattr(models, "LOAD_S", 0.05)
    begun, may_end = threading.Event(), threading.Event()
    load = models.LoadedModel.ref.fget
    loads = []

    def slowly(model: models.LoadedModel) -> ModelRef:
        loads.append(model.name)
        begun.set()
        assert may_end.wait(60)
        assert load
        return load(model)

    picture = np.zeros((64, 64), np.uint8)
    monkeypatch.setattr(models.LoadedModel, "ref", property(slowly))
    request = pb.SegmentRequest(
        model="regions-twin", raw=pb.RawImage(width=64, height=64, channels=1, data=bytes(4096))
    )
    with grpc.insecure_channel(sink.address) as channel, connect(sink.address) as client:
        stub = pb_grpc.PerceptionServiceStub(channel)
        first = stub.Segment.future(request, timeout=120)
        assert begun.wait(60)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Segment(request, timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "'regions-twin' is being loaded" in caught.value.details()
        assert retry_s_of(caught.value.trailing_metadata()) == 1.0
        assert client.sources()  # nobody else waits for it
        later = threading.Timer(0.2, may_end.set)
        later.start()
        assert isinstance(client.segment(picture, "regions-twin"), LabelMap)
        assert first.result(timeout=60).result.label_map.width == 64
        later.join()
    assert loads == ["regions-twin"]
