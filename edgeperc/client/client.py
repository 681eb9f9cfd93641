"""Results of a running daemon, in a few lines of Python.

    with edgeperc.client.connect("127.0.0.1:50051") as client:
        for received in client.subscribe():
            print(received.result.stamp, received.dropped_before)

    with edgeperc.client.connect().track("wide") as session:
        session.box(1, (738, 335, 773, 347))
        for instances in session:
            print(instances.ids, instances.boxes)

    with edgeperc.client.connect("robot:50051", token=token, tls_ca="ca.pem") as client:
        print(client.status().state, client.latest().result.stamp)
        labels = client.segment(image, "regions-twin").labels
        with client.steering("survey") as mirror:
            mirror.point(pan_rad=0.1, tilt_rad=0.0)

Everything that can go wrong is an EdgepercError that says what to do.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from edgeperc.client.connection import DEFAULT_PORT, Access, Connection
from edgeperc.client.held import MODES, HeldSession
from edgeperc.client.steering import MirrorSession, mirror_state
from edgeperc.client.tracking import TrackingSession, fill
from edgeperc.control import AppText, DaemonStatus, MirrorState, RecordingStatus
from edgeperc.errors import ConfigError, DeviceError, EdgepercError
from edgeperc.prompting.prompts import Prompt
from edgeperc.proto.codec import as_dataclass, from_message
from edgeperc.proto.control_codec import recording_of, status_of
from edgeperc.proto.edgeperc.v1 import control_pb2 as control
from edgeperc.proto.edgeperc.v1 import control_pb2_grpc as control_grpc
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.proto.edgeperc.v1 import search_pb2 as search
from edgeperc.proto.edgeperc.v1 import search_pb2_grpc as search_grpc
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import ModelRef, Result
from edgeperc.sink import SourceInfo
from edgeperc.sinks.pictures import decoded

SLOW_S = 60.0
"""For what loads a network or ends a file."""
ENCODINGS = {
    "auto": pb.MASK_ENCODING_ZSTD,  # on one host, too: a copy for each client costs more
    "raw": pb.MASK_ENCODING_RAW,
    "zstd": pb.MASK_ENCODING_ZSTD,
    "rle": pb.MASK_ENCODING_RLE,
    "png": pb.MASK_ENCODING_PNG,
}
KINDS = {
    "label_map": pb.RESULT_KIND_LABEL_MAP,
    "detections": pb.RESULT_KIND_DETECTIONS,
    "instances": pb.RESULT_KIND_INSTANCES,
    "search_map": pb.RESULT_KIND_SEARCH_MAP,
}
Encoding = Literal["auto", "raw", "zstd", "rle", "png"]
Kind = Literal["label_map", "detections", "instances", "search_map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One result as it arrived.

    dropped_before: results of this source and model that this client lost since the one before,
    by its own slowness or by `max_rate_hz`. published_ns: Unix time at which the daemon handed the
    result out. jpeg: what the result was made from, where that was asked for and is at hand.
    """

    result: Result
    dropped_before: int
    published_ns: int
    jpeg: bytes = b""

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """`jpeg` as pixels, (H, W, 3) RGB; None where there is none.

        Raises DataError for one that is damaged.
        """
        return decoded(self.jpeg) if self.jpeg else None


def connect(
    address: str = f"127.0.0.1:{DEFAULT_PORT}",
    *,
    timeout_s: float = 5.0,
    token: str = "",
    tls_ca: str | Path = "",
    cert: str | Path = "",
    key: str | Path = "",
    access: Access | None = None,
) -> Client:
    """Connect to the daemon at "host:port". Raises DeviceError if none answers.

    token: as in the daemon's tokens file. tls_ca: PEM file of who signed its certificate. cert,
    key: of this client, for daemons with client_ca. access: instead of these four, with all that
    there is. Raises ConfigError where the token or a file is not accepted.
    """
    access = access or Access(token=token, tls_ca=tls_ca, cert=cert, key=key)
    client = Client(address, timeout_s=timeout_s, access=access)
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
    the daemon refuses what was asked, or does not know who asks.
    """

    def __init__(
        self, address: str, *, timeout_s: float = 5.0, access: Access | None = None
    ) -> None:
        self._connection = Connection(address, access or Access(), timeout_s=timeout_s)
        self.address, self.timeout_s = self._connection.address, timeout_s
        self._channel = self._connection.channel
        self._ask, self._call = self._connection.ask, self._connection.call
        self._readable = self._connection.readable
        self._rpcs = pb_grpc.PerceptionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._control = control_grpc.ControlServiceStub(self._channel)  # type: ignore[no-untyped-call]

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
        kinds: Sequence[Kind] = (),
        encoding: Encoding = "auto",
        mode: Literal["latest", "queue"] = "latest",
        depth: int = 8,
        max_rate_hz: float = 0.0,
        include_image: bool = False,
    ) -> Iterator[Received]:
        """Receive results from the moment of this call until the daemon stops or goes away.

        source: one of `sources`, "" = all. kinds: of results, () = all. encoding: of label maps on
        the wire; auto = zstd. mode: "latest" skips to the newest of each source and model when this
        client is slow, "queue" keeps the newest `depth` (1 to 256) in order. max_rate_hz: thin to
        so many a second of each, 0 = all. include_image: the picture that each result was made
        from. The iterator ends when the daemon stops or `close` is called, and raises DeviceError
        when the daemon goes away.
        """
        request = pb.SubscribeRequest(
            source=source,
            kinds=[KINDS[kind] for kind in kinds],
            encoding=ENCODINGS[encoding],
            delivery=pb.DeliveryPolicy(mode=MODES[mode], depth=depth, max_rate_hz=max_rate_hz),
            include_image=include_image,
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

    def create_session(
        self, source: str = "", *, model: str = "", ttl_s: float = 0.0
    ) -> HeldSession:
        """Open a session that no stream holds: it lives by its id, for ttl_s after the last call.

        Arguments and errors as of `track`, which is the better way where streams to both sides are
        possible.
        """
        rpcs = tracking_grpc.TrackingServiceStub(self._channel)  # type: ignore[no-untyped-call]
        request = tracking.CreateSessionRequest(source=source, model=model, ttl_s=ttl_s)
        return HeldSession(self._connection, self._ask(rpcs.CreateSession, request).session)

    def session(self, session_id: str) -> HeldSession:
        """A session that was created before, maybe by another process. Nothing is asked yet."""
        return HeldSession(self._connection, tracking.SessionOpened(session_id=session_id))

    def latest(
        self,
        source: str = "",
        *,
        model: str = "",
        kinds: Sequence[Kind] = (),
        encoding: Encoding = "auto",
        include_image: bool = False,
        wait_s: float = 0.0,
    ) -> Received:
        """The newest result that there is. "" and () are any. wait_s: for a first one.

        include_image: the picture that it was made from, from the second call on.

        Raises NotYetError, a DeviceError that says when to try again, where none has come by then.
        """
        request = pb.GetLatestRequest(
            source=source,
            model=model,
            kinds=[KINDS[kind] for kind in kinds],
            encoding=ENCODINGS[encoding],
            include_image=include_image,
        )
        answer = self._ask(self._rpcs.GetLatest, request, patience_s=wait_s)
        return _received(answer.result)

    def segment(
        self,
        image: NDArray[np.uint8] | bytes,
        model: str,
        *,
        prompts: Sequence[Prompt] = (),
        encoding: Encoding = "auto",
        timeout_s: float = 60.0,
    ) -> Result:
        """What an installed model says of a picture: a LabelMap or Detections; of a promptable one,
        the Instances that `prompts` mean, one each, under the numbers 1, 2, ...

        image: (H, W) grey or (H, W, 3) RGB uint8, or the bytes of a PNG or JPEG file. model: one of
        the app's, or one that `load` has loaded. timeout_s: also for a model that is being loaded.
        """
        request = pb.SegmentRequest(
            model=model,
            encoding=ENCODINGS[encoding],
            prompts=[fill(pb.ObjectPrompt(), prompt) for prompt in prompts],
        )
        if isinstance(image, bytes):
            request.encoded = image
        else:
            request.raw.CopyFrom(_raw(image))
        answer = self._ask(self._rpcs.Segment, request, timeout_s=timeout_s, patience_s=timeout_s)
        return from_message(answer.result)

    def status(self) -> DaemonStatus:
        """How the daemon and its parts are."""
        return status_of(self._ask(self._control.GetStatus, control.GetStatusRequest()))

    def config(self) -> AppText:
        """The app's file as it runs, and the etag that a change of it needs."""
        return as_dataclass(AppText, self._ask(self._control.GetConfig, control.GetConfigRequest()))

    def validate(self, toml: str) -> None:
        """Whether an app's file would run. Raises ConfigError with the reason if not."""
        self._ask(self._control.ValidateConfig, control.ValidateConfigRequest(toml=toml))

    def apply(self, toml: str, *, etag: str) -> str:
        """Run another app's file from now on; the new etag. etag: of the `config` it was made of.

        Raises ConfigError for a file that does not run, or where somebody was faster.
        """
        request = control.ApplyConfigRequest(toml=toml, etag=etag)
        answer = self._ask(self._control.ApplyConfig, request, timeout_s=SLOW_S)
        return str(answer.etag)

    def start_recording(
        self, name: str = "", *, max_mb: float = 0.0, max_minutes: float = 0.0
    ) -> RecordingStatus:
        """Record all sensors and results into a new file on the daemon's disk.

        max_mb, max_minutes: then it goes on in a new, numbered file; 0 is never.
        """
        request = control.StartRecordingRequest(
            name=name, max_bytes=round(max_mb * 1e6), max_seconds=60 * max_minutes
        )
        return recording_of(self._ask(self._control.StartRecording, request).recording)

    def stop_recording(self) -> RecordingStatus:
        """End the recording; where it lies, and what it holds."""
        request = control.StopRecordingRequest()
        answer = self._ask(self._control.StopRecording, request, timeout_s=SLOW_S)
        return recording_of(answer.recording)

    def load(self, model: str) -> ModelRef:
        """Load an installed model, for `segment` and the Open Inference Protocol."""
        request = control.LoadModelRequest(name=model)
        answer = self._ask(self._control.LoadModel, request, timeout_s=SLOW_S, patience_s=SLOW_S)
        return as_dataclass(ModelRef, answer.model)

    def unload(self, model: str) -> None:
        """Free a model that was loaded."""
        self._ask(self._control.UnloadModel, control.UnloadModelRequest(name=model))

    def steering(self, holder: str = "", *, ttl_s: float = 5.0) -> MirrorSession:
        """Take the mirror from the search, until `close`. holder: a name for others to read.

        Raises DeviceError where somebody else has it, ConfigError where there is no mirror.
        """
        return MirrorSession(self._connection, holder=holder, ttl_s=ttl_s)

    def mirror(self) -> MirrorState:
        """Where the mirror looks, and who says so."""
        return mirror_state(self._connection)

    def stop_steering(self) -> None:
        """Take the mirror from whoever has it; the search goes on."""
        rpcs = search_grpc.SearchServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._ask(rpcs.Stop, search.StopRequest())

    def is_healthy(self, service: str = "") -> bool:
        """Whether the daemon is serving, or a part: "pipelines/NAME", "sensors/NAME".

        Raises ConfigError for a part that there is none of.
        """
        request = health_pb2.HealthCheckRequest(service=service)
        answer = self._ask(health_pb2_grpc.HealthStub(self._channel).Check, request)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Disconnect; ends the iterators of `subscribe`. May be called twice, from any thread."""
        self._connection.close()

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
                yield _received(message)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise DeviceError(f"the daemon at {self.address} went away") from error
            if error.code() != grpc.StatusCode.CANCELLED:  # by `close`
                raise self._readable(error) from error


def _received(message: pb.Result) -> Received:
    return Received(
        result=from_message(message),
        dropped_before=message.dropped_before,
        published_ns=message.timings.published_ns,
        jpeg=message.image.jpeg,
    )


def _raw(image: NDArray[np.uint8]) -> pb.RawImage:
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise ConfigError(
            f"a picture is (H, W) or (H, W, 3) of uint8, this is {image.shape} of {image.dtype}"
        )
    height, width = image.shape[:2]
    channels = 1 if image.ndim == 2 else 3
    return pb.RawImage(width=width, height=height, channels=channels, data=image.tobytes())


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
