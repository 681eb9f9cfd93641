"""A session with a fleet's router, which is left in an orderly way whatever happens.

    with Link("tcp/127.0.0.1:7447") as link:
        link.session.put("edgeperc/v1/default/robot-7/status", data)

A process that has subscribed and ends without closing its session can hang for ever: a Link is
closed by `with`, and once more when the interpreter ends.
"""

from __future__ import annotations

import atexit
import json
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from edgeperc.addresses import is_loopback
from edgeperc.errors import ConfigError, DeviceError

LEASE_S = 5
"""A link that is silent for so long is over; each side says something four times as often."""
DEFAULT_PORT = 7447


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What a link asks for. ca: certificate that signed the other side's. cert, key: our own, where
    the router wants one. insecure: go to other machines without encryption or passwords. config: a
    file of Zenoh's own settings, JSON5, which lie under ours: access control, for one.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    config: str = ""


class Link:
    """A session by way of a router, or the router itself.

    endpoints: "tcp/HOST:PORT" or "tls/HOST:PORT"; HOST alone means tcp and 7447. Raises ConfigError
    for what cannot be meant, DeviceError if nobody answers there.
    """

    def __init__(
        self,
        *endpoints: str,
        mode: Literal["client", "router"] = "client",
        security: Security | None = None,
        lease_s: int = LEASE_S,
    ) -> None:
        security = security or Security()
        self.endpoints = tuple(endpoint(each) for each in endpoints)
        check_reach(self.endpoints, security, mode)
        try:
            import zenoh
        except ModuleNotFoundError as error:
            raise ConfigError(
                "fleets need eclipse-zenoh, which is not installed",
                hint="pip install 'edgeperc[fleet]'",
            ) from error
        try:
            config = _config(zenoh, self.endpoints, mode, security, lease_s)
        except zenoh.ZError as error:
            raise ConfigError(f"fleet: Zenoh refuses its settings: {_short(error)}") from error
        try:
            self.session: Any = zenoh.open(config)
        except zenoh.ZError as error:
            verb, hint = "reach", "is the router up? edgeperc fleet router starts one"
            if mode == "router":
                verb, hint = (
                    "listen on",
                    "is a router up already? --listen tcp/HOST:PORT takes another",
                )
            where = ", ".join(self.endpoints)
            raise DeviceError(
                f"fleet: cannot {verb} {where}: {_short(error)}", hint=hint
            ) from error
        atexit.register(self.close)

    def close(self) -> None:
        """Leave; may be called twice."""
        atexit.unregister(self.close)
        if not self.session.is_closed():
            self.session.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def endpoint(text: str) -> str:
    """An endpoint as Zenoh writes it. Raises ConfigError."""
    found = re.fullmatch(r"(?:(tcp|tls)/)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", text)
    if found is None or int(found[3] or 0) > 65535:
        raise ConfigError(f'"{text}" is no router', hint='as in "tcp/127.0.0.1:7447"')
    return f"{found[1] or 'tcp'}/{found[2]}:{found[3] or DEFAULT_PORT}"


def check_reach(endpoints: Sequence[str], security: Security, mode: str = "client") -> None:
    """Raise ConfigError for endpoints that are reached over a network in the open."""
    for each in endpoints:
        scheme, _, place = each.partition("/")
        if scheme == "tls":
            if mode == "client" and not (security.ca or security.config):
                raise ConfigError(
                    f"{each}: which certificate is to be trusted?", hint="name one: ca = ..."
                )
            if mode == "router" and not ((security.cert and security.key) or security.config):
                raise ConfigError(f"{each}: needs a certificate and its key")
        elif not (security.insecure or is_loopback(place.rpartition(":")[0].strip("[]"))):
            raise ConfigError(
                f"{each}: everybody on the network could watch and steer the fleet",
                hint="use tls/..., or say insecure if the network is trusted",
            )


def this_device() -> str:
    """A name for this machine: its host name, as far as it may be one."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63].lstrip("._-") or "device"


def _config(
    zenoh: Any, endpoints: Sequence[str], mode: str, security: Security, lease_s: int
) -> Any:
    if security.config and not Path(security.config).is_file():
        raise ConfigError(f"{security.config}: no such file")
    config = zenoh.Config.from_file(security.config) if security.config else zenoh.Config()
    is_router = mode == "router"
    settings: dict[str, Any] = {
        "mode": mode,
        "listen/endpoints" if is_router else "connect/endpoints": list(endpoints),
        "scouting/multicast/enabled": False,  # nobody is found by chance
        "scouting/gossip/enabled": False,
        "transport/link/tx/lease": lease_s * 1000,
    }
    if is_router:
        settings["connect/endpoints"] = []
    if security.ca:
        settings["transport/link/tls/root_ca_certificate"] = security.ca
    for name, path in (("certificate", security.cert), ("private_key", security.key)):
        if path:
            side = "listen" if is_router else "connect"
            settings[f"transport/link/tls/{side}_{name}"] = path
    if (security.ca if is_router else security.cert) and not security.config:
        settings["transport/link/tls/enable_mtls"] = True
    for name, value in settings.items():
        config.insert_json5(name, json.dumps(value))
    return config


def _short(error: Exception) -> str:
    """An error of Zenoh's without the line of its source that found it."""
    return re.sub(r"\s+at /\S+\.rs:\d+\.?", "", str(error)).strip()
