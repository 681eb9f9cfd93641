"""Results to any number of gRPC clients, and their orders: `edgeperc.v1`, health, reflection.

Threads: `write` runs in a pipeline's thread and only fills mailboxes, `take` in a sensor's and only
keeps what somebody wants to see. Each subscriber has a thread of the server's pool, which encodes
and sends; a slow one loses results of its own, nothing else.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from edgeperc.addresses import bracketed, is_loopback, parse_listen
from edgeperc.config import Positive
from edgeperc.control import Daemon
from edgeperc.errors import ConfigError
from edgeperc.packet import Packet
from edgeperc.plan import Plan
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import Result
from edgeperc.sink import Inventory
from edgeperc.sinks.control import SERVICE as CONTROL_SERVICE
from edgeperc.sinks.control import Control
from edgeperc.sinks.grpc_standard import Health, Reflection, Seats
from edgeperc.sinks.inference import SERVICE as INFERENCE_SERVICE
from edgeperc.sinks.inference import Inference
from edgeperc.sinks.models import LoadedModels
from edgeperc.sinks.perception import SERVICE as PERCEPTION_SERVICE
from edgeperc.sinks.perception import Perception
from edgeperc.sinks.punctual import Pool, Punctual
from edgeperc.sinks.searching import SERVICE as SEARCH_SERVICE
from edgeperc.sinks.searching import Searching
from edgeperc.sinks.security import (
    Guard,
    Role,
    Tls,
    Tokens,
    check_exposure,
    server_credentials,
)
from edgeperc.sinks.session_messages import MAX_MESSAGE_BYTES
from edgeperc.sinks.tracking import SERVICE as TRACKING_SERVICE
from edgeperc.sinks.tracking import Tracking
from edgeperc.sinks.waiting import Waiting
from edgeperc.tracker import Tracker

log = logging.getLogger("edgeperc")

CLOSE_S = 0.8
STANDARD_STREAMS = 8  # health watches and reflection
ASKING = 4  # calls at a time that run a network, and as many streams of them
SCANS = 2  # by the mirror, at a time: one runs, one is refused
SPARE_THREADS = 4  # never held by a stream, so that short calls always answer
MOST_CALLS = 2048
"""Whatever becomes of them, no more are known at a time, so that a flood fills no memory."""

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.so_reuseport", 0),  # two daemons on one port would share its clients by chance
    ("grpc.server_handshake_timeout_ms", 10_000),  # else silent connections stay for 120 s
    ("grpc.keepalive_time_ms", 20_000),  # notices a client that lost its network
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients may look after us, too
)


class Grpc:
    """Sink that serves `edgeperc.v1` at `listen` ("host:port"; port 0 picks a free one).

    trackers: the pipelines that can be prompted. max_streams: subscribers at a time. tls_cert,
    tls_key: files in PEM; client_ca: whoever connects must show a certificate signed by it. tokens:
    a file of lines `role token`. anybody: role of whoever gets so far without tokens; admin on
    loopback, else read. insecure: allow an address that other machines can reach without all that.
    Raises ConfigError if the address cannot be served, or not like this.
    """

    def __init__(
        self,
        *,
        inventory: Inventory,
        trackers: Sequence[Tracker] = (),
        daemon: Daemon | None = None,
        listen: str = "127.0.0.1:50051",
        max_streams: Positive = 16,
        tls_cert: str = "",
        tls_key: str = "",
        client_ca: str = "",
        tokens: str = "",
        anybody: Role | None = None,
        insecure: bool = False,
    ) -> None:
        host, port = parse_listen(listen, "grpc sink")
        tls = _tls(tls_cert, tls_key, client_ca)
        local = is_loopback(host)
        if not insecure:
            check_exposure(host, "grpc sink", encrypted=bool(tls), asks=bool(tokens or client_ca))
        self._guard = Guard(
            tokens=Tokens(Path(tokens).expanduser()) if tokens else None,
            anybody=anybody or ("admin" if local else "read"),
        )
        credentials = server_credentials(tls) if tls else None
        self._models = LoadedModels(app=lambda: [model.name for model in inventory.models])
        asking = Seats(ASKING)
        waiting = Waiting(daemon)
        self._perception = Perception(
            inventory, self._models, streams=Seats(max_streams), asking=asking, waiting=waiting
        )
        self._tracking = Tracking(trackers, waiting)
        self._searching = Searching(daemon, scans=Seats(SCANS))
        services = (
            *(PERCEPTION_SERVICE, TRACKING_SERVICE, CONTROL_SERVICE, SEARCH_SERVICE),
            INFERENCE_SERVICE,
        )
        standard = Seats(STANDARD_STREAMS)
        self._health = Health(("", *services), standard, self._guard)
        self._has_result = False
        threads = max_streams + self._tracking.most_threads
        threads += STANDARD_STREAMS + 2 * ASKING + SCANS + SPARE_THREADS
        pool = Pool(threads, "grpc")
        self._punctual = Punctual(pool)
        self._server = grpc.server(
            pool,
            interceptors=[self._punctual, self._guard],
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=threads + MOST_CALLS,
        )
        self._perception.add_to(self._server)
        tracking_grpc.add_TrackingServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self._tracking, self._server
        )
        Control(daemon, self._models, refused=self._refused).add_to(self._server)
        self._searching.add_to(self._server)
        Inference(
            self._models,
            is_ready=lambda: self._has_result,
            asking=asking,
            streams=Seats(ASKING),
        ).add_to(self._server)
        self._health.add_to(self._server)
        if local:
            Reflection(services, standard).add_to(self._server)
        self.address = f"{bracketed(host)}:{_bind(self._server, host, port, credentials)}"
        self.where = f"edgeperc watch {self.address}"
        self._punctual.start()
        self._server.start()

    @property
    def wants_packets(self) -> bool:
        """Whether a client wants to see what results were made from."""
        return self._perception.shots.are_wanted

    def take(self, packet: Packet) -> None:
        """Keep a packet, if a client wants to see such; never blocks."""
        self._perception.shots.take(packet)

    def write(self, result: Result) -> None:
        """Hand `result`, whose arrays change no more, to whoever subscribes; never blocks."""
        self._perception.publish(result)
        self._tracking.publish(result)
        self._searching.publish(result)
        if not self._has_result:
            self._has_result = True
            self._health.set_serving()

    def report(self, well: Mapping[str, bool]) -> None:
        """Health of each sensor and pipeline, beside that of the whole."""
        for name, is_well in well.items():
            self._health.report(name, is_well)

    def adapt(self, plan: Plan, trackers: Sequence[Tracker]) -> None:
        """See AppSink: clients stay."""
        self._tracking.adapt(trackers)

    def counts(self) -> Mapping[str, int]:
        """Subscribers, results that they lost, and calls that were refused, by why."""
        refused = {f"refused_{why}": count for why, count in self._refused().items()}
        return {**self._perception.counts(), **refused}

    def close(self) -> None:
        """Send what waits, end all streams within a second and release the port."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(CLOSE_S)  # from here on, nobody new is let in
        self._perception.close()
        self._tracking.close()
        self._searching.close()
        stopped.wait()
        self._punctual.close()

    def _refused(self) -> dict[str, int]:
        """Calls that were turned away, by status code's name."""
        return {**self._guard.refused, **self._punctual.refused}


def _tls(cert: str, key: str, client_ca: str) -> Tls | None:
    if bool(cert) != bool(key) or (client_ca and not cert):
        raise ConfigError(
            "grpc sink: TLS needs tls_cert and tls_key, both",
            hint="client_ca comes on top of them",
        )
    if not cert:
        return None
    return Tls(
        cert=Path(cert).expanduser(),
        key=Path(key).expanduser(),
        client_ca=Path(client_ca).expanduser() if client_ca else None,
    )


def _bind(
    server: grpc.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    """Take the port, or raise ConfigError with the system's own reason, which grpc keeps."""
    address = f"{bracketed(host)}:{port}"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        if credentials:
            return int(server.add_secure_port(address, credentials))
        return int(server.add_insecure_port(address))
    except (OSError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise ConfigError(
            f"grpc sink: cannot listen on {address}: {reason}",
            hint="is another edgeperc running? Set another `listen`; port 0 picks a free one",
        ) from error
