"""The suite `serve`: label maps from one daemon to many gRPC clients, each in another process.

Three processes or more take part: one publishes and serves, the others subscribe by
`edgeperc.client` and compare `published_ns` with the time at which they have the decoded map.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.bench.figures import Figures

SIZE_PX = (640, 480)
RATE_HZ = 120.0
FEW, MANY, DEAD, TOGETHER = 4, 45, 5, 9
SECONDS, WARM_S = 6.0, 1.5
MANY_RATE_HZ = 4.0
"""Of each of the many clients: all maps to 50 clients would be 1.8 GB/s."""
LATE_S = 120.0


def measure(figures: Figures, recording: Path | None) -> None:
    """Latency to four clients, the server's share of a core, and what dead clients cost others."""
    figures.progress("4 clients")
    few = round_of([["--clients", "1"]] * FEW)
    figures.add(
        "p99_ms_4_clients",
        few.p99_ms,
        f"{FEW} clients, {SIZE_PX[0]} × {SIZE_PX[1]} px at {RATE_HZ:g} Hz: published to decoded",
        aim=2.0,
    )
    figures.add("server_core_share", few.core_share, "of one core, the server's process", aim=0.15)
    figures.detail("p50_ms_4_clients", few.p50_ms)
    figures.detail("received_share_4_clients", few.received_share)
    rate = ["--rate", str(MANY_RATE_HZ)]
    readers = [["--clients", str(TOGETHER), *rate]] * (MANY // TOGETHER)
    ratios = []
    for number in range(3):
        figures.progress(f"50 clients, {number + 1} of 3")
        alone = round_of(readers)
        beside = round_of([*readers, ["--clients", str(DEAD), "--dead"]])
        ratios.append(beside.p99_ms / alone.p99_ms)
        figures.detail(f"p99_ms_{MANY}_clients_{number}", alone.p99_ms)
        figures.detail(f"p99_ms_{MANY}_and_{DEAD}_dead_{number}", beside.p99_ms)
    figures.add(
        "p99_ratio_50_clients_5_dead",
        float(np.median(ratios)),
        f"p99 of {MANY} clients at {MANY_RATE_HZ:g} Hz beside {DEAD} that read nothing, to without",
        aim=1.2,
    )
    figures.note("Server and clients share this machine's cores; on loopback, label maps as RAW.")


class Round:
    """What one run of a server with clients gave. Times in ms, shares of 1."""

    def __init__(
        self, served: dict[str, float], latencies_ms: Sequence[float], readers: int
    ) -> None:
        self.p50_ms, self.p99_ms = np.percentile(latencies_ms, [50, 99]).tolist()
        self.core_share = served["cpu_s"] / served["wall_s"]
        self.received_share = len(latencies_ms) / served["published"] / readers


def round_of(clients: Sequence[Sequence[str]]) -> Round:
    """Serve for some seconds to processes of clients with these options."""
    with ExitStack() as stack:
        server = stack.enter_context(_process("server"))
        address = _said(server)["address"]
        readers = [stack.enter_context(_process("client", address, *each)) for each in clients]
        for reader in readers:
            _said(reader)  # it has subscribed
        time.sleep(WARM_S)
        for process in (server, *readers):
            _tell(process, "begin")
        time.sleep(SECONDS)
        for process in (server, *readers):
            _tell(process, "end")
        latencies_ms = [ms for reader in readers for ms in _said(reader)["latencies_ms"]]
        return Round(_said(server), latencies_ms, len(readers))


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "edgeperc.bench.serve", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def _tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def street(number: int) -> NDArray[np.uint8]:
    """A map of 15 classes that resembles a street's: areas with ragged edges."""
    width, height = SIZE_PX
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 15, (height // 40, width // 40), dtype=np.uint8)
    labels = np.kron(coarse, np.ones((40, 40), np.uint8))
    ragged = rng.integers(-3, 4, height)
    return np.stack([np.roll(row, shift) for row, shift in zip(labels, ragged, strict=True)])


def serve() -> None:
    """Publish maps at RATE_HZ; say the processor time between `begin` and `end`."""
    from edgeperc.packet import Stamp
    from edgeperc.result import Inventory, LabelMap, ModelRef, SourceInfo
    from edgeperc.sinks.grpc import Grpc

    inventory = Inventory(sources=(SourceInfo(name="bench", driver="none"),))
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory, max_streams=64)
    maps = [street(number) for number in range(8)]
    classes, model = tuple(f"class {k}" for k in range(15)), ModelRef(name="bench")
    stopping, published = threading.Event(), 0

    def publish() -> None:
        nonlocal published
        due_s = time.monotonic()
        while not stopping.wait(max(0.0, due_s - time.monotonic())):
            stamp = Stamp(source="bench", seq=published, start_ns=published, end_ns=published + 1)
            labels = maps[published % len(maps)]
            sink.write(LabelMap(stamp=stamp, labels=labels, classes=classes, model=model))
            published += 1
            due_s = max(due_s + 1 / RATE_HZ, time.monotonic() - 1 / RATE_HZ)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    _say(address=sink.address)
    sys.stdin.readline()
    cpu_s, wall_s, before = time.process_time(), time.monotonic(), published
    sys.stdin.readline()
    _say(
        cpu_s=time.process_time() - cpu_s,
        wall_s=time.monotonic() - wall_s,
        published=published - before,
    )
    sys.stdin.readline()
    stopping.set()


def subscribe(address: str, *, clients: int, rate_hz: float, dead: bool) -> None:
    """Read with so many clients, or subscribe and read nothing; say the latencies in between."""
    from edgeperc.client import connect

    latencies_ms: list[float] = []
    counting, opened = threading.Event(), threading.Barrier(clients + 1)

    def read() -> None:
        with connect(address, timeout_s=LATE_S) as client:
            results = client.subscribe(max_rate_hz=rate_hz)
            opened.wait()
            for received in results:
                now_ns = time.time_ns()
                if counting.is_set():
                    latencies_ms.append((now_ns - received.published_ns) * 1e-6)

    for _ in range(clients):
        work = _read_nothing if dead else read
        arguments = (address, opened) if dead else ()
        threading.Thread(target=work, args=arguments, daemon=True).start()
    opened.wait()
    _say(clients=clients)
    sys.stdin.readline()
    counting.set()
    sys.stdin.readline()
    counting.clear()
    _say(latencies_ms=latencies_ms)
    sys.stdin.readline()


def _read_nothing(address: str, opened: threading.Barrier) -> None:
    """Hold a stream open without ever reading: gRPC stops asking once its window is full."""
    import grpc

    from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
    from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc

    channel = grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
    stub = pb_grpc.PerceptionServiceStub(channel)  # type: ignore[no-untyped-call]
    call = stub.Subscribe(pb.SubscribeRequest())
    call.initial_metadata()
    opened.wait()
    threading.Event().wait()


def main(arguments: Sequence[str]) -> None:
    """One of the processes."""
    if arguments[0] == "server":
        serve()
        return
    options = list(arguments[2:])
    rate_hz = float(options[options.index("--rate") + 1]) if "--rate" in options else 0.0
    clients = int(options[options.index("--clients") + 1])
    subscribe(arguments[1], clients=clients, rate_hz=rate_hz, dead="--dead" in options)


if __name__ == "__main__":
    main(sys.argv[1:])
