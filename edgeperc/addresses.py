"""Addresses to listen at: HOST:PORT, and whether other machines reach them."""

from __future__ import annotations

import ipaddress

from edgeperc.errors import ConfigError


def parse_listen(listen: str, who: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6 host]:port". who: the sink, for the ConfigError."""
    host, _, port = listen.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f'{who}: listen = "{listen}", expected "host:port"')
    return host.strip("[]"), int(port)


def bracketed(host: str) -> str:
    """A host as addresses have it: one of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name other than localhost is not trusted."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
