"""Facts about this machine that decide how fast it is: heat, clocks, power, memory, priority.

    machine = Machine()                  # or Machine(folder), with proc/ and sys/ below it
    machine.power_mode(), machine.throttling()
    machine_notes()                      # what a person should know of it, for a daemon's status

All is read from files of the kernel and of NVIDIA's tools; what is not there is empty. What a
Jetson says is as its documentation has it, not run on hardware.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeperc.inference.engines import building

_NICE = 23
"""CAP_SYS_NICE, with which a process may take any priority."""
_FANS = ("fan", "pwm")
_TIME_ERROR = 5
_KEPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine, or one whose files lie below another root."""

    root: Path = Path("/")

    def board(self) -> str:
        """What it is, as its firmware says."""
        for name in (
            "proc/device-tree/model",
            "sys/firmware/devicetree/base/model",
            "sys/class/dmi/id/product_name",
        ):
            if said := self._text(name):
                return said
        return ""

    def is_jetson(self) -> bool:
        """Whether it is a Jetson: NVIDIA's release file is there, or the board says so."""
        if (self.root / "etc/nv_tegra_release").exists():
            return True
        return "nvidia,tegra" in self._text("proc/device-tree/compatible")

    def temperatures(self) -> Mapping[str, float]:
        """Degrees Celsius of each thermal zone that has any."""
        found = {}
        for zone in sorted(self._glob("sys/class/thermal/thermal_zone*")):
            millis = _number(_read(zone / "temp"))
            if millis is not None and -40_000 < millis < 200_000:
                found[_read(zone / "type") or zone.name] = millis / 1000
        return found

    def throttling(self) -> tuple[str, ...]:
        """What slows it down now, one line each. Fans that turn are no throttling."""
        return tuple(self._throttling())

    def throttled_before(self) -> int:
        """How often its processors were slowed down for heat or current since it was started."""
        counts = (
            *self._glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"),
            *self._glob("sys/class/hwmon/hwmon*/oc*_event_cnt"),
        )
        return sum(_number(_read(path)) or 0 for path in counts)

    def governors(self) -> tuple[str, ...]:
        """Who chooses the clocks of the processors; empty where nobody can."""
        files = self._glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
        return tuple(sorted({_read(path) for path in files} - {""}))

    def power_mode(self) -> str:
        """The mode of NVIDIA's nvpmodel, or the profile of ACPI."""
        status = re.search(r"pmode:(\d+)", self._text("var/lib/nvpmodel/status"))
        if status is None:
            return self._text("sys/firmware/acpi/platform_profile")
        names = re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", self._text("etc/nvpmodel.conf"))
        known: dict[int, str] = {int(number): name for number, name in names}
        return known.get(int(status[1]), f"mode {int(status[1])}")

    def memory_bytes(self) -> tuple[int, int]:
        """Available, and all there is; zeros where nobody knows."""
        found: dict[str, str] = dict(re.findall(r"(\w+):\s+(\d+) kB", self._text("proc/meminfo")))
        available, total = (1024 * int(found.get(key, 0)) for key in ("MemAvailable", "MemTotal"))
        return available, total

    def may_have_priority(self) -> bool:
        """Whether this process may ask for real-time priority."""
        if resource.getrlimit(resource.RLIMIT_RTPRIO)[0] != 0:
            return True
        capabilities = re.search(r"CapEff:\s*(\w+)", self._text("proc/self/status"))
        return bool(capabilities and int(capabilities[1], 16) >> _NICE & 1)

    def _throttling(self) -> Iterator[str]:
        for device in sorted(self._glob("sys/class/thermal/cooling_device*")):
            kind, state = _read(device / "type"), _number(_read(device / "cur_state"))
            if state and state > 0 and not any(fan in kind.lower() for fan in _FANS):
                yield f"{kind or device.name} is slowed down ({state} of {_top(device)})"
        for zone in sorted(self._glob("sys/class/thermal/thermal_zone*")):
            millis = _number(_read(zone / "temp"))
            limit = _passive(zone)
            if millis is not None and limit and millis >= limit:
                name = _read(zone / "type") or zone.name
                yield f"{name} is at {millis / 1000:.0f} °C, where slowing down begins"

    def _text(self, name: str) -> str:
        return _read(self.root / name)

    def _glob(self, pattern: str) -> Iterator[Path]:
        try:
            yield from self.root.glob(pattern)
        except OSError:
            return


HERE = Machine()


def clock_is_set() -> bool | None:
    """Whether something keeps the wall clock right, as the kernel knows; None where it does not."""
    try:
        libc = ctypes.CDLL(None)
        state = int(libc.adjtimex(ctypes.create_string_buffer(512)))  # only asks
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def machine_notes(machine: Machine = HERE) -> tuple[str, ...]:
    """What a person should know of the machine: power, throttling, priority, engines in the making.

    At most every two seconds it is looked up anew; may be called from any thread.
    """
    with _lock:
        now_s = time.monotonic()
        until_s, notes = _notes.get(machine.root, (0.0, ()))
        if now_s >= until_s:
            notes = tuple(_look(machine))
            _notes[machine.root] = (now_s + _KEPT_S, notes)
        return notes


_lock = threading.Lock()
_notes: dict[Path, tuple[float, tuple[str, ...]]] = {}


def _look(machine: Machine) -> Iterator[str]:
    for build in building():
        yield f"building engine for {build.network}: {build.seconds:.0f} s"
    if mode := machine.power_mode():
        yield f"power mode {mode}"
    for slow in machine.throttling():
        yield f"throttling: {slow}"
    if not machine.may_have_priority():
        yield "real-time priority is not permitted"


def _passive(zone: Path) -> int:
    """The lowest temperature in m°C from which a zone slows the machine down; 0: none is known."""
    limits = []
    for kind in zone.glob("trip_point_*_type"):
        if _read(kind) == "passive":
            limit = _number(_read(kind.with_name(kind.name.replace("_type", "_temp"))))
            limits += [limit] if limit and limit > 0 else []
    return min(limits, default=0)


def _top(device: Path) -> str:
    return _read(device / "max_state") or "?"


def _read(path: Path) -> str:
    """A small file, without the zeros of the device tree; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 16).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
