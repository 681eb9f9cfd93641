"""Who is let in over gRPC, and who is not: TLS, tokens, roles."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgeperc.errors import ConfigError
from edgeperc.proto.edgeperc.v1 import (
    control_pb2,
    perception_pb2,
    search_pb2,
    tracking_pb2,
)
from edgeperc.proto.edgeperc.v1 import control_pb2_grpc as control_grpc
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.proto.inference import open_inference_pb2
from edgeperc.sink import Inventory
from edgeperc.sinks.grpc import Grpc
from edgeperc.sinks.security import GRANTS, HEALTH, ROLES, Tls, Tokens, server_credentials

from .certificates import Authority

TOKENS = {role: f"{role}-0123456789abcdef" for role in GRANTS}
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED

Start = Callable[..., Grpc]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start sinks that are closed at the end."""
    sinks: list[Grpc] = []

    def started(**options: Any) -> Grpc:
        sinks.append(Grpc(**{"listen": "127.0.0.1:0", "inventory": Inventory(), **options}))
        return sinks[-1]

    yield started
    for sink in sinks:
        sink.close()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# role token\n" + "".join(f"{r} {t}  # one\n" for r, t in TOKENS.items()))
    path.chmod(0o600)
    return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def outcome(channel: grpc.Channel, token: str = "", *, rpc: str = "ListSources") -> Any:
    """Status code of one call; OK is what none of these raises."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    calls = {
        "ListSources": lambda: pb_grpc.PerceptionServiceStub(channel).ListSources(
            perception_pb2.ListSourcesRequest(), metadata=metadata, timeout=20
        ),
        "GetConfig": lambda: control_grpc.ControlServiceStub(channel).GetConfig(
            control_pb2.GetConfigRequest(), metadata=metadata, timeout=20
        ),
        "Session": lambda: list(
            tracking_grpc.TrackingServiceStub(channel).Session(
                iter([tracking_pb2.SessionRequest()]), metadata=metadata, timeout=20
            )
        ),
        "Check": lambda: health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), metadata=metadata, timeout=20
        ),
    }
    try:
        calls[rpc]()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def every_rpc() -> set[str]:
    """Of all services in the .proto files, and the standard ones."""
    files = (perception_pb2, tracking_pb2, control_pb2, search_pb2, open_inference_pb2)
    services = [s for f in files for s in f.DESCRIPTOR.services_by_name.values()]
    return {
        f"/{service.full_name}/{rpc}" for service in services for rpc in service.methods_by_name
    }


def test_every_rpc_of_every_service_has_a_role_and_no_role_is_for_nothing() -> None:
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert {*ROLES} == {*every_rpc(), reflection}
    assert len(every_rpc()) > 25
    assert not {*HEALTH} & {*ROLES}


def test_every_service_that_is_served_is_one_whose_rpcs_have_roles(start: Start) -> None:
    served = start()._server._state.generic_handlers
    names = {handler.service_name() for handler in served}
    assert names <= {rpc.split("/")[1] for rpc in (*ROLES, *HEALTH)}


def test_an_rpc_without_a_role_is_nobodys(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROLES, "/edgeperc.v1.PerceptionService/ListSources")
    with grpc.insecure_channel(start().address) as channel:
        assert outcome(channel) == DENIED


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("read", "read"), ("prompt", "read prompt"), ("steer", "read steer")],
)
def test_a_token_brings_its_role_and_no_more(
    start: Start, tokens: Path, role: str, allowed: str
) -> None:
    """Past the guard, Session and GetConfig end with what the services themselves say."""
    through = {"ListSources": "read", "Session": "prompt", "GetConfig": "admin"}
    with grpc.insecure_channel(start(tokens=str(tokens)).address) as channel:
        for rpc, needed in through.items():
            assert (outcome(channel, TOKENS[role], rpc=rpc) != DENIED) == (needed in allowed)
            assert outcome(channel, TOKENS["admin"], rpc=rpc) not in (DENIED, UNAUTHENTICATED)


def test_without_a_token_or_with_a_wrong_one_there_is_nothing_but_health(
    start: Start, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = start(tokens=str(tokens))
    wrong = TOKENS["admin"][:-1] + "x"
    with grpc.insecure_channel(sink.address) as channel, caplog.at_level(logging.WARNING):
        for rpc in ("ListSources", "Session", "GetConfig"):
            assert outcome(channel, rpc=rpc) == UNAUTHENTICATED
            assert outcome(channel, wrong, rpc=rpc) == UNAUTHENTICATED
        assert outcome(channel, rpc="Check") == grpc.StatusCode.OK
        status = control_grpc.ControlServiceStub(channel).GetStatus
        with pytest.raises(grpc.RpcError):
            status(control_pb2.GetStatusRequest(), timeout=20)
    assert sink._guard.refused == {"unauthenticated": 7}
    assert "unauthenticated: /edgeperc.v1.PerceptionService/ListSources for ipv4" in caplog.text
    assert wrong not in caplog.text
    assert len(caplog.records) < 7


@pytest.mark.parametrize("header", ["{}", "Basic {}", "bearer{}", "Bearer", "Bearer {} {}"])
def test_a_header_that_is_no_bearer_token_is_none(start: Start, tokens: Path, header: str) -> None:
    metadata = [("authorization", header.format(TOKENS["read"], TOKENS["read"]))]
    with (
        grpc.insecure_channel(start(tokens=str(tokens)).address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        pb_grpc.PerceptionServiceStub(channel).ListSources(
            perception_pb2.ListSourcesRequest(), metadata=metadata, timeout=20
        )
    assert caught.value.code() == UNAUTHENTICATED


def test_a_tokens_file_is_read_again_when_it_changes_and_trusted_no_more_when_it_is_open(
    start: Start, tokens: Path
) -> None:
    new = "another-0123456789"
    with grpc.insecure_channel(start(tokens=str(tokens)).address) as channel:
        assert outcome(channel, TOKENS["read"]) == grpc.StatusCode.OK
        tokens.write_text(f"read {new}\n")
        assert outcome(channel, TOKENS["read"]) == UNAUTHENTICATED
        assert outcome(channel, new) == grpc.StatusCode.OK
        tokens.chmod(0o644)
        assert outcome(channel, new) == UNAUTHENTICATED
        tokens.chmod(0o600)
        assert outcome(channel, new) == grpc.StatusCode.OK
        tokens.unlink()
        assert outcome(channel, new) == UNAUTHENTICATED


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("read 0123456789abcdef\n", 0o640, "others may read"),
        ("", 0o600, "has no tokens"),
        ("# nothing\n\n", 0o600, "has no tokens"),
        ("root 0123456789abcdef\n", 0o600, "line 1 is not `role token`"),
        ("read secret-0123456789 more\n", 0o600, "line 1 is not `role token`"),
        ("\nread short\n", 0o600, "line 2 has less than 16 characters"),
        ("read 0123456789abcdef\nadmin 0123456789abcdef\n", 0o600, "another role before"),
    ],
)
def test_a_tokens_file_that_makes_no_sense_is_refused_without_saying_what_it_holds(
    tmp_path: Path, text: str, mode: int, words: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=words) as caught:
        Tokens(path)
    assert "0123456789" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        Tokens(tmp_path / "none")


def trusting(ca: Path, **own: Any) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(ca.read_bytes(), **own)


def own(pair: Any) -> dict[str, bytes]:
    return {"private_key": pair.key.read_bytes(), "certificate_chain": pair.cert.read_bytes()}


def test_tls_lets_in_who_trusts_the_authority_and_nobody_else(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    pair = authority.issue("daemon")
    sink = start(tls_cert=str(pair.cert), tls_key=str(pair.key))
    with grpc.secure_channel(sink.address, trusting(authority.ca)) as channel:
        assert outcome(channel) == grpc.StatusCode.OK
    other = Authority(tmp_path, "other")
    for credentials in (trusting(other.ca), grpc.ssl_channel_credentials()):
        with grpc.secure_channel(sink.address, credentials) as channel:
            assert outcome(channel) == grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(sink.address) as channel:
        assert outcome(channel) == grpc.StatusCode.UNAVAILABLE


def test_a_certificate_that_has_expired_is_refused_and_a_new_one_is_taken_up(
    start: Start, authority: Authority
) -> None:
    pair = authority.issue("daemon", days=(-3, -1))
    sink = start(tls_cert=str(pair.cert), tls_key=str(pair.key))
    with grpc.secure_channel(sink.address, trusting(authority.ca)) as channel:
        assert outcome(channel) == grpc.StatusCode.UNAVAILABLE
    authority.issue("daemon")
    for path in (pair.cert, pair.key):
        os.utime(path, (1, 1))
    with grpc.secure_channel(sink.address, trusting(authority.ca)) as channel:
        assert outcome(channel) == grpc.StatusCode.OK


def test_mutual_tls_wants_a_certificate_of_its_authority_that_has_not_expired(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    pair, client = authority.issue("daemon"), authority.issue("client")
    expired = authority.issue("expired", days=(-3, -1))
    stranger = Authority(tmp_path, "other").issue("stranger")
    sink = start(
        tls_cert=str(pair.cert), tls_key=str(pair.key), client_ca=str(authority.ca), anybody="read"
    )
    with grpc.secure_channel(sink.address, trusting(authority.ca, **own(client))) as channel:
        assert outcome(channel) == grpc.StatusCode.OK
        assert outcome(channel, rpc="GetConfig") == DENIED
    for other in ({}, own(expired), own(stranger)):
        with grpc.secure_channel(sink.address, trusting(authority.ca, **other)) as channel:
            assert outcome(channel) == grpc.StatusCode.UNAVAILABLE


def test_files_that_are_no_certificate_and_key_are_refused(
    authority: Authority, tmp_path: Path
) -> None:
    one, two = authority.issue("one"), authority.issue("two")
    with pytest.raises(ConfigError, match="no certificate and its key"):
        server_credentials(Tls(one.cert, two.key))
    with pytest.raises(ConfigError, match="no such file"):
        server_credentials(Tls(tmp_path / "none", one.key))
    with pytest.raises(ConfigError, match="holds no certificates"):
        server_credentials(Tls(one.cert, one.key, client_ca=one.key))
    one.key.chmod(0o604)
    with pytest.raises(ConfigError, match="others may read"):
        server_credentials(Tls(one.cert, one.key))
    with pytest.raises(ConfigError, match="tls_cert and tls_key, both"):
        Grpc(listen="127.0.0.1:0", inventory=Inventory(), tls_cert=str(one.cert))


def test_an_address_that_others_reach_is_served_with_tls_and_tokens(
    start: Start, authority: Authority, tokens: Path
) -> None:
    pair = authority.issue("daemon")
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    with pytest.raises(ConfigError, match="without asking who it is"):
        start(listen="0.0.0.0:0", **files)
    with pytest.raises(ConfigError, match="without encryption"):
        start(listen="0.0.0.0:0", tokens=str(tokens))
    sink = start(listen="0.0.0.0:0", tokens=str(tokens), **files)
    address = f"127.0.0.1:{sink.address.rpartition(':')[2]}"
    with grpc.secure_channel(address, trusting(authority.ca)) as channel:
        assert outcome(channel) == UNAUTHENTICATED
        assert outcome(channel, TOKENS["read"]) == grpc.StatusCode.OK
        assert outcome(channel, rpc="Check") == grpc.StatusCode.OK  # it comes from this host


def test_health_is_told_to_other_hosts_only_with_a_token(
    start: Start, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeperc.sinks.security.LOOPBACK_PEERS", ("ipv4:10.",))
    with grpc.insecure_channel(start(tokens=str(tokens)).address) as channel:
        assert outcome(channel, rpc="Check") == UNAUTHENTICATED
        assert outcome(channel, TOKENS["read"], rpc="Check") == grpc.StatusCode.OK


def test_whoever_comes_without_tokens_is_admin_on_loopback_and_reads_elsewhere(
    start: Start,
) -> None:
    with grpc.insecure_channel(start().address) as channel:
        assert outcome(channel, rpc="GetConfig") == grpc.StatusCode.FAILED_PRECONDITION
    open_to_all = start(listen="0.0.0.0:0", insecure=True)
    with grpc.insecure_channel(f"127.0.0.1:{open_to_all.address.rpartition(':')[2]}") as channel:
        assert outcome(channel, rpc="GetConfig") == DENIED
        assert outcome(channel) == grpc.StatusCode.OK
