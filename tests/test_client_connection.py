"""Who a client is to a daemon: a certificate of its own, and what is said to one without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeperc.client import connect
from edgeperc.client.connection import Access
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc

from .certificates import Authority, Pair
from .test_client import label_map


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def sink(authority: Authority) -> Iterator[Grpc]:
    """It wants a certificate that the authority has signed, and asks for no token."""
    pair = authority.issue("daemon")
    sink = Grpc(
        listen="127.0.0.1:0",
        inventory=Inventory(sources=(SourceInfo(name="dvs", driver="twin"),)),
        tls_cert=str(pair.cert),
        tls_key=str(pair.key),
        client_ca=str(authority.ca),
        anybody="read",
    )
    yield sink
    sink.close()


@pytest.fixture
def robot(authority: Authority) -> Pair:
    return authority.issue("robot")


def test_a_client_with_its_certificate_is_let_in_for_every_kind_of_call(
    sink: Grpc, authority: Authority, robot: Pair
) -> None:
    with connect(sink.address, tls_ca=authority.ca, cert=robot.cert, key=str(robot.key)) as client:
        assert [source.name for source in client.sources()] == ["dvs"]
        results = client.subscribe()
        sink.write(label_map(3))
        assert next(results).result.stamp.seq == 3
        assert client.latest().result.stamp.seq == 3
        assert client.is_healthy()
        with pytest.raises(ConfigError, match="LoadModel needs the role admin"):
            client.load("regions-twin")


def test_a_client_without_one_is_refused_and_told_what_to_give(
    sink: Grpc, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="accepts this client") as caught:
        connect(sink.address, tls_ca=authority.ca)
    assert "give cert and key" in caught.value.hint
    with pytest.raises(DeviceError, match="no daemon"):
        connect(sink.address)  # nor in the open
    stranger = Authority(tmp_path, "other").issue("stranger")
    with pytest.raises(DeviceError, match="accepts this client"):
        connect(sink.address, tls_ca=authority.ca, cert=stranger.cert, key=stranger.key)
    old = authority.issue("old", days=(-3, -1))
    with pytest.raises(DeviceError, match="accepts this client"):
        connect(sink.address, tls_ca=authority.ca, cert=old.cert, key=old.key)


def test_a_certificate_without_its_key_or_file_is_said(
    sink: Grpc, authority: Authority, robot: Pair, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a client's certificate needs its key"):
        connect(sink.address, tls_ca=authority.ca, cert=robot.cert)
    with pytest.raises(ConfigError, match="needs its key, and a key its certificate"):
        connect(sink.address, access=Access(tls_ca=authority.ca, key=robot.key))
    with pytest.raises(ConfigError, match="none: No such file"):
        connect(sink.address, tls_ca=authority.ca, cert=tmp_path / "none", key=robot.key)


def test_the_command_line_shows_its_certificate_too(
    sink: Grpc, authority: Authority, robot: Pair
) -> None:
    sink.write(label_map(1))  # from now on it is well
    command = [sys.executable, "-m", "edgeperc", "health", sink.address, "--ca", authority.ca]
    found = subprocess.run(
        [*command, "--cert", robot.cert, "--key", robot.key],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1
    assert "accepts this client" in refused.stderr
