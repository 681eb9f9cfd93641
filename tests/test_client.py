"""The client against real daemons: what it receives, and what it says when there are none."""

from __future__ import annotations

import gc
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from edgeperc.client import Client, Received, connect
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Stamp
from edgeperc.result import LabelMap, ModelRef, Timings
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc

MODEL = ModelRef(name="m", sha256="c0ffee", engine="onnxruntime", provider="cpu")
INVENTORY = Inventory(sources=(SourceInfo(name="dvs", driver="twin"),), models=(MODEL,))

DAEMON = """
import time
from edgeperc.sink import Inventory
from edgeperc.sinks.grpc import Grpc

sink = Grpc(listen="127.0.0.1:0", inventory=Inventory())
print(sink.address, flush=True)
time.sleep(60)
"""


def label_map(seq: int) -> LabelMap:
    return LabelMap(
        stamp=Stamp(source="dvs", seq=seq, start_ns=seq, end_ns=seq + 1),
        labels=((np.arange(30) + seq) % 256).astype(np.uint8).reshape(5, 6),
        classes=("road", "car"),
        model=MODEL,
        timings=Timings(total_ns=5),
    )


@pytest.fixture
def sink() -> Iterator[Grpc]:
    sink = Grpc(listen="127.0.0.1:0", inventory=INVENTORY, max_streams=2)
    yield sink
    sink.close()


@pytest.fixture
def client(sink: Grpc) -> Iterator[Client]:
    with connect(sink.address) as client:
        yield client


@pytest.fixture
def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def eventually(attempt: Callable[[], object]) -> None:
    """Repeat `attempt` until it raises nothing, for 20 s at most."""
    for _ in range(200):
        try:
            attempt()
            return
        except DeviceError:
            time.sleep(0.1)
    attempt()


def test_sources_and_models_are_those_of_the_daemon(client: Client) -> None:
    assert client.sources() == INVENTORY.sources
    assert client.models() == INVENTORY.models


@pytest.mark.parametrize("encoding", ["auto", "raw", "zstd", "rle"])
def test_result_arrives_as_it_was_written(sink: Grpc, client: Client, encoding: str) -> None:
    results = client.subscribe(encoding=encoding)  # type: ignore[arg-type]
    before_ns = time.time_ns()
    sink.write(label_map(3))
    received = next(results)
    assert isinstance(received.result, LabelMap)
    np.testing.assert_array_equal(received.result.labels, label_map(3).labels)
    sent = label_map(3)
    for name in ("stamp", "classes", "model", "timings"):
        assert getattr(received.result, name) == getattr(sent, name)
    assert received.dropped_before == 0
    assert before_ns <= received.published_ns <= time.time_ns()


def test_nothing_written_after_subscribe_returned_is_missed(sink: Grpc, client: Client) -> None:
    results = client.subscribe(mode="queue", depth=100)
    for seq in range(100):
        sink.write(label_map(seq))
    assert [next(results).result.stamp.seq for _ in range(100)] == list(range(100))


def test_slow_client_gets_the_newest_and_the_count_of_what_it_missed(
    sink: Grpc, client: Client
) -> None:
    """Not what had piled up in the sockets when it was slow."""
    results = client.subscribe()
    for seq in range(200):
        sink.write(label_map(seq))
        time.sleep(0.001)  # the daemon sends nearly all of them
    reads, expected = 0, 0
    while expected < 200:
        received = next(results)
        assert received.result.stamp.seq == expected + received.dropped_before
        expected = received.result.stamp.seq + 1
        reads += 1
        time.sleep(0.1)
    assert reads < 10


def test_iterator_ends_when_the_daemon_stops(sink: Grpc, client: Client) -> None:
    results = client.subscribe(mode="queue")
    sink.write(label_map(0))
    sink.close()
    assert [received.result.stamp.seq for received in results] == [0]


def test_iterator_ends_when_the_client_is_closed_elsewhere(client: Client) -> None:
    results = client.subscribe()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list[Received], results)
        client.close()
        assert waiting.result(timeout=20) == []


def test_example_in_the_docs_runs(sink: Grpc, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "grpc.md").read_text(encoding="utf-8")
    example = re.findall("```python\n(.*?)```", page, flags=re.DOTALL)[0]
    example = example.replace("127.0.0.1:50051", sink.address)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(exec, example, {})
        while "road" not in capsys.readouterr().out:
            sink.write(label_map(0))
            time.sleep(0.02)
            assert not running.done()
        sink.close()
        running.result(timeout=20)


def test_closed_client_says_so(client: Client) -> None:
    client.close()
    with pytest.raises(DeviceError, match="is closed"):
        client.subscribe()
    with pytest.raises(DeviceError, match="is closed"):
        client.sources()


def test_client_finds_a_daemon_that_comes_back(sink: Grpc, client: Client) -> None:
    sink.close()
    with pytest.raises(DeviceError, match="no daemon"):
        client.subscribe()
    again = Grpc(listen=sink.address, inventory=INVENTORY)
    eventually(client.subscribe)
    again.close()


def test_leaving_a_loop_gives_the_stream_back(sink: Grpc, client: Client) -> None:
    def two_rounds() -> None:
        for mode in ("latest", "queue"):
            results = client.subscribe(mode=mode)  # type: ignore[arg-type]
            sink.write(label_map(0))
            for received in results:
                assert received.result.stamp.seq == 0
                break
            del results
            gc.collect()

    for _ in range(5):  # a daemon of two streams
        eventually(two_rounds)


def test_subscription_that_is_never_read_gives_the_stream_back(client: Client) -> None:
    for _ in range(5):
        eventually(client.subscribe)
        gc.collect()


def test_all_streams_taken_is_said(client: Client) -> None:
    streams = [client.subscribe(), client.subscribe()]
    with pytest.raises(DeviceError, match="2 streams of this kind are taken"):
        client.subscribe()
    assert len(streams) == 2


def test_unknown_source_names_the_known_ones(client: Client) -> None:
    with pytest.raises(ConfigError, match="no source 'tail'; there are: dvs"):
        client.subscribe("tail")


def test_depth_out_of_range_is_said(client: Client) -> None:
    with pytest.raises(ConfigError, match="depth is 1000, must be at most 256"):
        client.subscribe(mode="queue", depth=1000)


def test_no_daemon_is_said_with_how_to_start_one(free_address: str) -> None:
    with pytest.raises(DeviceError, match=f"no daemon at {free_address}") as caught:
        connect(free_address)
    assert caught.value.hint == "start one with: edgeperc serve"


def test_something_else_that_speaks_grpc_is_said() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(DeviceError, match="is no edgeperc daemon"):
        connect(f"127.0.0.1:{port}")
    server.stop(None).wait()


def test_something_that_does_not_speak_grpc_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0-x\r\n" * 9))
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DeviceError, match=f"no daemon at {address}"):
            connect(address, timeout_s=3)
        thread.join(timeout=10)


def test_address_without_a_port_means_the_default_port() -> None:
    with Client("robot") as client:
        assert client.address == "robot:50051"


def test_daemon_that_is_killed_went_away() -> None:
    command = [sys.executable, "-c", DAEMON]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            client = connect(process.stdout.readline().strip())
            results = client.subscribe()
        finally:
            process.kill()
        with pytest.raises(DeviceError, match="went away"):
            next(results)
        client.close()
