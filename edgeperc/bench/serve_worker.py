"""A process of the suite `serve`: the daemon that publishes, or clients that read or do not.

    main(["server"])
    main(["client", address, "--clients", "9", "--rate", "4.0", "--encoding", "raw"])

Says a line of JSON when it is ready and another at the end; begins and ends to measure when it is
told a line.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE_PX = (640, 480)
RATE_HZ = 120.0
LATE_S = 120.0


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
    from edgeperc.result import LabelMap, ModelRef
    from edgeperc.sink import Inventory, SourceInfo
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


def subscribe(address: str, *, clients: int, rate_hz: float, dead: bool, encoding: Any) -> None:
    """Read with so many clients, or subscribe and read nothing; say the latencies in between."""
    from edgeperc.client import connect

    latencies_ms: list[float] = []
    counting, opened = threading.Event(), threading.Barrier(clients + 1)

    def read() -> None:
        with connect(address, timeout_s=LATE_S) as client:
            results = client.subscribe(max_rate_hz=rate_hz, encoding=encoding)
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
    cpu_s, wall_s = time.process_time(), time.monotonic()
    counting.set()
    sys.stdin.readline()
    counting.clear()
    core_share = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
    _say(latencies_ms=latencies_ms, core_share=core_share)
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
    encoding = options[options.index("--encoding") + 1] if "--encoding" in options else "auto"
    subscribe(
        arguments[1], clients=clients, rate_hz=rate_hz, dead="--dead" in options, encoding=encoding
    )
