"""Faults of clients: too many, too much, too slow, half there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc

from edgeperc.bench.fault_parts import HURT, two_pipelines
from edgeperc.bench.victim import FaultError, Victim
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc

Do = Callable[[Path], float | None]

REQUESTS, FLOODING_THREADS = 10_000, 8
HUGE_BYTES = 100 << 20
HALF_OPEN = 300
SLOW, SLOW_S = 5, 10.0


def flood(folder: Path) -> None:
    """Ten thousand requests as fast as they go."""
    with served(folder) as victim, grpc.insecure_channel(victim.address) as channel:
        stub = pb_grpc.PerceptionServiceStub(channel)  # type: ignore[no-untyped-call]

        def ask(_: int) -> bool:
            with suppress(grpc.RpcError):
                return bool(stub.ListSources(pb.ListSourcesRequest(), timeout=30).sources)
            return False

        with ThreadPoolExecutor(FLOODING_THREADS) as pool:
            answered = sum(pool.map(ask, range(REQUESTS)))
        if answered < REQUESTS:
            raise FaultError(f"{REQUESTS - answered:,} of {REQUESTS:,} requests were not answered")


def prompt_flood(folder: Path) -> None:
    """Ten thousand streams opened and left at once."""
    with served(folder) as victim, grpc.insecure_channel(victim.address) as channel:
        stub = pb_grpc.PerceptionServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(REQUESTS // 10):
            stub.Subscribe(pb.SubscribeRequest()).cancel()


def oversize(folder: Path) -> None:
    """A message of 100 MB."""
    with served(folder) as victim:
        options = (("grpc.max_send_message_length", -1),)
        with grpc.insecure_channel(victim.address, options=options) as channel:
            call = channel.unary_unary("/edgeperc.v1.PerceptionService/ListSources")
            try:
                call(bytes(HUGE_BYTES), timeout=60)
            except grpc.RpcError as error:
                if error.code() not in (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    grpc.StatusCode.UNAVAILABLE,  # it hung up before all was sent
                ):
                    raise FaultError(f"was answered with {error.code().name}") from None
            else:
                raise FaultError("was taken")


def half_open(folder: Path) -> None:
    """Hundreds of connections that say nothing, and some that say nonsense."""
    with served(folder) as victim, ExitStack() as stack:
        host, _, port = victim.address.rpartition(":")
        for number in range(HALF_OPEN):
            with suppress(OSError):
                end = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
                end.sendall(b"" if number % 3 else b"GET / HTTP/1.1\r\n\r\n" * 10)
        _answers(victim)


def slow_readers(folder: Path) -> None:
    """Clients that subscribe and never read."""
    with served(folder) as victim, ExitStack() as stack:
        for _ in range(SLOW):
            channel = stack.enter_context(grpc.insecure_channel(victim.address))
            stub = pb_grpc.PerceptionServiceStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Subscribe(pb.SubscribeRequest(encoding=pb.MASK_ENCODING_RAW))
            stack.callback(call.cancel)
            call.initial_metadata()
        before, until_s = victim.results(HURT), time.monotonic() + SLOW_S
        while time.monotonic() < until_s:
            _answers(victim)
            time.sleep(0.5)
        if victim.results(HURT) - before < SLOW_S:
            raise FaultError("a client that reads got less than one result a second beside them")


def clients_killed(folder: Path) -> None:
    """Clients that come and go in the middle of a stream, a hundred times."""
    with served(folder) as victim:

        def come_and_go(_: int) -> None:
            with grpc.insecure_channel(victim.address) as channel:
                stub = pb_grpc.PerceptionServiceStub(channel)  # type: ignore[no-untyped-call]
                with suppress(grpc.RpcError):
                    next(stub.Subscribe(pb.SubscribeRequest(), timeout=5), None)

        with ThreadPoolExecutor(FLOODING_THREADS) as pool:
            list(pool.map(come_and_go, range(100)))


FAULTS: tuple[tuple[str, str, Do], ...] = (
    ("10,000 requests", "all answered, results go on", flood),
    ("streams left at once", "results go on", prompt_flood),
    ("a message of 100 MB", "refused, results go on", oversize),
    ("half-open connections", "others are answered, results go on", half_open),
    ("slow readers", "others are answered, results go on", slow_readers),
    ("clients that come and go", "results go on", clients_killed),
)


@contextmanager
def served(folder: Path) -> Iterator[Victim]:
    """A daemon that still works afterwards, with no thread more than the streams it has."""
    with two_pipelines(folder) as victim:
        yield victim
        _answers(victim)
        victim.wait_results(HURT, 3)
        if not victim.healthy():
            raise FaultError("it is not well afterwards")


def _answers(victim: Victim) -> None:
    """Whether a client that behaves is answered at once."""
    done = threading.Event()

    def ask() -> None:
        if victim.healthy() is not None:
            done.set()

    threading.Thread(target=ask, daemon=True).start()
    if not done.wait(5):
        raise FaultError("a health check was not answered within 5 s")
