"""Names and pages that may ask, and tokens."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from edgeperc.errors import ConfigError
from edgeperc.sinks.security import Tokens
from edgeperc.sinks.web_guard import Guard, allows, tls_context

READER, ADMIN = "reader-0123456789", "admin-0123456789a"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text(f"read {READER}\nadmin {ADMIN}\n")
    return Tokens(path)


def asked(guard: Guard, **headers: str) -> int:
    """Status of the refusal, or 0."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    refusal = guard._refusal(make_mocked_request("GET", "/", headers=named))
    return refusal.status if refusal else 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 0),
        ("LocalHost", 0),
        ("127.0.0.1:9", 0),
        ("[::1]:8080", 0),
        ("10.1.2.3", 0),
        ("robot.lan:8080", 0),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_only_known_names_are_answered(host: str, status: int) -> None:
    assert asked(Guard(tokens=None, hosts=["Robot.lan"]), Host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 0),
        ("http://localhost:8081", 403),
        ("https://localhost:8080", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ],
)
def test_only_our_own_page_may_ask(origin: str, status: int) -> None:
    assert asked(Guard(tokens=None), Host="localhost:8080", Origin=origin) == status


def test_a_token_brings_its_role_by_header_or_by_cookie(tokens: Tokens) -> None:
    guard = Guard(tokens=tokens)
    assert guard.asks_for_token
    assert guard.role(make_mocked_request("GET", "/")) is None
    with_token = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {READER}"})
    assert guard.role(with_token) == "read"
    response = web.Response()
    assert not guard.log_in("no such token at all", response)
    assert not response.cookies
    assert guard.log_in(ADMIN, response)
    (cookie,) = response.cookies.values()
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert ADMIN not in cookie.value
    again = make_mocked_request("GET", "/", headers={"Cookie": f"{cookie.key}={cookie.value}"})
    assert guard.role(again) == "admin"
    stolen = make_mocked_request("GET", "/", headers={"Cookie": f"{cookie.key}={ADMIN}"})
    assert guard.role(stolen) is None


def test_roles_contain_each_other_as_over_grpc() -> None:
    assert allows("admin", "prompt")
    assert allows("prompt", "read")
    assert not allows("read", "prompt")
    assert not allows("prompt", "admin")


def test_files_that_are_no_certificate_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "cert").touch(0o600)
    (tmp_path / "cert").write_text("nonsense")
    with pytest.raises(ConfigError, match="no certificate"):
        tls_context(tmp_path / "cert", tmp_path / "cert")


def answering(context: ssl.SSLContext, trusted: ssl.SSLContext, name: str | None) -> Any:
    """The serial number that a server with `context` shows, or the error. name: in the greeting."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusted.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    shown = client.getpeercert()
    assert shown
    return shown["serialNumber"]


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_certificate_that_was_renewed_is_taken_up_and_one_that_is_broken_is_not(
    tmp_path: Path, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    from .certificates import Authority

    authority = Authority(tmp_path)
    pair = authority.issue("daemon")
    context = tls_context(pair.cert, pair.key)
    trusted = ssl.create_default_context(cafile=authority.ca)
    trusted.check_hostname = name is not None
    first = answering(context, trusted, name)
    assert answering(context, trusted, name) == first

    authority.issue("daemon")
    for path in (pair.cert, pair.key):
        os.utime(path, (1, 1))  # whatever the clock of the disk
    second = answering(context, trusted, name)
    assert second != first

    whole = pair.key.read_bytes()
    pair.key.write_bytes(b"half a ke")
    assert answering(context, trusted, name) == second
    assert "web: the old certificate stays" in caplog.text
    pair.key.write_bytes(whole)
    os.utime(pair.key, (2, 2))
    assert answering(context, trusted, name) == second
    pair.cert.unlink()
    assert answering(context, trusted, name) == second


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    from .certificates import Authority

    pair = Authority(tmp_path).issue("daemon")
    pair.key.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        tls_context(pair.cert, pair.key)
