"""Names and pages that may ask, and tokens."""

from __future__ import annotations

from pathlib import Path

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
    (tmp_path / "cert").write_text("nonsense")
    with pytest.raises(ConfigError, match="no certificate"):
        tls_context(tmp_path / "cert", tmp_path / "cert")
