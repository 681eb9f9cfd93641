"""Clients that come while networks are being loaded, or a sensor is lost, hear of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeperc.client import Client, connect
from edgeperc.client.connection import NotYetError
from edgeperc.control import DaemonStatus, Preparing, WorkerStatus
from edgeperc.errors import ConfigError
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import SourceInfo
from edgeperc.sinks import waiting as module
from edgeperc.sinks.grpc import Grpc
from edgeperc.status import SensorStatus

BUILDING = WorkerStatus(
    name="pipelines/events",
    state="starting",
    preparing=Preparing(model="regions-twin", network="n.onnx", number=1, count=2, seconds=41.0),
)
WELL = DaemonStatus(version="1", app="events", state="starting", uptime_s=1.0)


class Starting:
    """A daemon whose networks are not there yet, nor its models and trackers."""

    steering = None

    def __init__(self) -> None:
        self.now = replace(WELL, workers=(BUILDING,))
        self.asked = 0

    def status(self) -> DaemonStatus:
        self.asked += 1
        return self.now


class Live:
    sources = (SourceInfo(name="dvs", driver="twin"),)
    models: tuple[ModelRef, ...] = ()


@pytest.fixture
def daemon() -> Starting:
    return Starting()


@pytest.fixture
def live() -> Live:
    return Live()


@pytest.fixture
def client(daemon: Starting, live: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    inventory: Any = live
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory, daemon=daemon)  # type: ignore[arg-type]
    with connect(sink.address) as client:
        yield client
    sink.close()


def test_what_comes_too_early_is_told_what_it_waits_for(client: Client) -> None:
    doing = r"pipelines/events: preparing regions-twin: n.onnx, 1 of 2, 41 s"
    with pytest.raises(NotYetError, match=f"no such result has come yet: {doing}"):
        client.latest()
    picture = np.zeros((64, 64), np.uint8)
    for ask in (
        lambda: client.segment(picture, "regions-twin", timeout_s=0.5),
        client.track,
        client.create_session,
    ):
        with pytest.raises(NotYetError, match=f"networks are not ready yet: {doing}"):
            ask()
    with pytest.raises(ConfigError, match="not loaded"):
        client.segment(picture, "finder-twin")  # nobody prepares that


def test_segment_waits_until_the_networks_are_there(
    client: Client, daemon: Starting, live: Live
) -> None:
    def status() -> DaemonStatus:
        live.models = (ModelRef(name="regions-twin"),)  # from the second try on
        return daemon.now

    daemon.status = status  # type: ignore[method-assign]
    found = client.segment(np.zeros((64, 64), np.uint8), "regions-twin", timeout_s=60)
    assert isinstance(found, LabelMap)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (WELL, "the daemon has just begun"),
        (replace(WELL, workers=(replace(BUILDING, preparing=None),)), "pipelines/events: starting"),
    ],
)
def test_before_anything_is_said_of_networks_they_may_still_come(
    client: Client, daemon: Starting, now: DaemonStatus, words: str
) -> None:
    daemon.now = now
    with pytest.raises(NotYetError, match=words):
        client.track()


def test_a_lost_sensor_is_named(client: Client, daemon: Starting) -> None:
    lost = SensorStatus(name="dvs", state="lost", error="unplugged")
    running = WorkerStatus(name="pipelines/events", state="running")
    sensors = (lost, SensorStatus(name="wide"))
    daemon.now = replace(WELL, sensors=sensors, workers=(running,))
    with pytest.raises(NotYetError, match="no such result has come yet: dvs is lost: unplugged$"):
        client.latest()


def test_what_will_never_be_there_is_not_waited_for(client: Client, daemon: Starting) -> None:
    daemon.now = replace(WELL, state="serving")
    with pytest.raises(ConfigError, match="not loaded"):
        client.segment(np.zeros((64, 64), np.uint8), "regions-twin")
    with pytest.raises(ConfigError, match="there is: none"):
        client.track()
    with pytest.raises(NotYetError, match="no such result has come yet$"):
        client.latest()


def test_many_who_ask_cost_one_status(client: Client, daemon: Starting) -> None:
    module.FRESH_S = 600.0  # put back by the fixture
    for _ in range(10):
        with pytest.raises(NotYetError):
            client.latest()
    assert daemon.asked <= 2
