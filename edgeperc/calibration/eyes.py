"""The cameras and the mirror of a rig, opened for a calibration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from edgeperc import plugin
from edgeperc.calibration.collect import Eyes, Picture
from edgeperc.clock import ReplayClock, SteppedClock, host_clock
from edgeperc.config import Rig
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame, Mirror
from edgeperc.steering.free_running import FreeRunning

_STALE_FRAMES = 10


@contextmanager
def opened(rig: Rig, rig_path: Path) -> Iterator[Eyes]:
    """Mirror, wide and search camera of a rig, closed in the end.

    A rig with a time of its own, such as the twin, is stepped through it as fast as it goes.
    """
    own_time = _has_own_time(rig, rig_path)
    clock = SteppedClock(ReplayClock(None)) if own_time else host_clock()
    injected = {"clock": clock, "now_ns": clock.now_ns}
    with ExitStack() as stack:

        def device(name: str, **more: Any) -> Any:
            return stack.enter_context(closing(_construct(rig, rig_path, name, injected, more)()))

        mirror = device("mirror")
        wide, search = device(rig.field.wide), device(rig.field.search, mirror=mirror)
        yield Eyes(
            wide=_next_of(wide) if own_time else _newest_of(wide),
            search=_look_of(search, mirror),
            mirror=mirror,
            wait_until=clock.wait_until,
            search_rad=math.radians(rig.field.search_deg),
        )


def _construct(
    rig: Rig, rig_path: Path, name: str, injected: Mapping[str, Any], more: Mapping[str, Any]
) -> Callable[[], Any]:
    """A constructor of the mirror or of a sensor. Raises ConfigError."""
    table = rig.mirror if name == "mirror" else rig.sensors[name]
    return plugin.prepare(
        table or {},
        kind="mirror" if name == "mirror" else "driver",
        where=f"{rig_path} [{name if name == 'mirror' else f'sensors.{name}'}]",
        folder=rig_path.parent,
        injected={"name": name, **injected, **more},
    )


def _has_own_time(rig: Rig, rig_path: Path) -> bool:
    """Whether the search camera needs a clock. Raises ConfigError for a rig that lacks a part."""
    if rig.mirror is None:
        raise ConfigError(f"{rig_path}: has no [mirror], so there is nothing to calibrate")
    for key, name in (("wide", rig.field.wide), ("search", rig.field.search)):
        if name not in rig.sensors:
            raise ConfigError(
                f"{rig_path} [field] {key}: '{name}' is no sensor",
                hint=f"its sensors are: {', '.join(rig.sensors)}",
            )
    driver = str(rig.sensors[rig.field.search].get("driver"))
    where = f"{rig_path} [sensors.{rig.field.search}] driver"
    construct = plugin.resolve(driver, kind="driver", where=where, folder=rig_path.parent)
    clock = inspect.signature(construct).parameters.get("clock")
    return clock is not None and clock.default is inspect.Parameter.empty


def _next_of(sensor: Any) -> Callable[[], Picture]:
    """The next frame of a sensor that steps through its own time."""
    packets = sensor.packets()

    def take() -> Picture:
        for packet in packets:
            if isinstance(packet, Frame):
                return packet.image
        raise DeviceError("the wide camera ended")

    return take


def _newest_of(sensor: Any) -> Callable[[], Picture]:
    """The newest frame of a camera that runs by itself."""
    running = FreeRunning(sensor)
    return lambda: running.expose().image


def _look_of(camera: Any, mirror: Mirror) -> Callable[[], Picture]:
    """A picture that was exposed after the mirror had come to rest."""
    eye = camera if hasattr(camera, "expose") else FreeRunning(camera)

    def take() -> Picture:
        for _ in range(_STALE_FRAMES):
            frame: Frame = eye.expose()
            if frame.stamp.start_ns >= mirror.settled_ns():
                return frame.image
        raise DeviceError(
            "the search camera's pictures are all older than the mirror's last move",
            hint="are they stamped with the host's clock?",
        )

    return take
