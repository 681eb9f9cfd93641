"""The sinks of an app that changes: what stays is open with its connections and files."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType

from edgeperc.client import connect
from edgeperc.daemon import LocalDaemon
from edgeperc.errors import ConfigError
from edgeperc.packet import Stamp
from edgeperc.plan import Plan
from edgeperc.recording.reader import head, messages
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import Sink
from edgeperc.sinks.web_wire import unpack
from edgeperc.supervise.sinks import Sinks

from .ticking import eventually

APP = """
rig = "twin"
[[pipelines]]
name = "events"
input = "dvs"
model = "sltnet-twin"
"""
MORE = APP.replace('"events"', '"more"').replace('"dvs"', '"dvs"').replace('rig = "twin"\n', "")
GRPC = '[[sinks]]\nkind = "grpc"\nlisten = "127.0.0.1:{}"\n'
WEB = '[[sinks]]\nkind = "web"\nlisten = "127.0.0.1:{}"\n'
RECORD = '[[sinks]]\nkind = "record"\nfolder = "{}"\nname = "drive"\n'
NULL = '[[sinks]]\nkind = "null"\n'


class Daemon:
    """Sinks as a daemon has them, without a run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.toml"
        self.there: list[Sink] = []
        self.path.write_text(APP)
        control = LocalDaemon(Plan.of_text(APP, self.path))
        self.sinks = Sinks(control, add=self.there.append, remove=self._remove)

    def _remove(self, sink: Sink) -> None:
        self.there.remove(sink)
        sink.close()

    def become(self, text: str, model: str = "sltnet-twin") -> tuple[str, ...]:
        self.path.write_text(text)
        plan = Plan.of_text(text, self.path)
        change = self.sinks.prepare(plan, models=(ModelRef(name=model),), trackers=())
        return self.sinks.become(change)

    def close(self) -> None:
        for sink in list(self.there):
            self._remove(sink)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    each = Daemon(tmp_path)
    yield each
    each.close()


def result(seq: int) -> LabelMap:
    stamp = Stamp(source="dvs", seq=seq, start_ns=seq * 10**9, end_ns=(seq + 1) * 10**9)
    labels = np.zeros((4, 4), np.uint8)
    return LabelMap(stamp=stamp, labels=labels, classes=("a",), model=ModelRef(name="sltnet-twin"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Page(threading.Thread):
    """A page that stays, and what it was told."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.told, self.gone = url, list[dict[str, Any]](), False
        self.start()
        eventually(lambda: self.kinds("hello"))

    def run(self) -> None:
        import asyncio

        asyncio.run(self._listen())
        self.gone = True

    async def _listen(self) -> None:
        async with ClientSession(self.url) as session, session.ws_connect("/ws") as socket:
            async for message in socket:
                if message.type == WSMsgType.BINARY:
                    self.told.append(unpack(message.data)[0])

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [header for header in list(self.told) if header["kind"] == kind]


def test_what_stays_the_same_stays_open_with_its_clients_and_its_file(
    daemon: Daemon, tmp_path: Path
) -> None:
    sinks = GRPC.format(0) + WEB.format(0) + RECORD.format(tmp_path)
    assert daemon.become(APP + sinks) == ()
    grpc, web, record = daemon.there
    page = Page(web.where)
    got: list[int] = []
    address = grpc.where.rpartition(" ")[2]

    def listen() -> None:
        with connect(address) as there:
            got.extend(each.result.stamp.seq for each in there.subscribe(mode="queue", depth=8))

    threading.Thread(target=listen, daemon=True).start()
    eventually(lambda: grpc.counts()["clients"] == 1)  # type: ignore[attr-defined]
    record.write(result(0))
    eventually(lambda: record.recorder._has_begun)  # type: ignore[attr-defined]
    changed = APP.replace("sltnet-twin", "mambaseg-nano") + sinks
    assert daemon.become(changed, "mambaseg-nano") == ()
    assert daemon.there == [grpc, web, record]
    eventually(lambda: page.kinds("changed"))
    assert [each["name"] for each in page.kinds("changed")[0]["models"]] == ["mambaseg-nano"]
    record.write(result(1))
    grpc.write(result(1))
    assert grpc.counts()["clients"] == 1  # type: ignore[attr-defined]
    assert not page.gone
    daemon.close()
    eventually(lambda: got == [1])
    assert [path.name for path in tmp_path.glob("*.mcap")] == ["drive.mcap"]
    texts = list(messages(tmp_path / "drive.mcap", lambda topic, type_: topic == "app"))
    assert len(texts) == 2
    of_file = head(tmp_path / "drive.mcap")  # what a replay goes by
    assert json.loads(of_file.files["app.json"])["pipelines"][0]["model"] == "sltnet-twin"


def test_pages_are_told_nothing_where_nothing_is_new_to_them(daemon: Daemon) -> None:
    daemon.become(APP + WEB.format(0))
    (web,) = daemon.there
    page = Page(web.where)
    daemon.become(APP + WEB.format(0) + NULL)
    daemon.become(APP + WEB.format(0), "mambaseg-nano")
    eventually(lambda: page.kinds("changed"))
    assert len(page.kinds("changed")) == 1
    assert [each["name"] for each in page.kinds("changed")[0]["models"]] == ["mambaseg-nano"]


def test_only_what_changed_is_opened_anew_at_its_own_address(daemon: Daemon) -> None:
    port = free_port()
    daemon.become(APP + GRPC.format(0) + WEB.format(port))
    grpc, web = daemon.there
    assert daemon.become(APP + GRPC.format(0) + WEB.format(port) + "rate_hz = 5.0\n" + NULL) == ()
    assert daemon.there[0] is grpc
    assert web not in daemon.there
    assert {sink.where for sink in daemon.there[1:]} == {f"http://127.0.0.1:{port}", ""}
    daemon.become(APP + NULL)
    assert [type(sink).__name__ for sink in daemon.there] == ["Null"]


def test_a_sink_that_does_not_open_costs_nobody_anything(daemon: Daemon, tmp_path: Path) -> None:
    port = free_port()
    sinks = GRPC.format(port) + WEB.format(0)
    daemon.become(APP + sinks)
    before = list(daemon.there)
    page = Page(before[1].where)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for bad in (
            sinks + GRPC.format(taken.getsockname()[1]),
            sinks.replace(
                '[[sinks]]\nkind = "web"',
                'tls_cert = "none"\ntls_key = "none"\n[[sinks]]\nkind = "web"',
            ),
            sinks + RECORD.format(tmp_path / "app.toml"),
        ):
            with pytest.raises(ConfigError):
                daemon.become(APP + bad, "other")
            assert daemon.there == before
            assert [model.name for model in daemon.sinks.inventory.models] == ["sltnet-twin"]
    assert not page.gone
    with connect(f"127.0.0.1:{port}") as there:
        assert [model.name for model in there.models()] == ["sltnet-twin"]
    assert page.kinds("changed") == []


def test_where_an_address_is_lost_to_another_the_old_sink_comes_back(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    daemon.become(APP + GRPC.format(port))
    make, asked = daemon.sinks._make, []

    def refuse(wish: Any, table: Any = None) -> Sink:
        asked.append(wish.table)
        if len(asked) == 2:  # the first was the trial at another port
            raise ConfigError("somebody was faster")
        return make(wish, table)

    monkeypatch.setattr(daemon.sinks, "_make", refuse)
    errors = daemon.become(APP + GRPC.format(port) + "max_streams = 3\n")
    assert errors == ("somebody was faster",)
    assert [table.get("max_streams") for table in asked] == [3, 3, None]
    assert daemon.there[0].where.endswith(f":{port}")
