"""Routers that encrypt, and that admit only those whose certificate was signed."""

import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edgeperc.errors import DeviceError
from edgeperc.fleet.orders import ask

pytest.importorskip("zenoh")
sys.path.insert(0, str(Path(__file__).parent))
from certificates import Authority
from fleet_device import FakeDaemon
from test_fleet_link import free_port

from edgeperc.fleet.link import Link, Security
from edgeperc.fleet.watcher import Watcher
from edgeperc.sinks.fleet import Fleet

PATIENCE_S = 40.0


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def names(pair):
    return {"cert": str(pair.cert), "key": str(pair.key)}


def test_device_joins_by_tls_and_a_stranger_to_the_authority_does_not(authority, tmp_path):
    ca, where = str(authority.ca), f"tls/localhost:{free_port()}"
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    router = names(authority.issue("router"))
    robot, person = names(authority.issue("robot")), names(authority.issue("person"))
    with (
        Link(where, mode="router", security=Security(ca=ca, **router)),
        closing(Fleet(router=where, daemon=FakeDaemon(), device="robot-1", ca=ca, **robot)),
        Link(where, security=Security(ca=ca, **person)) as link,
        Watcher(link) as watcher,
    ):
        deadline_s = time.monotonic() + PATIENCE_S
        while not watcher.devices():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert ask(link.session, "default", "robot-1", "GetStatus").app == "test"
        for stranger in (
            Security(ca=ca),  # shows no certificate
            Security(ca=ca, **names(other.issue("stranger"))),  # signed by somebody else
            Security(ca=str(other.ca), **person),  # would trust another router
        ):
            with pytest.raises(DeviceError, match="cannot reach"):
                Link(where, security=stranger)


def test_router_that_asks_for_no_certificate_encrypts_all_the_same(authority):
    where = f"tls/localhost:{free_port()}"
    router = Security(**names(authority.issue("router")))
    with (
        Link(where, mode="router", security=router),
        Link(where, security=Security(ca=str(authority.ca))) as link,
    ):
        assert not link.session.is_closed()
    with pytest.raises(DeviceError, match="cannot reach"):
        Link(where.replace("tls", "tcp"))


def test_access_control_of_zenoh_lies_under_our_settings(tmp_path):
    """Of its file, the rules are taken; that it would be a router elsewhere is not."""
    rules = tmp_path / "acl.json5"
    rules.write_text(
        """{
        mode: "peer", listen: {endpoints: ["tcp/127.0.0.1:1"]},
        access_control: {
            enabled: true, default_permission: "allow",
            rules: [{id: "no orders", permission: "deny", messages: ["query"],
                     flows: ["ingress"], key_exprs: ["edgeperc/v1/*/*/control/**"]}],
            subjects: [{id: "all"}],
            policies: [{rules: ["no orders"], subjects: ["all"]}],
        }}"""
    )
    where = f"tcp/127.0.0.1:{free_port()}"
    with (
        Link(where, mode="router", security=Security(config=str(rules))),
        closing(Fleet(router=where, daemon=FakeDaemon(), device="robot-1")),
        Link(where) as link,
        Watcher(link) as watcher,
    ):
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(device.status for device in watcher.devices()):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        with pytest.raises(DeviceError, match="does not answer"):
            ask(link.session, "default", "robot-1", "GetStatus", timeout_s=2.0)
