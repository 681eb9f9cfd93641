"""Who may do what over gRPC: TLS, tokens, and a role for every rpc.

    guard = Guard(tokens=Tokens(Path("tokens")), is_local=False)
    server = grpc.server(pool, interceptors=[guard])
    server.add_secure_port(address, server_credentials(Tls(cert, key, client_ca)))

A tokens file holds lines `role token`; it is read again when it changes. Where it cannot be read,
or others could read it, nobody is let in until that is mended.
"""

from __future__ import annotations

import hmac
import logging
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import grpc

from edgeperc.addresses import is_loopback
from edgeperc.errors import ConfigError

log = logging.getLogger("edgeperc")

Role = Literal["read", "prompt", "steer", "admin"]
GRANTS: dict[Role, frozenset[Role]] = {
    "read": frozenset({"read"}),
    "prompt": frozenset({"read", "prompt"}),
    "steer": frozenset({"read", "steer"}),
    "admin": frozenset(get_args(Role)),
}
"""What a role allows."""

_BY_SERVICE: dict[str, dict[Role, str]] = {
    "edgeperc.v1.PerceptionService": {
        "read": "ListSources ListModels Subscribe GetLatest",
        "prompt": "Segment",
    },
    "edgeperc.v1.TrackingService": {
        "read": "Watch",
        "prompt": "Session CreateSession AddPrompts RemoveObjects DeleteSession",
    },
    "edgeperc.v1.ControlService": {
        "read": "GetStatus",
        "admin": "GetConfig ValidateConfig ApplyConfig LoadModel UnloadModel"
        " StartRecording StopRecording",
    },
    "edgeperc.v1.SearchService": {
        "read": "GetMirrorState",
        "steer": "AcquireSteering RenewSteering ReleaseSteering PointAt Scan Stop",
    },
    "inference.GRPCInferenceService": {
        "read": "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata RepositoryIndex",
        "prompt": "ModelInfer ModelStreamInfer",
    },
    "grpc.reflection.v1alpha.ServerReflection": {"read": "ServerReflectionInfo"},
}
ROLES: dict[str, Role] = {
    f"/{service}/{rpc}": role
    for service, roles in _BY_SERVICE.items()
    for role, rpcs in roles.items()
    for rpc in rpcs.split()
}
"""What each rpc asks for. One that is missing here is refused to everybody."""
HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
"""Open to callers on this host, who may be containers' probes; "read" for all others."""

SHORTEST_TOKEN = 16
LOOPBACK_PEERS = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")
_LOG_EVERY_S = 1.0
_OTHERS = 0o077
_WORLD = 0o007


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. client_ca: whoever connects must show a certificate that it has signed."""

    cert: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials of a server that takes up its files anew when they change, as they expire.

    Raises ConfigError for files that are missing, do not fit each other or are open to the world.
    """
    check_files(tls)
    current = _configuration(tls)
    seen = changed_at(tls)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        if (now := changed_at(tls)) == seen:
            return None
        seen = now
        try:
            check_files(tls)
            return _configuration(tls)
        except (ConfigError, OSError) as error:
            log.warning("grpc: the old certificate stays: %s", error)
            return None

    return grpc.dynamic_ssl_server_credentials(
        current, renewed, require_client_authentication=tls.client_ca is not None
    )


def _configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    authority = tls.client_ca.read_bytes() if tls.client_ca else None
    pair = (tls.key.read_bytes(), tls.cert.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)


def changed_at(tls: Tls) -> tuple[float, ...]:
    """When the files last changed; another value means that they are to be read again."""
    files = (tls.cert, tls.key, *([tls.client_ca] if tls.client_ca else []))
    return tuple(file.stat().st_mtime if file.exists() else 0.0 for file in files)


def check_files(tls: Tls) -> None:
    """Raise ConfigError for files that are missing, no pair, or open to the world."""
    for path in (tls.cert, tls.key, *([tls.client_ca] if tls.client_ca else [])):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
    _refuse_open(tls.key, _WORLD)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"{tls.cert} and {tls.key} are no certificate and its key: {error}",
            hint="both in PEM, the key without a password",
        ) from error
    try:
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{tls.client_ca}: holds no certificates in PEM: {error}") from error


def _no_password() -> str:
    raise ValueError("the key has a password")


class Tokens:
    """The tokens of a file, each with its role; read again when the file changes.

    Raises ConfigError at first for a file that does not make sense, or that others can read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = self._state()
        self._roles = _read_tokens(path)

    def role(self, token: str) -> Role | None:
        """The role that a token brings; None for one that is not known.

        Takes the same time for every token of a length, however much of it is right.
        """
        given, found = token.encode(), None
        for known, role in self._current().items():
            if hmac.compare_digest(known, given):
                found = role
        return found

    def _current(self) -> dict[bytes, Role]:
        with self._lock:
            if (state := self._state()) != self._seen:
                self._seen = state
                try:
                    self._roles = _read_tokens(self._path)
                    log.info("grpc: %s was read again", self._path)
                except ConfigError as error:
                    self._roles = {}
                    log.warning("grpc: nobody is let in: %s", error)
            return self._roles

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_mode, found.st_ino


def _read_tokens(path: Path) -> dict[bytes, Role]:
    try:
        _refuse_open(path, _OTHERS)
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"{path}: {reason}", hint="lines of: role token") from error
    roles: dict[bytes, Role] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in GRANTS:
            raise ConfigError(  # never what the line says, which may be a secret
                f"{path}: line {number} is not `role token`",
                hint=f"role is one of {', '.join(GRANTS)}",
            )
        role, token = words
        if len(token) < SHORTEST_TOKEN:
            raise ConfigError(
                f"{path}: the token of line {number} has less than {SHORTEST_TOKEN} characters",
                hint="openssl rand -hex 32 makes a good one",
            )
        if roles.setdefault(token.encode(), role) != role:  # type: ignore[arg-type]
            raise ConfigError(f"{path}: the token of line {number} has another role before")
    if not roles:
        raise ConfigError(f"{path}: has no tokens", hint="lines of: role token")
    return roles


def _refuse_open(path: Path, others: int) -> None:
    if path.stat().st_mode & others:
        raise ConfigError(
            f"{path}: holds a secret, and others may read or change it", hint=f"chmod 600 {path}"
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is turned away."""

    code: grpc.StatusCode
    message: str


class Guard(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets calls through to those whose role allows them; counts and logs all others.

    tokens: None asks for none; then everybody has `anybody`, which is the role of whoever may
    connect at all: on loopback, or with a certificate.
    """

    def __init__(self, *, tokens: Tokens | None = None, anybody: Role = "admin") -> None:
        self._tokens, self._anybody = tokens, anybody
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self._unlogged, self._next_log_s = 0, 0.0

    @property
    def refused(self) -> dict[str, int]:
        """Calls turned away so far, by status code's name."""
        with self._lock:
            return dict(self._refused)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Let the call through, or answer it in place of its handler."""
        method: str = details.method
        handler = continuation(details)
        if handler is None or method in HEALTH:  # unknown here, or asks by itself
            return handler
        refusal = self._judge(method, details.invocation_metadata)
        return handler if refusal is None else self._turn_away(method, refusal)

    def admit_to_health(self, context: grpc.ServicerContext) -> None:
        """Let everybody on this host know how it is; abort the call of others without a token."""
        if not context.peer().startswith(LOOPBACK_PEERS):
            refusal = self._judge(HEALTH[0], context.invocation_metadata())
            if refusal:
                self._abort(HEALTH[0], refusal, context)

    def _judge(self, method: str, metadata: Any) -> Refusal | None:
        wanted = "read" if method in HEALTH else ROLES.get(method)
        role: Role | None = self._anybody
        if self._tokens:
            token = _bearer(metadata)
            role = self._tokens.role(token) if token else None
            if role is None:
                said = "the token is not known" if token else "a token is needed"
                return Refusal(
                    grpc.StatusCode.UNAUTHENTICATED, f"{said}: `authorization: Bearer TOKEN`"
                )
        if role is None or wanted not in GRANTS[role]:
            name = method.rpartition("/")[2]
            return Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{name} needs the role {wanted or 'of nobody'}, this is {role}",
            )
        return None

    def _turn_away(self, method: str, refusal: Refusal) -> grpc.RpcMethodHandler:
        def answer(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            self._abort(method, refusal, context)
            return iter(())

        # Streams on both sides: answered before anything was received.
        return grpc.stream_stream_rpc_method_handler(answer)

    def _abort(self, method: str, refusal: Refusal, context: grpc.ServicerContext) -> None:
        name = refusal.code.name.lower()
        with self._lock:
            self._refused[name] += 1
            is_due = time.monotonic() >= self._next_log_s
            if is_due:
                more, self._unlogged = self._unlogged, 0
                self._next_log_s = time.monotonic() + _LOG_EVERY_S
            else:
                self._unlogged += 1
        if is_due:
            log.warning(
                "grpc: %s: %s for %s%s",
                name.replace("_", " "),
                method,
                context.peer(),
                f"; and {more:,} more" if more else "",
            )
        context.abort(refusal.code, refusal.message)


def _bearer(metadata: Any) -> str:
    """The token of a call's metadata, or ""."""
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str):
            kind, _, token = value.partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""


def check_exposure(host: str, who: str, *, encrypted: bool, asks: bool) -> None:
    """Raise ConfigError for an address that others reach, unless it is encrypted and asks who.

    who: the sink, for the message.
    """
    if is_loopback(host) or (encrypted and asks):
        return
    lacks = "without asking who it is" if encrypted else "without encryption"
    raise ConfigError(
        f"{who}: {host} would serve everybody on the network {lacks}",
        hint="set tls_cert, tls_key, and tokens or client_ca; or listen on 127.0.0.1; or set"
        " insecure = true (edgeperc serve --insecure) if the network is trusted",
    )
