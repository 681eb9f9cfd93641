"""Recordings of a daemon in a process of its own, begun over gRPC and by the web page."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mcap.reader import make_reader

from edgeperc.client import Client, connect
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Events, Frame
from edgeperc.recording.items import items
from edgeperc.recording.plan import recorded_plan
from edgeperc.recording.reader import head, messages
from edgeperc.recording.repair import repair
from edgeperc.result import LabelMap
from edgeperc.ros.codec import deserialize
from edgeperc.sinks.web_wire import unpack

pytestmark = pytest.mark.slow
PATIENCE_S = 120.0
APP = """
rig = "twin"

[[pipelines]]
name = "events"
input = "dvs"
model = "sltnet-twin"
window_us = 40_000
threads = 1

[[sinks]]
kind = "grpc"
listen = "127.0.0.1:{grpc}"

[[sinks]]
kind = "web"
listen = "127.0.0.1:{web}"

[[sinks]]
kind = "record"
folder = "{folder}"
name = "always"
max_mb = 1
topics = ["*/events"]
"""


def until(condition: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.1)
    return found


def free_ports() -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports: list[int] = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


@dataclass
class Served:
    """A daemon, its app's file, and where its recordings go."""

    process: subprocess.Popen[bytes]
    app: Path
    home: Path
    grpc: str
    web: str

    def client(self) -> Client:
        return connect(self.grpc)

    def order(self, *, on: bool) -> dict[str, Any]:
        """The record button of the page; what it is told then."""

        async def press() -> dict[str, Any]:
            async with aiohttp.ClientSession(self.web) as session, session.ws_connect("/ws") as ws:
                await ws.send_str(json.dumps({"op": "record", "ask": 1, "on": on}))
                while True:
                    header, _ = unpack((await ws.receive(PATIENCE_S)).data)
                    if header["kind"] == "answer":
                        return header

        return asyncio.run(press())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("daemon")
    grpc, web = free_ports()
    app = folder / "app.toml"
    app.write_text(APP.format(grpc=grpc, web=web, folder=folder / "always"))
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeperc", "serve", str(app)],
        env={**os.environ, "EDGEPERC_HOME": str(folder)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    each = Served(process, app, folder, f"127.0.0.1:{grpc}", f"http://127.0.0.1:{web}")

    def serves() -> bool:
        assert process.poll() is None, "the daemon ended"
        try:
            with each.client() as client:
                return client.status().state == "serving"
        except DeviceError:
            return False

    until(serves)
    yield each
    process.terminate()
    process.wait(60)


def recorded(client: Client, more: int) -> None:
    """Wait until the recording that runs holds more messages."""
    before = ((status := client.status().recording) and status.messages) or 0
    until(lambda: (now := client.status().recording) and now.messages > before + more)


def test_begun_over_grpc_and_ended_by_the_page(served: Served) -> None:
    with served.client() as client:
        begun = client.start_recording("one")
        assert (begun.running, begun.path) == (True, str(served.home / "recordings/one.mcap"))
        with pytest.raises(ConfigError, match="'one' is being recorded already"):
            client.start_recording("two")
        refused = served.order(on=True)
        assert (refused["ok"], "'one' is being recorded" in refused["error"]) == (False, True)
        recorded(client, 60)
        ended = served.order(on=False)
        assert ended["ok"]
        assert not ended["recording"]["running"]
        status = client.status().recording
        assert status
        assert (status.running, status.error, status.path) == (False, "", begun.path)
        with pytest.raises(ConfigError, match="nothing is recorded"):
            client.stop_recording()
        with pytest.raises(ConfigError, match="is there already"):
            client.start_recording("one")
    path = Path(begun.path)
    what = list(items(path))
    assert {type(each) for each in what} == {Events, Frame, LabelMap}
    for kind in (Events, Frame, LabelMap):
        seqs = [each.stamp.seq for each in what if isinstance(each, kind)]
        gaps = sum(b - a - 1 for a, b in pairwise(seqs))
        assert len(seqs) > 3
        assert gaps <= status.dropped + (len(seqs) if kind is LabelMap else 0)  # newest wins
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_summary().statistics.message_count == status.messages
        assert sum(1 for _ in reader.iter_messages()) == status.messages
    assert head(path).files["app.toml"] == served.app.read_bytes()
    assert recorded_plan(path).rig.sensors["dvs"]["driver"] == "replay"


def test_the_files_that_were_asked_for(served: Served) -> None:
    with served.client() as client:
        with pytest.raises(ConfigError, match="max_bytes is 1000, must be at least 1000000"):
            client.start_recording("small", max_mb=0.001)
        client.start_recording("parts", max_mb=1, max_minutes=60)
        until(lambda: (now := client.status().recording) and now.files > 2)
        ended = client.stop_recording()
    folder = served.home / "recordings"
    files = sorted(folder.glob("parts*"))
    assert len(files) == ended.files
    assert Path(ended.path) == files[-1]
    assert not list(folder.glob("small*"))
    seqs: list[int] = []
    for file in files:
        assert repair(file).was_whole
        assert file.stat().st_size < 3_000_000
        assert head(file).files["app.toml"]
        seqs += [each.stamp.seq for each in items(file) if isinstance(each, Events)]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] - seqs[0] + 1 - len(seqs) <= ended.dropped


def test_begun_by_the_page_and_ended_over_grpc(served: Served) -> None:
    begun = served.order(on=True)
    assert begun["ok"]
    assert begun["recording"]["running"]
    with served.client() as client:
        recorded(client, 20)
        ended = client.stop_recording()
    assert ended.name == begun["recording"]["name"]
    assert repair(Path(ended.path)).was_whole
    assert list(items(Path(ended.path)))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "..", "a\\b", ".hidden", "-o", "x" * 300]
)
def test_a_name_leads_nowhere_else(served: Served, name: str) -> None:
    there = sorted(served.home.rglob("*.mcap"))
    with served.client() as client:
        with pytest.raises(ConfigError, match="is no plain file name"):
            client.start_recording(name)
        assert not (status := client.status().recording) or not status.running
    assert {path.parent.name for path in served.home.rglob("*.mcap")} <= {"always", "recordings"}
    assert not set(there) - set(served.home.rglob("*.mcap"))


def test_a_recording_goes_on_when_the_app_changes(served: Served) -> None:
    before = served.app.read_text()
    after = before.replace("40_000", "20_000")
    with served.client() as client:
        begun = client.start_recording("changing")
        recorded(client, 20)
        etag = client.config().etag
        served.app.write_text(after)
        served.process.send_signal(signal.SIGHUP)
        until(lambda: client.config().etag != etag)
        recorded(client, 40)
        until(lambda: widths(Path(begun.path))[-1] == 20_000)
        ended = client.stop_recording()
    assert (ended.path, ended.error) == (begun.path, "")
    path = Path(ended.path)
    assert repair(path).was_whole
    assert set(widths(path)) == {40_000, 20_000}
    texts = [
        deserialize(bytes(entry.data), entry.type).data
        for entry in messages(path, lambda topic, _: topic == "app")
    ]
    assert texts == [before, after]
    assert head(path).files["app.toml"].decode() == before
    assert recorded_plan(path).app.pipelines[0].window_us == 40_000
    seqs = [each.stamp.seq for each in items(path) if isinstance(each, Events)]
    assert sum(b - a - 1 for a, b in pairwise(seqs)) <= ended.dropped


def widths(path: Path) -> list[int]:
    """Of the windows that were labelled, in µs; of a file that may still be written."""
    found = [0]
    try:
        for each in items(path):
            if isinstance(each, LabelMap):
                found.append((each.stamp.end_ns - each.stamp.start_ns) // 1000)
    except Exception:  # its end is not there yet
        if len(found) == 1:
            return found
    return found[1:] or found


def test_a_sinks_files_have_the_size_that_was_asked_for_and_stand_alone(served: Served) -> None:
    folder = served.home / "always"
    until(lambda: len(list(folder.iterdir())) > 3)
    served.process.terminate()
    assert served.process.wait(60) == 0
    files = sorted(folder.iterdir())
    assert [file.name for file in files[:3]] == [
        "always.mcap",
        "always_0001.mcap",
        "always_0002.mcap",
    ]
    seqs: list[int] = []
    for file in files:
        assert repair(file).was_whole
        assert file.stat().st_size < 3_000_000
        assert head(file).files["app.toml"]
        found = list(items(file))
        assert {type(each) for each in found} <= {Events}
        seqs += [each.stamp.seq for each in found]
    assert seqs == sorted(set(seqs))
