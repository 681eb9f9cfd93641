"""Results of a running daemon, in a few lines of Python.

    with edgeperc.client.connect("127.0.0.1:50051") as client:
        for received in client.subscribe():
            print(received.result.stamp, received.dropped_before)

    with edgeperc.client.connect().track("wide") as session:
        session.box(1, (738, 335, 773, 347))
        for instances in session:
            print(instances.ids, instances.boxes)

Everything that can go wrong is an EdgepercError that says what to do.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import grpc

from edgeperc.errors import ConfigError, DeviceError, EdgepercError
from edgeperc.proto.codec import as_dataclass, from_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import ModelRef, Result, SourceInfo
from edgeperc.tracking import TrackingSession

DEFAULT_PORT = 50051
ENCODINGS = {
    "auto": pb.MASK_ENCODING_UNSPECIFIED,
    "raw": pb.MASK_ENCODING_RAW,
    "zstd": pb.MASK_ENCODING_ZSTD,
    "rle": pb.MASK_ENCODING_RLE,
}
MODES = {"latest": pb.DeliveryPolicy.MODE_LATEST, "queue": pb.DeliveryPolicy.MODE_QUEUE}
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),  # a raw map of a large sensor exceeds 4 MB
    ("grpc.enable_http_proxy", 0),  # a robot is never behind the web proxy
    ("grpc.max_reconnect_backoff_ms", 5_000),  # of itself it would go up to two minutes
    ("grpc.keepalive_time_ms", 20_000),  # notices a daemon that lost its network
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One result as it arrived.

    dropped_before: results of this source and model that this client lost since the one before,
    by its own slowness or by `max_rate_hz`. published_ns: Unix time at which the daemon handed the
    result out.
    """

    result: Result
    dropped_before: int
    published_ns: int


def connect(address: str = f"127.0.0.1:{DEFAULT_PORT}", *, timeout_s: float = 5.0) -> Client:
    """Connect to the daemon at "host:port". Raises DeviceError if none answers."""
    client = Client(address, timeout_s=timeout_s)
    try:
        client.sources()
    except EdgepercError:
        client.close()
        raise
    return client


class Client:
    """A connection to one daemon; made by `connect`, closed by `with` or `close`.

    Its methods may be called from several threads. They raise DeviceError when the daemon cannot be
    reached, and may be called again then: the connection is made anew. They raise ConfigError when
    the daemon refuses what was asked.
    """

    def __init__(self, address: str, *, timeout_s: float = 5.0) -> None:
        self.address = address if ":" in address else f"{address}:{DEFAULT_PORT}"
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self._rpcs = pb_grpc.PerceptionServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def sources(self) -> tuple[SourceInfo, ...]:
        """List the sensors that the daemon reads."""
        response = self._ask(self._rpcs.ListSources, pb.ListSourcesRequest())
        return tuple(as_dataclass(SourceInfo, source) for source in response.sources)

    def models(self) -> tuple[ModelRef, ...]:
        """List the networks that the daemon runs."""
        response = self._ask(self._rpcs.ListModels, pb.ListModelsRequest())
        return tuple(as_dataclass(ModelRef, model) for model in response.models)

    def subscribe(
        self,
        source: str = "",
        *,
        encoding: Literal["auto", "raw", "zstd", "rle"] = "auto",
        mode: Literal["latest", "queue"] = "latest",
        depth: int = 8,
        max_rate_hz: float = 0.0,
    ) -> Iterator[Received]:
        """Receive results from the moment of this call until the daemon stops or goes away.

        source: one of `sources`, "" = all. encoding: of label maps on the wire; auto = raw on this
        host, else zstd. mode: "latest" skips to the newest of each source and model when this
        client is slow, "queue" keeps the newest `depth` (1 to 256) in order. max_rate_hz: thin to
        so many a second of each, 0 = all. The iterator ends when the daemon stops or `close` is
        called, and raises DeviceError when the daemon goes away.
        """
        request = pb.SubscribeRequest(
            source=source,
            encoding=ENCODINGS[encoding],
            delivery=pb.DeliveryPolicy(mode=MODES[mode], depth=depth, max_rate_hz=max_rate_hz),
        )
        call = self._call(self._rpcs.Subscribe, request)
        call.initial_metadata()  # waits until the daemon has let us in, or not
        if not call.is_active() and call.code() != grpc.StatusCode.OK:
            raise self._readable(call)
        results = self._receive(_Newest(call) if mode == "latest" else call)
        weakref.finalize(results, call.cancel)  # a loop that is left gives its stream back
        return results

    def track(
        self,
        source: str = "",
        *,
        model: str = "",
        mode: Literal["latest", "queue"] = "latest",
        depth: int = 8,
        max_rate_hz: float = 0.0,
        ttl_s: float = 0.0,
    ) -> TrackingSession:
        """Open a session: point at things in a live video, and read their masks.

        source, model: where several pipelines can be prompted. mode, depth, max_rate_hz: as for
        `subscribe`. ttl_s: how long the daemon keeps the session without a sign of life; 0, and
        more than it allows, is what it allows. Raises ConfigError where the daemon refuses,
        DeviceError if it cannot be reached.
        """
        rpcs = tracking_grpc.TrackingServiceStub(self._channel)  # type: ignore[no-untyped-call]
        wanted = tracking.OpenSession(
            source=source,
            model=model,
            delivery=pb.DeliveryPolicy(mode=MODES[mode], depth=depth, max_rate_hz=max_rate_hz),
            ttl_s=ttl_s,
        )
        return TrackingSession(
            lambda requests: self._call(rpcs.Session, requests),
            wanted,
            readable=self._readable,
            timeout_s=self.timeout_s,
        )

    def close(self) -> None:
        """Disconnect; ends the iterators of `subscribe`. May be called twice, from any thread."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self, messages: Iterable[pb.Result]) -> Iterator[Received]:
        try:
            for message in messages:
                yield Received(
                    result=from_message(message),
                    dropped_before=message.dropped_before,
                    published_ns=message.timings.published_ns,
                )
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise DeviceError(f"the daemon at {self.address} went away") from error
            if error.code() != grpc.StatusCode.CANCELLED:  # by `close`
                raise self._readable(error) from error

    def _ask(self, rpc: Callable[..., Any], request: Any) -> Any:
        try:
            return self._call(rpc, request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            raise self._readable(error) from error

    def _call(self, rpc: Callable[..., Any], request: Any, **options: Any) -> Any:
        try:
            return rpc(request, **options)
        except ValueError as error:  # what grpc says of a closed channel
            raise DeviceError(f"the connection to {self.address} is closed") from error

    def _readable(self, error: Any) -> EdgepercError:
        """Say a failed call in the house's words. error: a grpc.Call that has ended."""
        code, details = error.code(), error.details()
        if code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            return ConfigError(f"{self.address}: {details}")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return DeviceError(
                f"no daemon at {self.address}", hint="start one with: edgeperc serve"
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return DeviceError(
                f"what answers at {self.address} is no edgeperc daemon, or a much older one",
                hint="edgeperc serve prints the address that it listens on",
            )
        return DeviceError(f"{self.address}: {details} ({code.name.lower()})")


class _Newest:
    """Reads on in a thread and keeps the newest message of each source and model.

    Without it, the sockets between would fill with old results as soon as this client is slow (12 s
    of label maps at 50 Hz were seen). Raises what `call` raises.
    """

    def __init__(self, call: Iterable[pb.Result]) -> None:
        self._call = call
        self._waiting: dict[tuple[str, str], pb.Result] = {}
        self._changed = threading.Condition()
        self._has_ended = False
        self._error: grpc.RpcError | None = None
        threading.Thread(target=self._read, name="edgeperc client", daemon=True).start()

    def __iter__(self) -> Iterator[pb.Result]:
        return self

    def __next__(self) -> pb.Result:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._has_ended)
            if self._waiting:
                return self._waiting.pop(next(iter(self._waiting)))
            raise self._error or StopIteration

    def _read(self) -> None:
        try:
            for message in self._call:
                self._put(message)
        except grpc.RpcError as error:
            self._error = error
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def _put(self, message: pb.Result) -> None:
        stream = (message.stamp.source, message.model.name)
        with self._changed:
            if (older := self._waiting.pop(stream, None)) is not None:
                message.dropped_before += older.dropped_before + 1
            self._waiting[stream] = message
            self._changed.notify()
