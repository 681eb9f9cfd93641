"""A page in a browser that shows what the daemon sees, thinks and does, live.

    [[sinks]]
    kind = "web"
    listen = "127.0.0.1:8080"

Threads: `take` and `write` run in the threads of sensors and pipelines and only keep the newest.
One thread encodes what somebody looks at, once for all; one serves, by asyncio; what may wait for
the daemon, its status and what it is asked to do, has threads of its own. A slow page loses
pictures of its own, nothing else; without a page nothing is encoded.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from aiohttp import web

from edgeperc import __version__
from edgeperc.addresses import bracketed, is_loopback, parse_listen
from edgeperc.config import Positive
from edgeperc.control import ControlError, Daemon
from edgeperc.errors import ConfigError
from edgeperc.packet import Packet
from edgeperc.plan import Plan
from edgeperc.result import Result
from edgeperc.sink import Inventory
from edgeperc.sinks.security import Tokens
from edgeperc.sinks.web_client import Client
from edgeperc.sinks.web_door import Door
from edgeperc.sinks.web_encoder import Encoder, Key
from edgeperc.sinks.web_guard import Guard, tls_context
from edgeperc.sinks.web_search import view_of
from edgeperc.sinks.web_status import History
from edgeperc.sinks.web_wire import colours, pack, unpack
from edgeperc.tracker import Tracker

log = logging.getLogger("edgeperc")

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
NEXT_PORTS = 10
"""Where the port is taken, so many more are tried: a page's address is read by a person."""
MAX_MESSAGE_BYTES = 1 << 16
HEARTBEAT_S = 20.0
SAMPLE_S = 1.0
_START_S, _STOP_S = 10.0, 1.5
_CONNECTIONS, _PATIENCE_S = 64, 10.0
_BOUNDARY = "edgeperc-picture"

Window = Annotated[float, msgspec.Meta(gt=0, le=1000)]
PageRate = Annotated[float, msgspec.Meta(gt=0, le=60)]


class Web:
    """Sink that serves a page at `listen` ("host:port"; port 0 picks a free one).

    rate_hz: pictures of each stream a second, at most. max_width_px: wider pictures are sent
    smaller. window_ms: of events that are drawn together. max_clients: open pages at a time.
    hosts: further names by which the daemon is reached. tokens: file of `role token` lines.
    tls_cert, tls_key: files in PEM. insecure: allow an address that other machines can reach
    without encryption. Raises ConfigError if the address cannot be served.
    """

    def __init__(
        self,
        *,
        inventory: Inventory,
        daemon: Daemon | None = None,
        trackers: Sequence[Tracker] = (),
        plan: Plan | None = None,
        listen: str = "127.0.0.1:8080",
        rate_hz: PageRate = 15.0,
        max_width_px: Positive = 1280,
        window_ms: Window = 40.0,
        max_clients: Positive = 8,
        hosts: tuple[str, ...] = (),
        tokens: str = "",
        tls_cert: str = "",
        tls_key: str = "",
        insecure: bool = False,
    ) -> None:
        host, port = parse_listen(listen, "web sink")
        secure = bool(tls_cert or tls_key)
        if not (is_loopback(host) or (tokens and (secure or insecure))):
            raise ConfigError(
                f'web sink: listen = "{listen}" would let everybody on the network look in',
                hint="listen on 127.0.0.1 and reach it by `ssh -L`, or set tokens, and tls_cert and"
                " tls_key or insecure = true",
            )
        context = tls_context(Path(tls_cert), Path(tls_key)) if secure else None
        self._guard = Guard(
            tokens=Tokens(Path(tokens)) if tokens else None, hosts=hosts, secure=secure
        )
        search = view_of(plan)
        self._wide = search.wide if search else ""
        self._inventory, self._daemon, self._trackers = inventory, daemon, tuple(trackers)
        self._told = self._there()
        self._rate_hz, self._max_clients = rate_hz, max_clients
        self._clients: set[Client] = set()
        self._gone = [0, 0]  # sent and dropped by pages that are no more
        self._watched: dict[asyncio.Queue[bytes], Key] = {}
        self._history = History(daemon)
        self._listener = _bind(host, port)
        shown = "localhost" if host == "localhost" else bracketed(host)
        port = self._listener.getsockname()[1]
        self.where = f"{'https' if secure else 'http'}://{shown}:{port}"
        self._loop = asyncio.new_event_loop()
        self._closing: asyncio.Event
        self._orders = ThreadPoolExecutor(1, "web orders")
        self._stopping = threading.Event()
        self._encoder = Encoder(
            send=self._hand_out,
            search=search,
            max_width_px=max_width_px,
            window_ms=window_ms,
        )
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._serve, args=(context,), name="web", daemon=True
        )
        self._thread.start()
        if not self._ready.wait(_START_S) or self._failure:
            self._encoder.close()
            self._listener.close()
            raise ConfigError(f"web sink: cannot serve {self.where}: {self._failure or 'too slow'}")
        threading.Thread(target=self._sample, name="web status", daemon=True).start()

    @property
    def wants_packets(self) -> bool:
        """Whether anybody looks."""
        return bool(self._clients or self._watched)

    def take(self, packet: Packet) -> None:
        """Keep a packet as the newest of its sensor; never blocks."""
        self._encoder.take(packet)

    def write(self, result: Result) -> None:
        """Keep a result as the newest of its model; never blocks."""
        self._encoder.write(result)

    def adapt(self, plan: Plan, trackers: Sequence[Tracker]) -> None:
        """See AppSink: pages stay, and are told what there is now, if that is something else."""
        search = view_of(plan)
        self._wide = search.wide if search else ""
        self._trackers = tuple(trackers)
        there = self._there()
        self._encoder.become(search, forget=there != self._told)
        if there == self._told:
            return
        self._told = there
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell_changed)

    def counts(self) -> dict[str, int]:
        """Open pages, and of all pages so far the messages sent, and lost by slow ones."""
        clients = [*self._clients]
        return {
            "clients": len(clients),
            "sent": self._gone[0] + sum(client.mailbox.sent for client in clients),
            "dropped": self._gone[1] + sum(client.mailbox.dropped for client in clients),
        }

    def close(self) -> None:
        """Send all pages away and release the port; may be called twice."""
        self._stopping.set()
        self._encoder.close()
        with suppress(RuntimeError):  # it is over already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_STOP_S)
        self._orders.shutdown(wait=False)

    def _serve(self, context: Any) -> None:
        """The loop's thread."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._until_closed(context))
        except BaseException as error:
            self._failure = error
            if self._ready.is_set():
                log.exception("the web page's server died")
            self._ready.set()
        finally:
            self._loop.close()

    async def _until_closed(self, context: Any) -> None:
        self._closing = asyncio.Event()
        door = Door(most=_CONNECTIONS + 4 * self._max_clients)
        guards = [door.middleware, self._guard.middleware]
        app = web.Application(middlewares=guards, client_max_size=4096)
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/page/{name}", self._page),
                web.post("/login", self._log_in),
                web.get("/ws", self._socket),
                web.get("/mjpeg/{source}", self._mjpeg),
                web.get("/healthz", self._healthz),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        door.open(runner.server)
        timeout_s = None if context is None else _PATIENCE_S
        server = await self._loop.create_server(
            door, sock=self._listener, ssl=context, ssl_handshake_timeout=timeout_s
        )
        self._ready.set()
        await self._closing.wait()
        for client in list(self._clients):
            client.close()
        server.close()
        await runner.cleanup()

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """A file of the page; none of them is a secret."""
        name = request.match_info.get("name", "index.html")
        known = {path.name: path for path in PAGE.iterdir() if path.suffix in TYPES}
        if name not in known:
            raise web.HTTPNotFound
        path = known[name]
        return web.Response(
            body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8"
        )

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        """A token for a cookie."""
        response = web.Response(status=204)
        token = await asyncio.wait_for(request.text(), _PATIENCE_S)
        if not self._guard.log_in(token.strip(), response):
            await asyncio.sleep(0.5)
            return web.Response(status=401, text="this token is not known\n")
        return response

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        """For probes: 200 while results come, else 503."""
        status = self._history.status
        state = status.state if status else "starting"
        well = state in ("serving", "degraded") or self._daemon is None
        doing = [str(each.preparing) for each in status.workers if each.preparing] if status else []
        said = {"state": state, **({"preparing": doing} if doing else {})}
        return web.json_response(said, status=200 if well else 503)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """A page's connection."""
        self._admit(request)
        if len(self._clients) >= self._max_clients:
            raise web.HTTPServiceUnavailable(
                text=f"{self._max_clients} pages are open already (max_clients)\n"
            )
        response = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, compress=False, max_msg_size=MAX_MESSAGE_BYTES
        )
        await response.prepare(request)
        client = Client(
            response,
            role=lambda: self._guard.role(request),
            trackers=self._trackers,
            changed=self._look,
            orders=self._orders,
            record=self._record,
        )
        client.mailbox.say(pack(self._hello(request)))
        client.mailbox.say(self._history.past())
        client.mailbox.say(self._now())
        self._clients.add(client)
        try:
            await client.serve()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(client)
            self._gone[0] += client.mailbox.sent
            self._gone[1] += client.mailbox.dropped
            client.close()
            self._look()
        return response

    async def _mjpeg(self, request: web.Request) -> web.StreamResponse:
        """Pictures of a sensor for an <img>, for what has no scripts."""
        self._admit(request)
        key = ("frame", request.match_info["source"], "")
        if key[1] not in [source.name for source in self._inventory.sources]:
            raise web.HTTPNotFound(text="there is no sensor of this name\n")
        response = web.StreamResponse(
            headers={"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}"}
        )
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._watched[queue] = key
        self._look()
        try:
            while not self._closing.is_set():
                jpeg = unpack(await queue.get())[1]
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                await response.write(f"{head}\r\n\r\n".encode() + jpeg + b"\r\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            del self._watched[queue]
            self._look()
        return response

    def _admit(self, request: web.Request) -> None:
        if self._guard.role(request) is None:
            raise web.HTTPUnauthorized(text="a token is needed\n")

    def _hello(self, request: web.Request) -> dict[str, Any]:
        """What the page must know once."""
        return {
            "kind": "hello",
            "version": __version__,
            **self._there(),
            "role": self._guard.role(request),
            "rate_hz": self._rate_hz,
            "can_record": self._daemon is not None,
            "colours": colours(),
        }

    def _there(self) -> dict[str, Any]:
        """What a page must know anew when the app has changed."""
        return {
            "sources": msgspec.to_builtins(self._inventory.sources),
            "models": msgspec.to_builtins(self._inventory.models),
            "promptable": {each.source: each.ref.name for each in self._trackers},
            "wide": self._wide,
        }

    def _look(self) -> None:
        """Tell the encoder what is wanted now."""
        wanted: dict[Key, float] = {}
        for client in self._clients:
            for key in client.looks_at:
                rate_hz = min(client.mailbox.rate_hz, self._rate_hz)
                wanted[key] = max(wanted.get(key, 0.0), rate_hz)
        for key in self._watched.values():
            wanted[key] = self._rate_hz
        self._encoder.want(wanted)

    async def _record(self, on: bool) -> Any:
        if self._daemon is None:
            raise ControlError("nothing here can record")
        order = self._daemon.start_recording if on else self._daemon.stop_recording
        return await asyncio.to_thread(order)

    def _hand_out(self, key: Key, message: bytes) -> None:
        """In the encoder's thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._deliver, key, message)

    def _deliver(self, key: Key, message: bytes) -> None:
        for client in self._clients:
            client.put(key, message)
        for queue, watched in self._watched.items():
            if watched == key:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(message)

    def _sample(self) -> None:
        """Once a second, in a thread of its own, as the daemon may take its time."""
        while True:
            self._history.sample()
            if self._clients:
                message = self._now()
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._tell, message)
            if self._stopping.wait(SAMPLE_S):
                return

    def _tell(self, message: bytes) -> None:
        for client in list(self._clients):
            client.tell(message)

    def _tell_changed(self) -> None:
        message = pack({"kind": "changed", **self._there()})
        for client in list(self._clients):
            client.adapt(self._trackers)
            client.mailbox.say(message)

    def _now(self) -> bytes:
        return self._history.now(self._encoder.streams, len(self._clients))


def _bind(host: str, port: int) -> socket.socket:
    """Take the port or, where it is taken, one of the next ones. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for tried in range(port, min(port + NEXT_PORTS, 65535) + 1 if port else 1):
        try:
            listener = socket.create_server((host, tried), family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            reason = error.strerror or str(error)
            raise ConfigError(f"web sink: cannot listen on {host}:{tried}: {reason}") from error
        if port and tried != port:
            log.warning("web sink: port %d is taken, the page is at port %d", port, tried)
        return listener
    raise ConfigError(
        f"web sink: the ports {port} to {port + NEXT_PORTS} of {host} are taken",
        hint="set another `listen`; port 0 picks a free one",
    )
