"""Who may look, and from where: Host, Origin, token, and headers that keep the page to itself.

A page of a stranger that a browser has open can reach 127.0.0.1, and can point a name of its own
there (DNS rebinding). So requests must name a host that this daemon is known by, and those that a
page sends must come from our own.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from edgeperc.errors import ConfigError, blame
from edgeperc.sinks.security import GRANTS, Role, Tls, Tokens, changed_at, check_files

log = logging.getLogger("edgeperc")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
        " connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
    "Server": "edgeperc",
}
_MOST_LOGINS = 64
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Checks of every request. tokens: None lets everybody in who can connect, as "admin".

    hosts: names besides localhost, this machine's and IP addresses, to which no name can be
    rebound.
    """

    def __init__(
        self, *, tokens: Tokens | None, hosts: Sequence[str] = (), secure: bool = False
    ) -> None:
        machine = socket.gethostname().lower()
        self._hosts = {"localhost", machine, f"{machine}.local", *(h.lower() for h in hosts)}
        self._tokens, self._secure = tokens, secure
        self._cookie = f"edgeperc-{secrets.token_hex(4)}"  # ports of one host share their cookies
        self._logins: OrderedDict[str, str] = OrderedDict()

    @property
    def asks_for_token(self) -> bool:
        """Whether clients must show one."""
        return self._tokens is not None

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests of strange names and pages; put our headers on all answers."""
        refusal = self._refusal(request)
        try:
            response = refusal or await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def role(self, request: web.Request) -> Role | None:
        """What a client may do; None if it must show a token first."""
        if self._tokens is None:
            return "admin"
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            token = self._logins.get(request.cookies.get(self._cookie, ""), "")
        return self._tokens.role(token.strip()) if token else None

    def log_in(self, token: str, response: web.StreamResponse) -> bool:
        """Give a browser that knows a token a cookie, as pages cannot send headers with sockets."""
        if self._tokens is None or self._tokens.role(token) is None:
            return False
        login = secrets.token_urlsafe(32)
        self._logins[login] = token
        while len(self._logins) > _MOST_LOGINS:
            self._logins.popitem(last=False)
        response.set_cookie(
            self._cookie, login, httponly=True, samesite="Strict", secure=self._secure, path="/"
        )
        return True

    def _refusal(self, request: web.Request) -> web.Response | None:
        host = request.headers.get("Host", "")
        if not self._knows(host):
            return web.Response(
                status=421,
                text="this name is not known here; add it to `hosts` of the web sink\n",
            )
        origin = request.headers.get("Origin")
        if origin is not None:
            asked = urlsplit(origin)
            scheme = "https" if self._secure else "http"
            if (asked.scheme, asked.netloc.lower()) != (scheme, host.lower()):
                return web.Response(status=403, text="another site's page may not ask here\n")
        return None

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def allows(role: Role, wanted: Role) -> bool:
    """Whether one role contains the other."""
    return wanted in GRANTS[role]


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """For a server that takes up its files anew when they change, as those of gRPC do.

    Raises ConfigError for files that are missing, do not fit each other or are open to the world.
    """
    tls = Tls(cert, key)
    with blame("web sink"):
        context = current = _loaded(tls)
    seen = changed_at(tls)

    def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Each connection begins with this, whether the client names a host or not."""
        nonlocal seen, current
        if (now := changed_at(tls)) != seen:
            seen = now
            try:
                current = _loaded(tls)
                log.info("web: %s was read again", cert)
            except (ConfigError, OSError) as error:
                log.warning("web: the old certificate stays: %s", error)
        connection.context = current

    context.sni_callback = renew
    return context


def _loaded(tls: Tls) -> ssl.SSLContext:
    check_files(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key)
    return context
