"""A simulated mirror behind a pseudo-terminal: what a driver finds where a device would be."""

from __future__ import annotations

import math
import os
import select
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeperc.drivers.galvo.plant import Plant, SecondOrder
from edgeperc.errors import ConfigError
from edgeperc.packet import Gaze
from edgeperc.simulate.devices import DEVICES, Kind
from edgeperc.simulate.faults import WITHOUT_ANSWERS, Fault, parse

TICK_S = 0.01
REMEMBERED = 100_000
CENTRE = Gaze(pan_rad=0.0, tilt_rad=0.0)


@dataclass(frozen=True, slots=True)
class Received:
    """A command, when it was complete on the simulator's clock, and where it pointed, if anywhere.

    target: x of the device as pan, y as tilt.
    """

    time_ns: int
    command: bytes
    target: Gaze | None


@dataclass(slots=True)
class _Trouble:
    """A fault with its times on the monotonic clock, and how often it may still strike."""

    fault: Fault
    start_s: float
    end_s: float
    left: float

    def now(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.end_s and self.left > 0


class MirrorSimulator:
    """A thread that plays a mirror on `port`, which is for a driver to open.

    wire_time: charge 10 bits a byte at the device's baud rate, in real time. reach_deg: largest
    optical angle of an axis; beyond, an Optotune and a Mirrorcle refuse and a Sigma clips.
    natural_hz (None: the kind's own), damping, delay_us, slew_deg_per_s: see
    `edgeperc.drivers.galvo.plant`. noise_deg: standard deviation of the position. link: a symbolic
    link to keep at the port; it survives `unplug`, after which the port has another name. now_ns:
    the clock of the motion; faults keep to real time. Raises ConfigError if `link` is in the way
    or a fault is none of this kind of device.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        wire_time: bool = True,
        reach_deg: float | None = None,
        natural_hz: float | None = None,
        damping: float = 0.75,
        delay_us: float = 150.0,
        slew_deg_per_s: float | None = None,
        noise_deg: float = 0.0,
        link: Path | None = None,
        seed: int = 0,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if link is not None and link.exists() and not link.is_symlink():
            raise ConfigError(f"{link}: is in the way, and no symbolic link")
        self.kind = kind
        self.device = DEVICES[kind]() if reach_deg is None else DEVICES[kind](reach_deg)
        self.received: deque[Received] = deque(maxlen=REMEMBERED)
        self.count = 0
        self._wire_time = wire_time
        self._link = link
        self._now_ns = now_ns
        self._noise_rad = math.radians(noise_deg)
        self._random = np.random.default_rng(seed)
        self._response = SecondOrder(natural_hz or self.device.natural_hz, damping)
        self._delay_us = delay_us
        self._slew = math.radians(slew_deg_per_s) if slew_deg_per_s else None
        self._changed = threading.Condition(threading.RLock())
        self._troubles: list[_Trouble] = []
        self._rounds = 0
        self._master: int | None = None
        self._stopping = False
        self._plant = self._new_plant()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._plug()
        self._thread = threading.Thread(target=self._run, name=f"simulated {kind}", daemon=True)
        self._thread.start()

    def __enter__(self) -> MirrorSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def plugged(self) -> bool:
        """Whether there is a port."""
        return self._master is not None

    def position(self, time_ns: int | None = None) -> Gaze:
        """Where the mirror truly points, now or at a time: x as pan, y as tilt."""
        with self._changed:
            at = self._plant.position(self._now_ns() if time_ns is None else time_ns)
            if not self._noise_rad:
                return at
            pan_rad, tilt_rad = self._random.normal(0.0, self._noise_rad, 2).tolist()
            return Gaze(pan_rad=at.pan_rad + pan_rad, tilt_rad=at.tilt_rad + tilt_rad)

    def inject(self, fault: Fault | str) -> None:
        """Let something go wrong, from `fault.start_s` after now on; returns once it is in force.

        fault: also in the words of `edgeperc.simulate.faults`. Raises ConfigError if these are
        none, or if the device never answers and the fault is about answers.
        """
        if isinstance(fault, str):
            fault = parse(fault)
        if fault.name in WITHOUT_ANSWERS and not self.device.refusal:
            raise ConfigError(f"{fault.name}: a {self.kind} never answers anyway")
        start_s = time.monotonic() + fault.start_s
        times = 1 if fault.name in {"reboot", "unplug"} else fault.times
        with self._changed:
            self._troubles.append(_Trouble(fault, start_s, start_s + fault.span_s, times))
        self._come_round()

    def mend(self) -> None:
        """End every fault, and plug in what is unplugged."""
        with self._changed:
            self._troubles.clear()
        self._come_round()

    def send(self, data: bytes) -> None:
        """Say something unasked."""
        with self._changed:
            self._write(data)

    def wait_received(self, count: int, *, timeout_s: float = 10.0) -> bool:
        """Wait until `count` commands came in all; False if they did not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, timeout_s)

    def close(self) -> None:
        """Unplug for good; may be called twice and from any thread."""
        with self._changed:
            stopped, self._stopping = self._stopping, True
        if stopped:
            return
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._unplug()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _come_round(self) -> None:
        """Wait until the thread has looked at the faults."""
        with self._changed:
            rounds = self._rounds
            with suppress(BlockingIOError):
                os.write(self._wake_write, b"x")
            self._changed.wait_for(lambda: self._rounds > rounds or self._stopping, 10.0)

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                self._look_at_faults()
                ports = [] if self._master is None or self._strikes("hang") else [self._master]
                self._rounds += 1
                self._changed.notify_all()
            waiting = bool(self._troubles)
            ready, _, _ = select.select(
                [*ports, self._wake_read], [], [], TICK_S if waiting or not ports else 1.0
            )
            if self._wake_read in ready:
                os.read(self._wake_read, 1)
            for port in ready:
                if port == self._master and not self._strikes("hang"):
                    self._hear(os.read(port, 4096))

    def _hear(self, data: bytes) -> None:
        for command in self.device.feed(data):
            self._charge(command)
            if reply := self._obey(command):
                self._answer(reply)

    def _obey(self, command: bytes) -> bytes:
        with self._changed:
            if self.device.refusal and self._strikes("nak"):
                return self._note(command, None, self.device.refusal)
            answer = self.device.obey(command)
            reply = answer.reply
            target = None
            if answer.point_rad:
                target = Gaze(pan_rad=answer.point_rad[0], tilt_rad=answer.point_rad[1])
                self._plant.command(target, self._now_ns())
            if answer.handshake and (wrong := self._strikes("wrong-handshake")):
                reply = wrong.text.encode() + b"\r\n"
            return self._note(command, target, reply)

    def _note(self, command: bytes, target: Gaze | None, reply: bytes) -> bytes:
        self.received.append(Received(self._now_ns(), command, target))
        self.count += 1
        self._changed.notify_all()
        if self._strikes("garbage"):
            reply = self._random.bytes(6).replace(b"\n", b"?") + reply
        return reply

    def _answer(self, reply: bytes) -> None:
        if slow := self._strikes("slow-reply"):
            time.sleep(slow.delay_s)
        if self._strikes("dropped-reply"):
            return
        self._charge(reply)
        with self._changed:
            self._write(reply)

    def _write(self, data: bytes) -> None:
        if self._master is not None:
            with suppress(BlockingIOError):  # nobody reads: lost, as on a real wire
                os.write(self._master, data)

    def _charge(self, data: bytes) -> None:
        if self._wire_time:
            time.sleep(len(data) * 10 / self.device.baud)

    def _strikes(self, name: str) -> Fault | None:
        """A fault of this name that is in force, used up once more."""
        now_s = time.monotonic()
        with self._changed:
            for trouble in self._troubles:
                if trouble.fault.name == name and trouble.now(now_s):
                    trouble.left -= 1
                    return trouble.fault
        return None

    def _look_at_faults(self) -> None:
        now_s = time.monotonic()
        self._troubles = [each for each in self._troubles if now_s < each.end_s and each.left > 0]
        if self._strikes("reboot"):
            self._reboot()
        unplugged = any(each.fault.name == "unplug" and each.now(now_s) for each in self._troubles)
        if unplugged and self._master is not None:
            self._unplug()
        elif not unplugged and self._master is None:
            self._reboot()
            self._plug()

    def _reboot(self) -> None:
        self.device.reboot()
        self._plant = self._new_plant()

    def _new_plant(self) -> Plant:
        return Plant(self._response, delay_us=self._delay_us, slew_rad_per_s=self._slew, at=CENTRE)

    def _plug(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        if self._link is not None:
            beside = self._link.with_name(f".{self._link.name}.{os.getpid()}")
            beside.unlink(missing_ok=True)
            beside.symlink_to(self.port)
            beside.replace(self._link)

    def _unplug(self) -> None:
        with self._changed:
            if self._master is None:
                return
            link = self._link
            if link is not None and link.is_symlink() and os.readlink(link) == self.port:
                link.unlink()
            os.close(self._master)
            os.close(self._slave)
            self._master = None
