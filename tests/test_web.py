"""The page's server as clients without a browser meet it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from edgeperc import masks
from edgeperc.errors import ConfigError
from edgeperc.result import decode_rle
from edgeperc.sink import Inventory
from edgeperc.sinks import web as sink_module
from edgeperc.sinks.web import PAGE, TYPES, Web
from edgeperc.sinks.web_wire import unpack

from .web_daemon import SQUARES, WebDaemon, eventually

READER, PROMPTER, ADMIN = "reader-0123456789", "prompter-0123456789", "admin-0123456789abc"
FRAME, LABELS = ["frame", "wide", ""], ["labels", "wide", "segmenter"]
OBJECTS = ["instances", "wide", "grey"]
Story = Callable[[aiohttp.ClientSession], Awaitable[None]]


@pytest.fixture(scope="module")
def daemon() -> Iterator[WebDaemon]:
    daemon = WebDaemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text(f"read {READER}\nprompt {PROMPTER}\nadmin {ADMIN}\n")
    return path


def play(url: str, story: Story, **headers: str) -> None:
    """A story of one client, with a minute to come to its end."""

    async def run() -> None:
        jar = aiohttp.CookieJar(unsafe=True)  # which takes cookies of IP addresses
        async with aiohttp.ClientSession(url, headers=headers, cookie_jar=jar) as session:
            await asyncio.wait_for(story(session), 60)  # type: ignore[arg-type]

    asyncio.run(run())


class Page:
    """What a page does, without drawing."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, **order: Any) -> None:
        await self.ws.send_str(json.dumps(order))

    async def next(self, *kinds: str) -> tuple[dict[str, Any], bytes]:
        """The next message of a kind, all others drawn."""
        while True:
            message = await self.ws.receive()
            assert message.type == aiohttp.WSMsgType.BINARY, message
            header, payload = unpack(message.data)
            if header["kind"] in ("frame", "events", "labels", "instances", "boxes", "search"):
                await self.say(op="drawn", count=1)
            if header["kind"] in kinds:
                return header, payload


def test_files_of_the_page_are_served_with_headers_that_keep_it_to_itself(
    daemon: WebDaemon,
) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        for name in ["", *(f"page/{path.name}" for path in PAGE.iterdir())]:
            async with session.get(f"/{name}") as answer:
                assert answer.status == 200, name
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert "unsafe" not in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "aiohttp" not in answer.headers["Server"]
        for name in ("page/web.py", "page/..%2fweb.py", "page/%2e%2e/web.py", "nothing"):
            async with session.get(f"/{name}") as answer:
                assert answer.status == 404
                assert "Content-Security-Policy" in answer.headers

    play(daemon.url, story)


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_script() -> None:
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>", page)
    for path in PAGE.iterdir():
        assert path.suffix in TYPES
        assert not re.search(r"(?:src|href|from|import|url)\W{1,3}(?:https?:)?//", path.read_text())


def test_a_page_is_told_what_there_is_and_how_it_goes(daemon: WebDaemon) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            hello, _ = await page.next("hello")
            assert [source["name"] for source in hello["sources"]] == ["wide", "dvs"]
            assert hello["promptable"] == {"wide": "grey"}
            assert hello["role"] == "admin"
            await page.next("history")
            wanted = [FRAME, LABELS, ["events", "dvs", ""]]
            news: dict[str, Any] = {"streams": [], "newest": {}}
            while not all(each in news["streams"] for each in wanted) or not rate_hz(news):
                news, _ = await page.next("status")
            assert news["status"]["app"] == "street"
            (pipeline,) = news["status"]["pipelines"]
            assert pipeline["model"]["sha256"].startswith("c0ffee")
            _, _, p50_ms, _, dropped, failed = news["newest"]["seg"]
            assert (p50_ms, dropped, failed) == (4.0, 0, 0)

    play(daemon.url, story)


def rate_hz(news: dict[str, Any]) -> float:
    return float(news["newest"].get("seg", (0, 0))[1])


def test_a_page_that_is_opened_late_has_a_past(daemon: WebDaemon) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        past: list[Any] = []
        while len(past) < 2:
            async with session.ws_connect("/ws") as ws:
                past = (await Page(ws).next("history"))[0]["pipelines"].get("seg", [])
            await asyncio.sleep(0.2)
        assert past[1][0] > past[0][0]

    play(daemon.url, story)


def test_labels_arrive_to_the_last_pixel(daemon: WebDaemon) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            await page.say(op="look", streams=[LABELS])
            header, code = await page.next("labels")
            shape = {"height_px": header["height"], "width_px": header["width"]}
            np.testing.assert_array_equal(decode_rle(code, **shape), daemon.labels)

    play(daemon.url, story)


def test_without_a_page_nothing_is_encoded_and_what_it_leaves_is_encoded_no_more(
    daemon: WebDaemon,
) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            await page.say(op="look", streams=[FRAME])
            await page.next("frame")
            assert daemon.sink.wants_packets
        await asyncio.to_thread(eventually, lambda: not daemon.sink._clients)
        assert not daemon.sink.wants_packets
        await asyncio.sleep(0.3)
        before, seq = daemon.sink._encoder.encoded, daemon.seq
        assert await asyncio.to_thread(eventually, lambda: daemon.seq > seq + 20)
        assert daemon.sink._encoder.encoded == before

    play(daemon.url, story)


def test_a_page_that_draws_nothing_loses_pictures_and_delays_nobody(daemon: WebDaemon) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as slow, session.ws_connect("/ws") as quick:
            look = json.dumps({"op": "look", "streams": [FRAME], "rate_hz": 60})
            await slow.send_str(look)
            page = Page(quick)
            await quick.send_str(look)
            for _ in range(30):
                await page.next("frame")
            frames, dropped = 0, 0
            while not dropped:
                header, _ = unpack((await slow.receive()).data)
                frames += header["kind"] == "frame"
                dropped = header.get("dropped", 0) if header["kind"] == "you" else 0
            assert frames <= 4

    play(daemon.url, story)


def test_a_click_begins_an_object_and_a_box_another_and_both_go_with_the_page(
    daemon: WebDaemon,
) -> None:
    x0, y0, x1, y1 = SQUARES[150]

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            await page.say(op="look", streams=[OBJECTS])
            await page.say(op="point", ask=1, source="wide", number=1, points=[[6.5, 7.5, True]])
            answer, _ = await page.next("answer")
            assert answer["ok"], answer
            await page.say(op="point", ask=2, source="wide", number=2, box=[x0, y0, x1, y1])
            instance = (await page.next("answer"))[0]["instance"]
            while len(objects := (await page.next("instances"))[0]["objects"]) < 2:
                pass
            (found,) = (each for each in objects if each["id"] == instance)
            mask = masks.decode(masks.Rle(found["rle"].encode(), 40, 60))
            expected = np.zeros((40, 60), np.bool_)
            expected[y0:y1, x0:x1] = True
            np.testing.assert_array_equal(mask, expected)
            await page.say(op="drop", ask=3, source="wide", number=2)
            assert (await page.next("answer"))[0]["ok"]
            await page.say(op="point", ask=4, source="wide", number=2, points=[[1, 1, True]])
            refused, _ = await page.next("answer")
            assert not refused["ok"]
            assert refused["hint"]
            await page.say(op="drop", ask=5, source="wide")
            assert (await page.next("answer"))[0]["ok"]
        assert await asyncio.to_thread(eventually, lambda: not len(daemon.tracker.sessions))

    play(daemon.url, story)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"op": "point", "source": "dvs", "number": 1, "points": [[1, 1, True]]}, "cannot|nothing"),
        ({"op": "point", "source": "wide", "number": 1, "points": [[99, 1, True]]}, "outside"),
        ({"op": "point", "source": "wide", "number": 1}, "asks for nothing"),
        ({"op": "drop", "source": "wide"}, "nothing of yours"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_words(
    daemon: WebDaemon, order: dict[str, Any], words: str
) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            await Page(ws).say(ask=9, **order)
            answer, _ = await Page(ws).next("answer")
            assert answer["ask"] == 9
            assert not answer["ok"]
            assert re.search(words, answer["error"]), answer

    play(daemon.url, story)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"op": "shout"}', '{"op": "look", "streams": 3}', "x" * (1 << 17)]
)
def test_what_is_no_order_ends_the_connection(daemon: WebDaemon, text: str) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            await ws.send_str(text)
            while (await ws.receive()).type == aiohttp.WSMsgType.BINARY:
                pass
            assert ws.close_code in (1008, 1009)

    play(daemon.url, story)


def test_recording_begins_and_ends_and_says_why_it_cannot(daemon: WebDaemon) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            await page.say(op="record", ask=1, on=True)
            assert (await page.next("answer"))[0]["recording"]["running"]
            await page.say(op="record", ask=2, on=False)
            assert (await page.next("answer"))[0]["recording"]["seconds"] == 5.0
            daemon.control.can_record = False
            await page.say(op="record", ask=3, on=True)
            answer, _ = await page.next("answer")
            assert (answer["error"], answer["hint"]) == ("the disk is full", "delete something")
            daemon.control.can_record = True

    play(daemon.url, story)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_strange_names_and_pages_are_refused_everywhere(
    daemon: WebDaemon, headers: dict[str, str], status: int
) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        for path in ("/", "/ws", "/healthz", "/mjpeg/wide"):
            async with session.get(path, headers=headers) as answer:
                assert answer.status == status
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/ws", headers=headers)

    play(daemon.url, story)


def test_tokens_let_in_by_header_or_cookie_and_say_who_may_what(tokens: Path) -> None:
    daemon = WebDaemon(tokens=str(tokens))
    point = {"op": "point", "source": "wide", "number": 1, "points": [[6.5, 7.5, True]]}

    async def stranger(session: aiohttp.ClientSession) -> None:
        async with session.get("/") as answer:
            assert answer.status == 200  # the page asks for the token
        for path in ("/ws", "/mjpeg/wide"):
            async with session.get(path, headers={"Authorization": "Bearer wrong"}) as answer:
                assert answer.status == 401
        async with session.post("/login", data="wrong") as answer:
            assert answer.status == 401
        async with session.post("/login", data=PROMPTER) as answer:
            assert answer.status == 204
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            assert (await page.next("hello"))[0]["role"] == "prompt"
            await page.say(ask=1, **point)
            assert (await page.next("answer"))[0]["ok"]
            await page.say(op="record", ask=2, on=True)
            answer, _ = await page.next("answer")
            assert "admin" in answer["error"]

    async def reader(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            await page.say(ask=1, **point)
            assert "'prompt'" in (await page.next("answer"))[0]["error"]
            tokens.write_text(f"read {ADMIN}\n")  # another one from now on
            while (await ws.receive()).type == aiohttp.WSMsgType.BINARY:
                pass
            assert ws.close_code == 1008
        async with session.get("/ws") as again:
            assert again.status == 401

    try:
        play(daemon.url, stranger)
        assert daemon.control.orders == []
        play(daemon.url, reader, Authorization=f"Bearer {READER}")
    finally:
        daemon.stop()


def test_health_and_pictures_for_what_has_no_scripts(daemon: WebDaemon) -> None:
    async def story(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get("/healthz") as answer:
                if answer.status == 200:
                    assert await answer.json() == {"state": "serving"}
                    break
            await asyncio.sleep(0.1)
        async with session.get("/mjpeg/nobody") as answer:
            assert answer.status == 404
        async with session.get("/mjpeg/wide") as answer:
            reader = aiohttp.MultipartReader.from_response(answer)
            for _ in range(2):
                part: Any = await reader.next()
                assert (await part.read()).startswith(b"\xff\xd8")

    play(daemon.url, story)


def test_pages_have_a_limit() -> None:
    daemon = WebDaemon(max_clients=1)

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws"), session.get("/ws") as second:
            assert second.status == 503

    try:
        play(daemon.url, story)
    finally:
        daemon.stop()


def test_the_end_of_the_daemon_ends_pages_and_frees_port_and_threads() -> None:
    daemon = WebDaemon()
    port = int(daemon.url.rpartition(":")[2])

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            await Page(ws).next("hello")
            await asyncio.to_thread(daemon.stop)
            daemon.sink.close()
            while (await ws.receive()).type == aiohttp.WSMsgType.BINARY:
                pass

    play(daemon.url, story)
    socket.create_server(("127.0.0.1", port)).close()
    names = {thread.name for thread in threading.enumerate() if not thread.daemon}
    assert "web" not in names


def test_a_daemon_that_is_long_to_answer_delays_no_picture() -> None:
    daemon = WebDaemon()
    answer, say = daemon.control.status, threading.Event()
    daemon.control.status = lambda: (say.wait(60), answer())[1]  # type: ignore[method-assign]

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            page = Page(ws)
            await page.next("hello")
            await page.say(op="look", streams=[FRAME])
            for _ in range(5):
                await page.next("frame")

    try:
        play(daemon.url, story)
    finally:
        say.set()
        daemon.stop()


def make(**options: Any) -> Web:
    return Web(inventory=Inventory(), **options)


def test_a_taken_port_is_left_for_the_next_one_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(listen="127.0.0.1:0")
    port = int(first.where.rpartition(":")[2])
    try:
        second = make(listen=f"127.0.0.1:{port}")
        assert second.where != first.where
        assert f"port {port} is taken" in caplog.text
        second.close()
        monkeypatch.setattr(sink_module, "NEXT_PORTS", 0)
        with pytest.raises(ConfigError, match="taken"):
            make(listen=f"127.0.0.1:{port}")
    finally:
        first.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"listen": "8080"}, "host:port"),
        ({"listen": "0.0.0.0:0"}, "everybody on the network"),
        ({"listen": "0.0.0.0:0", "insecure": True}, "everybody on the network"),
        ({"listen": "192.0.2.1:0", "tokens": "{tokens}", "insecure": True}, "cannot listen"),
        ({"tokens": "/nowhere"}, "No such file"),
        ({"tls_cert": "/nowhere", "tls_key": "/nowhere"}, "web sink: /nowhere: no such file"),
    ],
)
def test_what_cannot_be_served_or_should_not_is_an_error(
    options: dict[str, Any], words: str, tokens: Path
) -> None:
    filled = {
        key: value.format(tokens=tokens) if isinstance(value, str) else value
        for key, value in options.items()
    }
    threads = threading.active_count()
    with pytest.raises(ConfigError, match=words):
        make(**filled)
    assert eventually(lambda: threading.active_count() <= threads)


def test_packets_and_results_never_wait_for_a_page(daemon: WebDaemon) -> None:
    """A page that is connected and never reads, at the rate of an event camera."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/ws") as ws:
            await Page(ws).say(op="look", streams=[FRAME, LABELS, OBJECTS], rate_hz=60)
            before = daemon.seq
            assert await asyncio.to_thread(eventually, lambda: daemon.seq > before + 50)

    play(daemon.url, story)


def test_with_a_certificate_the_page_is_encrypted_and_its_cookie_for_that_alone(
    tmp_path: Path, tokens: Path
) -> None:
    from .certificates import Authority

    authority = Authority(tmp_path)
    pair = authority.issue("daemon")
    files = {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    daemon = WebDaemon(listen="127.0.0.1:0", tokens=str(tokens), **files)
    assert daemon.url.startswith("https://")
    trusted = ssl.create_default_context(cafile=authority.ca)

    async def story(session: aiohttp.ClientSession) -> None:
        async with session.post("/login", data=READER, ssl=trusted) as answer:
            assert answer.status == 204
            assert "secure" in answer.headers["Set-Cookie"].lower()
        own = {"Origin": daemon.url}
        async with session.ws_connect("/ws", ssl=trusted, headers=own) as ws:
            assert (await Page(ws).next("hello"))[0]["role"] == "read"
        plain = {"Origin": daemon.url.replace("https", "http")}
        async with session.get("/", ssl=trusted, headers=plain) as answer:
            assert answer.status == 403

    async def told(session: aiohttp.ClientSession) -> None:
        async with session.get("/", ssl=trusted) as answer:
            assert answer.status == 200

    try:
        play(daemon.url, story)
        Authority(tmp_path, "other").issue("daemon")  # in place of the first, by nobody we trust
        for path in (pair.cert, pair.key):
            os.utime(path, (1, 1))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            play(daemon.url, told)
        authority.issue("daemon")
        for path in (pair.cert, pair.key):
            os.utime(path, (2, 2))
        play(daemon.url, told)
    finally:
        daemon.stop()
