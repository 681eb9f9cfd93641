import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgeperc.control import ControlError
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.fleet.orders import ask
from edgeperc.proto.edgeperc.v1 import control_pb2 as pb

pytest.importorskip("zenoh")
sys.path.insert(0, str(Path(__file__).parent))
from fleet_device import FakeDaemon, label_map
from test_fleet_link import free_port

from edgeperc.fleet.link import Link
from edgeperc.fleet.watcher import Watcher, fleet_report
from edgeperc.sinks.fleet import Fleet

PATIENCE_S = 40.0


def until(condition, each=lambda: None):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        each()
        time.sleep(0.05)


@pytest.fixture
def where():
    address = f"tcp/127.0.0.1:{free_port()}"
    with Link(address, mode="router"):
        yield address


def device(where, name, **options):
    return Fleet(router=where, daemon=FakeDaemon(), device=name, max_rate_hz=0, **options)


def test_fleet_sees_who_is_there_and_what_they_see(where):
    with (
        Link(where) as link,
        Watcher(link) as watcher,
        closing(device(where, "robot-1")) as first,
        closing(device(where, "robot-2")),
    ):
        until(lambda: [d.is_here for d in watcher.devices()] == [True, True])
        until(lambda: watcher.devices()[0].results > 2, lambda: first.write(label_map(3)))
        until(lambda: all(d.status for d in watcher.devices()))
        seen = watcher.devices()[0]
        assert np.array_equal(seen.last.labels, label_map(3).labels)
        assert seen.streams == {"wide/net"}
        assert [row["state"] for row in fleet_report(watcher.devices())] == ["serving"] * 2
        first.close()
        until(lambda: [d.is_here for d in watcher.devices()] == [False, True])


def test_orders_reach_the_device_that_is_meant_and_refusals_come_back(where):
    with (
        Link(where) as link,
        closing(device(where, "robot-1")) as first,
        closing(device(where, "robot-2")),
        Watcher(link) as watcher,
    ):
        until(lambda: len(watcher.devices()) == 2)
        session = link.session
        now = ask(session, "default", "robot-1", "GetConfig")
        request = pb.ApplyConfigRequest(toml="rig = 'a-longer-name'", etag=now.etag)
        ask(session, "default", "robot-1", "ApplyConfig", request)
        assert ask(session, "default", "robot-1", "GetConfig").toml == "rig = 'a-longer-name'"
        assert ask(session, "default", "robot-2", "GetConfig").toml == "rig = 'twin'"
        evil = pb.ValidateConfigRequest(toml="./evil.py:Sink")
        with pytest.raises(ControlError, match="names code") as caught:
            ask(session, "default", "robot-1", "ValidateConfig", evil)
        assert caught.value.hint == "name something installed"
        with pytest.raises(DeviceError, match="'robot-9' does not answer"):
            ask(session, "default", "robot-9", "GetStatus")
        with pytest.raises(DeviceError, match="does not answer"):
            ask(session, "others", "robot-1", "GetStatus")
        with pytest.raises(ConfigError, match="device"):
            ask(session, "default", "*", "StartRecording")  # never all at once, by chance
        assert first.lost == 0


def test_device_may_refuse_all_orders(where):
    with (
        Link(where) as link,
        closing(device(where, "robot-1", control=False)),
        Watcher(link) as watcher,
    ):
        until(watcher.devices)
        with pytest.raises(DeviceError, match="does not answer"):
            ask(link.session, "default", "robot-1", "GetStatus", timeout_s=1.0)


def test_order_that_takes_the_sink_itself_away_hangs_nobody(where):
    sink = device(where, "robot-1")
    sink._daemon.stop_recording = sink.close
    with Link(where) as link, Watcher(link) as watcher:
        until(watcher.devices)
        with pytest.raises(DeviceError, match="does not answer"):
            ask(link.session, "default", "robot-1", "StopRecording", timeout_s=3.0)
        until(lambda: not watcher.devices()[0].is_here)
    sink._orders.join(PATIENCE_S)
    assert not sink._orders.is_alive()


def test_device_is_up_before_its_router():
    address = f"tcp/127.0.0.1:{free_port()}"
    with closing(device(address, "early")) as sink:
        until(lambda: sink.lost, lambda: sink.write(label_map(0)))
        with Link(address, mode="router"), Link(address) as link, Watcher(link) as watcher:
            until(lambda: [d.name for d in watcher.devices() if d.is_here] == ["early"])
            until(lambda: watcher.devices()[0].results, lambda: sink.write(label_map(0)))


def test_streams_are_thinned_to_what_was_asked(where):
    sink = Fleet(router=where, daemon=FakeDaemon(), device="slow", max_rate_hz=0.01)
    for seq in range(20):
        sink.write(label_map(seq))
    until(lambda: sink._sending.sent + sink.lost)
    sink.close()
    sink.close()
    assert sink._sending.sent == 1


def test_router_on_a_network_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="everybody on the network"):
        Fleet(router="tcp/10.9.8.7:7447", daemon=FakeDaemon())
