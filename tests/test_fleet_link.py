import socket
import subprocess
import sys

import pytest

from edgeperc import fleet
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.fleet import keys
from edgeperc.fleet.link import Link, Security, check_reach, endpoint, this_device


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("127.0.0.1", "tcp/127.0.0.1:7447"),
        ("robot:7000", "tcp/robot:7000"),
        ("tls/robot", "tls/robot:7447"),
        ("tcp/[::1]:7447", "tcp/[::1]:7447"),
    ],
)
def test_endpoint_may_be_said_shortly(said, meant):
    assert endpoint(said) == meant
    assert fleet.joining(said) == [f"sinks.+={{kind = 'fleet', router = '{meant}'}}"]


@pytest.mark.parametrize("said", ["", "udp/a:1", "a:99999", "a b", "tcp/a:1#x=y", "tcp/'}, {:1"])
def test_what_is_no_endpoint_is_refused(said):
    with pytest.raises(ConfigError, match="is no router"):
        endpoint(said)


def test_networks_want_encryption_or_consent():
    check_reach(["tcp/127.0.0.1:7447", "tcp/[::1]:7447", "tcp/localhost:7447"], Security())
    for each in ("tcp/10.0.0.1:7447", "tcp/0.0.0.0:7447", "tcp/robot:7447", "tcp/127.evil:1"):
        with pytest.raises(ConfigError, match="everybody on the network"):
            check_reach([each], Security())
        check_reach([each], Security(insecure=True))
    with pytest.raises(ConfigError, match="which certificate"):
        check_reach(["tls/robot:7447"], Security())
    with pytest.raises(ConfigError, match="needs a certificate"):
        check_reach(["tls/0.0.0.0:7447"], Security(ca="ca.pem"), "router")
    check_reach(["tls/robot:7447"], Security(ca="ca.pem"))


def test_names_are_single_parts_of_a_key():
    assert keys.device("default", keys.check("device", "robot-7")) == "edgeperc/v1/default/robot-7"
    assert keys.part("a/b*c") == "a_b_c"
    keys.check("device", this_device())
    for name in ("", "*", "a/b", "a b", "@x", "x" * 64):
        with pytest.raises(ConfigError, match="must be letters"):
            keys.check("device", name)


def test_without_a_router_the_error_says_how_to_start_one():
    pytest.importorskip("zenoh")
    with pytest.raises(DeviceError, match="cannot reach") as caught:
        Link(f"tcp/127.0.0.1:{free_port()}")
    assert "edgeperc fleet router" in caught.value.hint


def test_port_that_is_taken_is_told():
    pytest.importorskip("zenoh")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DeviceError, match="cannot listen on"):
            Link(f"tcp/127.0.0.1:{taken.getsockname()[1]}", mode="router")


def test_settings_that_are_not_there_are_told(tmp_path):
    pytest.importorskip("zenoh")
    with pytest.raises(ConfigError, match="no such file"):
        Link("tcp/127.0.0.1:7447", security=Security(config=str(tmp_path / "gone.json5")))


def test_process_that_subscribed_and_forgot_to_close_ends_all_the_same():
    pytest.importorskip("zenoh")
    source = f"""
from edgeperc.fleet.link import Link
from edgeperc.fleet.watcher import Watcher
router = Link("tcp/127.0.0.1:{(port := free_port())}", mode="router")
link = Link("tcp/127.0.0.1:{port}")
watcher = Watcher(link)
print("ends")
"""
    done = subprocess.run(
        [sys.executable, "-c", source], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
