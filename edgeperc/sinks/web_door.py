"""Who of those that connect to the page stays: beyond a number, the oldest that asks nothing goes.

door = Door(runner.server, most=64)
server = await loop.create_server(door, sock=listener)

Without it, connections that never say what they want would take every file descriptor of the
daemon, and so its other ways out, too.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

_SOON_S = 0.05


class Door:
    """Makes the protocol of each new connection; `middleware` must be the application's first."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._server: Any = None
        self._busy: set[Any] = set()
        self._waits = False

    def open(self, server: Any) -> None:
        """Let in who comes to an aiohttp `web.Server`."""
        self._server = server

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Know who has a request that is being answered."""
        protocol = request.protocol
        self._busy.add(protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(protocol)

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one more connection."""
        if not self._waits:  # those that came in one go have no transport yet
            self._waits = True
            asyncio.get_running_loop().call_later(_SOON_S, self._make_room)
        if not self._make_room(1):
            return _Closed()
        return cast(asyncio.Protocol, self._server())

    def _make_room(self, wanted: int = 0) -> bool:
        """Close the oldest idle ones until so many more have room; False if they have not."""
        self._waits = self._waits and wanted > 0
        there = [each for each in self._server.connections if each.transport is not None]
        excess = len(there) + wanted - self._most
        idle = [each for each in there if each not in self._busy][: max(0, excess)]
        for each in idle:
            each.force_close()
        return len(idle) >= excess


class _Closed(asyncio.Protocol):
    """Ends a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
