"""Addresses to listen at."""

from __future__ import annotations

import pytest

from edgeperc.addresses import bracketed, is_loopback, parse_listen
from edgeperc.errors import ConfigError


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("localhost:0", "localhost", 0),
        ("[::1]:8080", "::1", 8080),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
    ],
)
def test_a_host_and_a_port(listen: str, host: str, port: int) -> None:
    assert parse_listen(listen, "web sink") == (host, port)
    assert f"{bracketed(host)}:{port}" == listen


@pytest.mark.parametrize("listen", ["", "50051", ":50051", "host:", "host:x", "host:65536", "h:-1"])
def test_what_is_no_address_names_who_wanted_it(listen: str) -> None:
    with pytest.raises(ConfigError, match=r'web sink: listen = .*expected "host:port"'):
        parse_listen(listen, "web sink")


def test_only_this_machine_reaches_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(
        map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "robot", "localhost.example", ""])
    )
