"""The digital twin as the search camera behind the rig's mirror."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

import msgspec

from edgeperc.clock import Clock
from edgeperc.drivers.twin import NotNegative, Rate, Seed
from edgeperc.drivers.twin_wide import ExposureUs, middle_s
from edgeperc.errors import DeviceError
from edgeperc.packet import Frame, Gaze, Mirror, Stamp
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.rig import Mount
from edgeperc.twin.truth import Truth
from edgeperc.twin.views import SearchView

SHARP_PX = 0.5
"""A mirror that moves less than this while the shutter is open leaves no blur."""
MOST_LOOKS = 16
"""A blurred picture is the mean of at most so many."""

Side = Annotated[int, msgspec.Meta(ge=32, le=352)]


class TwinSearch:
    """Grey frames of 2.81° of the avenue, wherever the mirror points.

    seed: which avenue. rig: which mount of the mirror, see `edgeperc.twin.rig.Mount`; a calibration
    holds for one of them. exposure_us: the mirror's motion meanwhile blurs the picture. rate_hz: of
    `packets`; `expose` takes a picture when it is asked. duration_s: None = no end.
    """

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        mirror: Mirror,
        seed: Seed = 0,
        rig: Seed = 0,
        rate_hz: Rate = 120.0,
        width_px: Side = 224,
        height_px: Side = 224,
        exposure_us: ExposureUs = 1000.0,
        duration_s: NotNegative | None = None,
    ) -> None:
        mount = Mount.drawn(rig)
        self.view = SearchView(Avenue(seed), mount, width_px=width_px, height_px=height_px)
        self._name, self._clock, self._mirror = name, clock, mirror
        self._period_ns = 1e9 / rate_hz
        self._exposure_ns = round(exposure_us * 1000)
        self._end_ns = math.inf if duration_s is None else duration_s * 1e9
        self._closed = threading.Event()
        self._seq = 0
        self.view.image(0.0, Gaze(pan_rad=0.0, tilt_rad=0.0), noise=0)  # compiles what is new

    def packets(self) -> Iterator[Frame]:
        """Yield a frame each period."""
        number = 0
        while not self._closed.is_set():
            start_ns = round(number * self._period_ns)
            end_ns = start_ns + self._exposure_ns
            if end_ns > self._end_ns or not self._clock.wait_until(end_ns):
                return
            yield self._frame(start_ns, end_ns)
            number += 1

    def expose(self) -> Frame:
        """Take a picture now. Raises DeviceError once closed."""
        if self._closed.is_set():
            raise DeviceError(f"{self._name}: closed")
        start_ns = self._clock.now_ns()
        end_ns = start_ns + self._exposure_ns
        frame = self._frame(start_ns, end_ns)  # painted while the shutter is open
        self._clock.wait_until(end_ns)
        return frame

    def truth(self, frame: Frame) -> Truth:
        """Who is in one of this camera's frames."""
        assert frame.gaze
        return self.view.truth(middle_s(frame.stamp), frame.gaze)

    def close(self) -> None:
        """Stop after the frame in hand."""
        self._closed.set()

    def _frame(self, start_ns: int, end_ns: int) -> Frame:
        stamp = Stamp(source=self._name, seq=self._seq, start_ns=start_ns, end_ns=end_ns)
        self._seq += 1
        image = self.view.image(middle_s(stamp), self._path(stamp), noise=stamp.seq)
        gaze = self._mirror.measured((start_ns + end_ns) // 2)
        return Frame(stamp=stamp, image=image, gaze=gaze)

    def _path(self, stamp: Stamp) -> list[Gaze]:
        """Where the mirror passes during the exposure; one gaze if it lies still."""
        start_ns, open_ns = stamp.start_ns, stamp.end_ns - stamp.start_ns
        ends = [self._mirror.measured(start_ns + open_ns * k // 2) for k in range(3)]
        moved_px = sum(_apart_rad(a, b) for a, b in pairwise(ends)) / self.view.pixel_rad
        if moved_px < SHARP_PX:
            return ends[1:2]
        looks = min(math.ceil(moved_px) + 1, MOST_LOOKS)
        times_ns = [start_ns + open_ns * (2 * k + 1) // (2 * looks) for k in range(looks)]
        return [self._mirror.measured(time_ns) for time_ns in times_ns]


def _apart_rad(a: Gaze, b: Gaze) -> float:
    return math.hypot(a.pan_rad - b.pan_rad, a.tilt_rad - b.tilt_rad)
