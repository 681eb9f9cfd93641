"""A device of a fleet: results, status and presence to a router, orders from it.

    [[sinks]]
    kind = "fleet"
    router = "tcp/127.0.0.1:7447"

Threads: `write` only fills a mailbox; one thread opens the link, sends, and tries again where there
is no router yet; another one carries out orders, one after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from edgeperc.config import Positive
from edgeperc.control import Daemon
from edgeperc.errors import DeviceError, EdgepercError
from edgeperc.fleet import keys
from edgeperc.fleet.link import LEASE_S, Link, Security, check_reach, endpoint, this_device
from edgeperc.fleet.orders import answer, refusal
from edgeperc.proto.codec import to_message
from edgeperc.proto.control_codec import status_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import Result
from edgeperc.sinks.sending import Sending

log = logging.getLogger("edgeperc")
WAITING_ORDERS = 16
AGAIN_S = 2.0


class Fleet:
    """Sink that joins a fleet.

    router: "tcp/HOST:PORT" or "tls/HOST:PORT". fleet, device: our names there, the device's is the
    host's if not said. max_rate_hz: of each stream of results, 0 is all. control: take orders.
    ca, cert, key, config: see `edgeperc.fleet.link.Security`. insecure: go to another machine
    without encryption. lease_s: how soon we are missed. Raises ConfigError.
    """

    def __init__(
        self,
        *,
        router: str,
        daemon: Daemon,
        fleet: str = "default",
        device: str = "",
        max_rate_hz: float = 10.0,
        control: bool = True,
        ca: str = "",
        cert: str = "",
        key: str = "",
        config: str = "",
        insecure: bool = False,
        lease_s: Positive = LEASE_S,
    ) -> None:
        self._daemon, self._control, self._lease_s = daemon, control, lease_s
        self._router = endpoint(router)
        self._security = Security(ca=ca, cert=cert, key=key, config=config, insecure=insecure)
        check_reach([self._router], self._security)
        self.device = keys.check("device", device or this_device())
        self._key = keys.device(keys.check("fleet", fleet), self.device)
        self._period_s = 1.0 / max_rate_hz if max_rate_hz > 0 else 0.0
        self._due_s: dict[tuple[str, str], float] = {}
        self._link: Link | None = None
        self._held: list[Any] = []
        self._orders: threading.Thread | None = None
        self._next_try_s = 0.0
        self._told = False
        self.where = f"edgeperc fleet watch {self._router} --fleet {fleet}"
        self._sending: Sending[Result] = Sending(self._send, name="fleet", tick=self._beat)
        self._sending.start()

    def write(self, result: Result) -> None:
        """Let a result be sent, if it is time for one; never blocks."""
        stream = (result.stamp.source, result.model.name)
        now_s = time.monotonic()
        due_s = self._due_s.get(stream, now_s)
        if now_s >= due_s:
            self._due_s[stream] = max(due_s + self._period_s, now_s)
            self._sending.put(stream, result)

    def close(self) -> None:
        """Leave the fleet; may be called twice."""
        self._sending.close()
        link, self._link = self._link, None
        if link is not None:
            for each in self._held:
                each.undeclare()
            link.close()
        if self._orders is not None and self._orders is not threading.current_thread():
            self._orders.join(1.0)

    @property
    def lost(self) -> int:
        """Results that were overtaken by newer ones, or for which there was no router."""
        return self._sending.lost

    def _send(self, result: Result) -> None:
        if self._link is None:
            self._sending.lost += 1
            return
        source, model = keys.part(result.stamp.source), keys.part(result.model.name)
        message = to_message(result, pb.MASK_ENCODING_ZSTD, published_ns=time.time_ns())
        self._put(f"results/{source}/{model}", message.SerializeToString())

    def _beat(self) -> None:
        """Say how we are, once there is a router."""
        if self._link is None and time.monotonic() >= self._next_try_s:
            self._join()
        if self._link is not None:
            self._put("status", status_message(self._daemon.status()).SerializeToString())

    def _put(self, name: str, data: bytes) -> None:
        link = self._link
        if link is not None:
            # Where the link is full, Zenoh drops what is put: a slow network costs results, not us.
            link.session.put(f"{self._key}/{name}", data)

    def _join(self) -> None:
        """Open the link; without a router, say so once and try again later."""
        try:
            link = Link(self._router, security=self._security, lease_s=self._lease_s)
        except DeviceError as error:
            self._next_try_s = time.monotonic() + AGAIN_S
            if not self._told:
                log.warning("%s; trying again", error)
                self._told = True
            return
        self._held = [link.session.liveliness().declare_token(f"{self._key}/alive")]
        if self._control:
            import zenoh

            orders = link.session.declare_queryable(
                f"{self._key}/control/*", zenoh.handlers.FifoChannel(WAITING_ORDERS)
            )
            self._held.append(orders)
            self._orders = threading.Thread(
                target=self._answer, args=(orders,), name="fleet orders", daemon=True
            )
            self._orders.start()
        log.info("fleet: joined %s as %s", self._router, self.device)
        self._link = link

    def _answer(self, orders: Any) -> None:
        """Carry out orders until the link is closed."""
        import zenoh

        for query in orders:
            with query:
                order = str(query.key_expr).rpartition("/")[2]
                payload = query.payload.to_bytes() if query.payload is not None else b""
                try:
                    said, error = answer(order, payload, self._daemon), b""
                except EdgepercError as refused:
                    said, error = b"", refusal(refused)
                except Exception:  # an order must not end all orders
                    log.exception("fleet: %s failed", order)
                    said, error = b"", b"\nthe device failed to carry it out; its log says why\n"
                try:
                    if error:
                        query.reply_err(error)
                    else:
                        query.reply(f"{self._key}/control/{order}", said)
                except zenoh.ZError as lost:  # the order may have taken this very sink away
                    log.info("fleet: nobody hears that %s was carried out: %s", order, lost)
