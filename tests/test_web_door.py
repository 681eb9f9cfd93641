"""Connections that ask nothing do not keep others out."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import aiohttp
import pytest

from edgeperc.sinks import web as sink_module

from .web_daemon import WebDaemon


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebDaemon]:
    monkeypatch.setattr(sink_module, "_CONNECTIONS", 8)
    daemon = WebDaemon(max_clients=1)
    yield daemon
    daemon.stop()


def test_the_oldest_that_says_nothing_gives_way(daemon: WebDaemon) -> None:
    async def story() -> None:
        async with (
            aiohttp.ClientSession(daemon.url) as session,
            session.ws_connect("/ws") as page,
        ):
            assert (await page.receive(timeout=60)).type == aiohttp.WSMsgType.BINARY
            silent = [connect(daemon.url) for _ in range(60)]
            async with session.get("/healthz") as answer:  # by a connection of its own
                assert answer.status in (200, 503)
            left, ends_s = 60, time.monotonic() + 60
            while left > 12 and time.monotonic() < ends_s:
                left = sum(is_open(each) for each in silent)
                await asyncio.sleep(0.05)
            assert 0 < left <= 12
            async with session.get("/ws") as second:
                assert second.status == 503, "the page has gone"
            for each in silent:
                each.close()

    asyncio.run(story())


def connect(url: str) -> socket.socket:
    """A client that never ends its request."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    silent = socket.create_connection((host, int(port)), timeout=60)
    silent.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
    silent.setblocking(False)
    return silent


def is_open(silent: socket.socket) -> bool:
    try:
        return silent.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
