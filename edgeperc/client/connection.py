"""A client's connection to one daemon: TLS, token, and failed calls said in the house's words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from edgeperc.addresses import is_loopback
from edgeperc.errors import ConfigError, DeviceError, EdgepercError
from edgeperc.proto.retry import FROM_DAEMON, retry_s_of

DEFAULT_PORT = 50051
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),  # a raw map of a large sensor exceeds 4 MB
    ("grpc.enable_http_proxy", 0),  # a robot is never behind the web proxy
    ("grpc.max_reconnect_backoff_ms", 5_000),  # of itself it would go up to two minutes
    ("grpc.keepalive_time_ms", 20_000),  # notices a daemon that lost its network
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_REFUSALS = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
}


class NotYetError(DeviceError):
    """The daemon is there and cannot answer yet. retry_s: it thinks that another try is worth while
    after so long.
    """

    def __init__(self, message: str, *, retry_s: float) -> None:
        super().__init__(message, hint=f"try again in {retry_s:g} s")
        self.retry_s = retry_s


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a daemon may ask for. tls_ca: PEM of the authority that signed the daemon's certificate.

    tls: encrypt by the system's authorities, where there is no tls_ca. cert, key: PEM files of this
    client's own certificate, for daemons with client_ca. server_name: in the daemon's certificate,
    where it differs from the address, as behind a tunnel. token: as in the daemon's tokens file.
    insecure: show the token also to who is neither on this host nor behind TLS.
    """

    token: str = ""
    tls_ca: str | Path = ""
    cert: str | Path = ""
    key: str | Path = ""
    server_name: str = ""
    tls: bool = False
    insecure: bool = False

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is wanted."""
        return bool(self.tls or self.tls_ca or self.cert or self.key)

    def credentials(self) -> grpc.ChannelCredentials:
        """What TLS needs. Raises ConfigError for a file that cannot be read."""
        if bool(self.cert) != bool(self.key):
            raise ConfigError("a client's certificate needs its key, and a key its certificate")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.tls_ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.cert),
        )


def _read(path: str | Path) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _said_by_daemon(message: str, retry_s: float | None) -> DeviceError:
    return DeviceError(message) if retry_s is None else NotYetError(message, retry_s=retry_s)


class Connection:
    """Calls to the daemon at "host:port". May be used from several threads."""

    def __init__(self, address: str, access: Access, *, timeout_s: float) -> None:
        self.address = address if ":" in address else f"{address}:{DEFAULT_PORT}"
        self.timeout_s = timeout_s
        host = self.address.rpartition(":")[0].strip("[]")
        if access.token and not (access.is_encrypted or access.insecure or is_loopback(host)):
            raise ConfigError(
                f"the token would cross the network to {host} for everybody to read",
                hint="give tls_ca (--ca), or take a tunnel: ssh -L 50051:127.0.0.1:50051",
            )
        self._metadata = [("authorization", f"Bearer {access.token}")] if access.token else []
        self._is_encrypted = access.is_encrypted
        options: list[tuple[str, int | str]] = list(CHANNEL_OPTIONS)
        if access.server_name:
            options.append(("grpc.ssl_target_name_override", access.server_name))
        if access.is_encrypted:
            self.channel = grpc.secure_channel(self.address, access.credentials(), options=options)
        else:
            self.channel = grpc.insecure_channel(self.address, options=options)

    def ask(
        self,
        rpc: Callable[..., Any],
        request: Any,
        *,
        timeout_s: float = 0.0,
        patience_s: float = 0.0,
    ) -> Any:
        """The answer to one request. Raises ConfigError, DeviceError.

        patience_s: while the daemon says that it cannot answer yet, it is asked again for so long,
        after the pauses that it asks for.
        """
        end_s = time.monotonic() + patience_s
        while True:
            try:
                return self.call(rpc, request, timeout=timeout_s or self.timeout_s)
            except grpc.RpcError as error:
                said = self.readable(error)
                left_s = end_s - time.monotonic()
                if not isinstance(said, NotYetError) or left_s <= 0:
                    raise said from error
            time.sleep(min(said.retry_s, left_s))

    def call(self, rpc: Callable[..., Any], request: Any, **options: Any) -> Any:
        """Begin a call. Raises DeviceError once the connection is closed."""
        try:
            return rpc(request, metadata=self._metadata, **options)
        except ValueError as error:  # what grpc says of a closed channel
            raise DeviceError(f"the connection to {self.address} is closed") from error

    def close(self) -> None:
        """End all calls; may be called twice, from any thread."""
        self.channel.close()

    def readable(self, error: Any) -> EdgepercError:
        """Say a failed call in the house's words. error: a grpc.Call that has ended."""
        code, details = error.code(), error.details() or ""
        if code in _REFUSALS:
            return ConfigError(f"{self.address}: {details}")
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return ConfigError(
                f"{self.address}: {details}",
                hint="give the token of a role that may: token=, --token-file or EDGEPERC_TOKEN",
            )
        said = [tuple(pair) for pair in error.trailing_metadata() or ()]
        if FROM_DAEMON in said:
            return _said_by_daemon(f"{self.address}: {details}", retry_s_of(said))
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return self._unreachable(code, details)
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return DeviceError(
                f"what answers at {self.address} is no edgeperc daemon, or a much older one",
                hint="edgeperc serve prints the address that it listens on",
            )
        return DeviceError(f"{self.address}: {details} ({code.name.lower()})")

    def _unreachable(self, code: grpc.StatusCode, details: str) -> DeviceError:
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeviceError(
                f"{self.address}: no answer in time",
                hint="is a daemon there, and is it busy? A longer timeout_s waits for it",
            )
        if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verification" in details:
            return DeviceError(
                f"{self.address}: its certificate is not one to be trusted",
                hint="tls_ca (--ca) must be who signed it, the address must be in it, and it must"
                " not have expired",
            )
        if self._is_encrypted and "refused" not in details:
            return DeviceError(
                f"no daemon at {self.address} that speaks TLS and accepts this client",
                hint="if it has client_ca, give cert and key that it has signed",
            )
        tls = "" if "refused" in details else "; if it has TLS, give tls_ca (--ca)"
        return DeviceError(
            f"no daemon at {self.address}", hint=f"start one with: edgeperc serve{tls}"
        )
