"""Who is in a fleet, and what they do: presence, status and results of all its devices.

with Link(router) as link, Watcher(link, "default") as fleet:
    time.sleep(1.5)  # who is there says so, each second
    for device in fleet.devices():
        print(device.name, device.is_here, device.results)
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from google.protobuf.message import DecodeError
from rich.table import Table

from edgeperc.control import DaemonStatus
from edgeperc.errors import DataError
from edgeperc.fleet import keys
from edgeperc.fleet.link import Link
from edgeperc.proto.codec import from_message
from edgeperc.proto.control_codec import status_of
from edgeperc.proto.edgeperc.v1 import control_pb2, perception_pb2
from edgeperc.result import Result

MANY = 10_000
"""Devices that are remembered; names come over the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as it is seen from afar. since_s: monotonic time since when it is here, or gone."""

    name: str
    is_here: bool = False
    since_s: float = 0.0
    status: DaemonStatus | None = None
    results: int = 0
    last: Result | None = None
    streams: frozenset[str] = field(default=frozenset())


class Watcher:
    """Keeps what the devices of a fleet say from now on; presence also from before.

    results: take them, too; else presence and status alone. May be asked from any thread.
    """

    def __init__(self, link: Link, fleet: str = "default", *, results: bool = True) -> None:
        self._lock = threading.Lock()
        self._devices: dict[str, Device] = {}
        everyone = keys.device(keys.check("fleet", fleet), "*")
        session = link.session
        presence = _in_its_thread(self._presence)
        self._held: list[Any] = [
            session.liveliness().declare_subscriber(f"{everyone}/alive", presence, history=True),
            session.declare_subscriber(f"{everyone}/status", _in_its_thread(self._status)),
        ]
        if results:
            heard = _in_its_thread(self._result)
            self._held.append(session.declare_subscriber(f"{everyone}/results/**", heard))

    def devices(self) -> tuple[Device, ...]:
        """All that were ever here, by name."""
        with self._lock:
            return tuple(self._devices[name] for name in sorted(self._devices))

    def close(self) -> None:
        """Hear no more; may be called twice."""
        held, self._held = self._held, []
        for each in held:
            each.undeclare()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _presence(self, sample: Any) -> None:
        is_here = "PUT" in str(sample.kind)
        self._change(sample, is_here=is_here, since_s=time.monotonic())

    def _status(self, sample: Any) -> None:
        message = control_pb2.GetStatusResponse()
        try:
            message.ParseFromString(sample.payload.to_bytes())
        except DecodeError:
            return
        self._change(sample, status=status_of(message))

    def _result(self, sample: Any) -> None:
        message = perception_pb2.Result()
        try:
            message.ParseFromString(sample.payload.to_bytes())
            result = from_message(message)
        except (DecodeError, DataError):
            return
        _, known = self._known(sample)
        stream = f"{result.stamp.source}/{result.model.name}"
        self._change(
            sample,
            results=known.results + 1,
            last=result,
            streams=known.streams | {stream},
        )

    def _known(self, sample: Any) -> tuple[str, Device]:
        name = str(sample.key_expr).split("/")[3]
        return name, self._devices.get(name, Device(name=name))

    def _change(self, sample: Any, **values: Any) -> None:
        with self._lock:
            name, known = self._known(sample)
            if name in self._devices or len(self._devices) < MANY:
                self._devices[name] = replace(known, **values)


def _in_its_thread(call: Any) -> Any:
    """A handler that Zenoh calls in a thread of its own. By default it begins one of Python's for
    each, which is waited for at the interpreter's end, before anything can close the session.
    """
    import zenoh

    return zenoh.handlers.Callback(call, indirect=False)


def fleet_table(devices: tuple[Device, ...], now_s: float) -> Table:
    """The fleet for a person. now_s: monotonic."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "here", "app", "state", "results/s", "seen", "trouble"):
        table.add_column(column)
    for device in devices:
        table.add_row(*_cells(device, now_s))
    return table


def fleet_report(devices: tuple[Device, ...]) -> list[dict[str, Any]]:
    """The fleet for a program."""
    return [
        {
            "device": device.name,
            "here": device.is_here,
            "app": device.status.app if device.status else "",
            "state": device.status.state if device.status else "",
            "rate_hz": round(_rate_hz(device), 2),
            "results": device.results,
            "streams": sorted(device.streams),
            "errors": list(device.status.errors) if device.status else [],
        }
        for device in devices
    ]


def _cells(device: Device, now_s: float) -> tuple[str, ...]:
    status = device.status
    age_s = max(0.0, now_s - device.since_s)
    here = "[green]yes[/green]" if device.is_here else f"[red]gone {age_s:.0f} s[/red]"
    if status is None:
        return device.name, here, "", "", "", str(device.results or ""), ""
    trouble = status.errors[0] if status.errors else ""
    rate = f"{_rate_hz(device):.1f}"
    return device.name, here, status.app, status.state, rate, str(device.results), trouble


def _rate_hz(device: Device) -> float:
    """Results of all pipelines of a device a second, as it says itself."""
    if device.status is None or not device.is_here:
        return 0.0
    return sum(pipeline.meter.rate_hz for pipeline in device.status.pipelines)
