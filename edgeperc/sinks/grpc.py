"""Results to any number of gRPC clients: `edgeperc.v1`, health, reflection.

Threads: `write` runs in a pipeline's thread and only fills mailboxes. Each subscriber has a thread
of the server's pool, which encodes and sends; a slow one loses results of its own, nothing else.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from edgeperc.config import Positive
from edgeperc.errors import ConfigError
from edgeperc.proto.codec import as_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import Inventory, Result
from edgeperc.sinks.grpc_standard import Health, Reflection, Seats
from edgeperc.sinks.mailbox import Mailbox, Published, delivery_options
from edgeperc.sinks.tracking import MAX_MESSAGE_BYTES, Tracking
from edgeperc.sinks.tracking import SERVICE as TRACKING_SERVICE
from edgeperc.tracker import Tracker

SERVICES = (pb.DESCRIPTOR.services_by_name["PerceptionService"].full_name, TRACKING_SERVICE)
CLOSE_S = 0.8
LOOPBACK_PEERS = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")
STANDARD_STREAMS = 8  # health watches and reflection
SPARE_THREADS = 4  # never held by a stream, so that short calls always answer

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two daemons on one port would share its clients by chance
    ("grpc.keepalive_time_ms", 20_000),  # notices a client that lost its network
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients may look after us, too
)


class Grpc:
    """Sink that serves `edgeperc.v1` at `listen` ("host:port"; port 0 picks a free one).

    trackers: the pipelines that can be prompted. max_streams: subscribers at a time. insecure:
    allow an address that other machines can reach, without encryption or passwords. Raises
    ConfigError if the address cannot be served.
    """

    def __init__(
        self,
        *,
        inventory: Inventory,
        trackers: Sequence[Tracker] = (),
        listen: str = "127.0.0.1:50051",
        max_streams: Positive = 16,
        insecure: bool = False,
    ) -> None:
        host, port = _parse(listen)
        if not (insecure or _is_loopback(host)):
            raise ConfigError(
                f'grpc sink: listen = "{listen}" would serve everybody on the network',
                hint="listen on 127.0.0.1, or set insecure = true if the network is trusted",
            )
        self._perception = _Perception(inventory, Seats(max_streams))
        self._tracking = Tracking(trackers)
        standard = Seats(STANDARD_STREAMS)
        self._health = Health(("", *SERVICES), standard)
        self._has_result = False
        streams = max_streams + self._tracking.max_streams + STANDARD_STREAMS
        self._server = grpc.server(
            ThreadPoolExecutor(streams + SPARE_THREADS, thread_name_prefix="grpc"),
            options=SERVER_OPTIONS,
        )
        pb_grpc.add_PerceptionServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self._perception, self._server
        )
        tracking_grpc.add_TrackingServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self._tracking, self._server
        )
        self._health.add_to(self._server)
        if _is_loopback(host):
            Reflection(SERVICES, standard).add_to(self._server)
        self.address = f"{_bracketed(host)}:{_bind(self._server, host, port)}"
        self.where = f"edgeperc watch {self.address}"
        self._server.start()

    def write(self, result: Result) -> None:
        """Hand `result`, whose arrays change no more, to whoever subscribes; never blocks."""
        self._perception.publish(result)
        self._tracking.publish(result)
        if not self._has_result:
            self._has_result = True
            self._health.set_serving()

    def report(self, well: Mapping[str, bool]) -> None:
        """Health of each sensor and pipeline, beside that of the whole."""
        for name, is_well in well.items():
            self._health.report(name, is_well)

    def close(self) -> None:
        """Send what waits, end all streams within a second and release the port."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(CLOSE_S)  # from here on, nobody new is let in
        self._perception.close()
        self._tracking.close()
        stopped.wait()


class _Perception(pb_grpc.PerceptionServiceServicer):  # type: ignore[misc]
    """The rpcs. Each Subscribe holds a mailbox that `publish` fills."""

    def __init__(self, inventory: Inventory, seats: Seats) -> None:
        self._inventory = inventory
        self._seats = seats
        self._mailboxes: dict[Mailbox, str] = {}  # -> the one source it wants, or ""
        self._lock = threading.Lock()

    def publish(self, result: Result) -> None:
        with self._lock:
            wanting = [
                mailbox
                for mailbox, source in self._mailboxes.items()
                if source in ("", result.stamp.source)
            ]
        if wanting:
            item = Published(result)
            for mailbox in wanting:
                mailbox.put(item)

    def close(self) -> None:
        with self._lock:
            for mailbox in self._mailboxes:
                mailbox.close()

    def Subscribe(  # noqa: N802
        self, request: pb.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Result]:
        self._check_source(request.source, context)
        encoding = _encoding(request.encoding, context)
        mailbox = _mailbox(request.delivery, context)
        with self._seats.taken(context), self._filled(mailbox, request.source):
            if not context.add_callback(mailbox.close):  # wakes this thread when the client goes
                return
            context.send_initial_metadata(())  # tells the client that it misses nothing from now
            while (taken := mailbox.take()) is not None and context.is_active():
                item, dropped = taken
                message = pb.Result(dropped_before=dropped)
                message.MergeFrom(item.message(encoding))
                yield message

    def ListSources(  # noqa: N802
        self, request: pb.ListSourcesRequest, context: grpc.ServicerContext
    ) -> pb.ListSourcesResponse:
        sources = self._inventory.sources
        return pb.ListSourcesResponse(sources=[as_message(pb.Source, source) for source in sources])

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        models = self._inventory.models
        return pb.ListModelsResponse(models=[as_message(pb.ModelRef, model) for model in models])

    @contextmanager
    def _filled(self, mailbox: Mailbox, source: str) -> Iterator[None]:
        with self._lock:
            self._mailboxes[mailbox] = source
        try:
            yield
        finally:
            with self._lock:
                del self._mailboxes[mailbox]

    def _check_source(self, source: str, context: grpc.ServicerContext) -> None:
        known = [each.name for each in self._inventory.sources]
        if source and source not in known:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no source '{source}'; there are: {', '.join(known) or 'none'}",
            )


def _encoding(wanted: pb.MaskEncoding, context: grpc.ServicerContext) -> pb.MaskEncoding:
    """Encoding that the client gets; unless it says, RAW on this host, where copying is cheap."""
    if wanted not in pb.MaskEncoding.values():
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"encoding is {wanted}")
    if wanted != pb.MASK_ENCODING_UNSPECIFIED:
        return wanted
    on_this_host = context.peer().startswith(LOOPBACK_PEERS)
    return pb.MASK_ENCODING_RAW if on_this_host else pb.MASK_ENCODING_ZSTD


def _mailbox(delivery: pb.DeliveryPolicy, context: grpc.ServicerContext) -> Mailbox:
    """Build what the client asks for; abort with INVALID_ARGUMENT if that is out of range."""
    try:
        return Mailbox(**delivery_options(delivery))
    except ConfigError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("abort raises") from error


def _parse(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f'grpc sink: listen = "{listen}", expected "host:port"')
    return host.strip("[]"), int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bind(server: grpc.Server, host: str, port: int) -> int:
    """Take the port, or raise ConfigError with the system's own reason, which grpc keeps."""
    address = f"{_bracketed(host)}:{port}"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        return int(server.add_insecure_port(address))
    except (OSError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise ConfigError(
            f"grpc sink: cannot listen on {address}: {reason}",
            hint="is another edgeperc running? Set another `listen`; port 0 picks a free one",
        ) from error
