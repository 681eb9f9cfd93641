"""One client at a time steers the mirror: a lease that takes it from the search, and expires.

steering = MirrorLease(send=search.obey, reach=lambda: reach, gaze=lambda: newest_gaze)
lease = steering.acquire("inspection", ttl_s=5.0)      # the mirror stands still
steering.point(lease, Gaze(pan_rad=0.1, tilt_rad=0.0))
steering.release(lease)                                # the search goes on

Each order carries its own end, on the machine's monotonic clock: a search in another process goes
on by itself where whoever gave the order has died. Where that process dies, the lease goes on as
long as it would: the next one begins with the order that holds.
"""

from __future__ import annotations

import hmac
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgeperc.control import ControlError, MirrorState
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Gaze, GazeRange

DEFAULT_TTL_S, LONGEST_TTL_S = 5.0, 60.0
_SLACK_RAD = 1e-6
"""Angles travel as float32: so much beyond the reach is the reach itself."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a search is told: look there, or stay where you are, until a monotonic time."""

    gaze: Gaze | None
    until_s: float


@dataclass(frozen=True, slots=True)
class _Held:
    lease: str
    holder: str
    ttl_s: float
    until_s: float
    gaze: Gaze | None = None


class MirrorLease:
    """`edgeperc.control.Steering` for a search that takes orders.

    send: takes an Order, or None when the search is to go on; must not block. reach, gaze: what the
    mirror reaches and where it looks, as far as is known. is_here: whether there is a search that
    obeys.
    """

    def __init__(
        self,
        send: Callable[[Order | None], None],
        *,
        reach: Callable[[], GazeRange | None],
        gaze: Callable[[], Gaze | None],
        is_here: Callable[[], bool] = lambda: True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._reach, self._gaze, self._now_s = send, reach, gaze, now_s
        self._is_here = is_here
        self._lock = threading.Lock()
        self._held: _Held | None = None

    @property
    def order(self) -> Order | None:
        """What holds now: for a search that has just been started again."""
        with self._lock:
            held = self._current()
            return Order(held.gaze, held.until_s) if held else None

    def acquire(self, holder: str, ttl_s: float) -> str:
        """Take the mirror from the search, which stays where it is; a lease.

        ttl_s: 0 is 5 s, more than 60 s is 60 s. Raises ControlError if somebody has it, ConfigError
        if that is no time.
        """
        ttl_s = _lasting(ttl_s)
        with self._lock:
            if held := self._current():
                left_s = held.until_s - self._now_s()
                raise ControlError(
                    f"'{held.holder}' steers the mirror, for {left_s:.1f} s unless it is renewed",
                    why="taken",
                )
            lease = secrets.token_urlsafe(16)
            self._hold(_Held(lease, holder, ttl_s, self._now_s() + ttl_s))
            return lease

    def renew(self, lease: str, ttl_s: float) -> None:
        """Hold on for so long. Raises ControlError for a lease that is over."""
        ttl_s = _lasting(ttl_s)
        with self._lock:
            held = self._mine(lease)
            self._hold(_Held(lease, held.holder, ttl_s, self._now_s() + ttl_s, held.gaze))

    def release(self, lease: str) -> None:
        """Give the mirror back to the search; a lease that is over is no error."""
        with self._lock:
            held = self._current()
            if held and hmac.compare_digest(held.lease.encode(), lease.encode()):
                self._let_go()

    def point(self, lease: str, gaze: Gaze) -> None:
        """Look there from now on; renews the lease.

        Raises ControlError without the lease, or beyond the reach; DeviceError while the search's
        process is started anew: the lease is renewed all the same, and the last gaze holds.
        """
        with self._lock:
            held = self._mine(lease)
            self._check_reach(gaze)
            until_s = self._now_s() + held.ttl_s
            is_here = self._is_here()
            held = replace(held, until_s=until_s, gaze=gaze if is_here else held.gaze)
            self._hold(held)
        if not is_here:
            raise DeviceError(
                "the search's process is being started anew, and the mirror stands still",
                hint="the lease goes on: point again in a moment",
            )

    def stop(self) -> None:
        """Take the mirror from whoever has it; the search goes on."""
        with self._lock:
            self._let_go()

    def state(self) -> MirrorState:
        """Where it looks now."""
        with self._lock:
            held = self._current()
            return MirrorState(
                gaze=self._gaze(),
                reach=self._reach(),
                holder=held.holder if held else "",
                lease_s=held.until_s - self._now_s() if held else 0.0,
            )

    def _current(self) -> _Held | None:
        if self._held and self._held.until_s <= self._now_s():
            self._held = None  # the search has seen that by itself
        return self._held

    def _mine(self, lease: str) -> _Held:
        held = self._current()
        if held is None or not hmac.compare_digest(held.lease.encode(), lease.encode()):
            now = f"'{held.holder}' steers now" if held else "the search steers"
            raise ControlError(f"no such lease, or it is over: {now}", hint="acquire one first")
        return held

    def _hold(self, held: _Held) -> None:
        self._held = held
        self._send(Order(held.gaze, held.until_s))

    def _let_go(self) -> None:
        self._held = None
        self._send(None)

    def _check_reach(self, gaze: Gaze) -> None:
        reach = self._reach()
        if reach is None:
            raise ControlError("the mirror is not there yet: its reach is not known")
        for name, value, low, high in (
            ("pan", gaze.pan_rad, reach.lowest.pan_rad, reach.highest.pan_rad),
            ("tilt", gaze.tilt_rad, reach.lowest.tilt_rad, reach.highest.tilt_rad),
        ):
            if not low - _SLACK_RAD <= value <= high + _SLACK_RAD:  # false for NaN, too
                raise ControlError(
                    f"{name} is {math.degrees(value):.2f}°, the mirror reaches from"
                    f" {math.degrees(low):.2f}° to {math.degrees(high):.2f}°",
                    why="range",
                )


def _lasting(ttl_s: float) -> float:
    if not (math.isfinite(ttl_s) and ttl_s >= 0):
        raise ConfigError(f"ttl_s is {ttl_s}")
    return min(ttl_s or DEFAULT_TTL_S, LONGEST_TTL_S)
