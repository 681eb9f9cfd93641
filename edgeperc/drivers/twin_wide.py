"""The digital twin as the wide camera of the search rig: an avenue seen from a roof."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Annotated

import msgspec

from edgeperc.clock import Clock
from edgeperc.drivers.twin import NotNegative, Rate, Seed, Size
from edgeperc.packet import Frame, Stamp
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.rig import wide_lens
from edgeperc.twin.truth import Truth
from edgeperc.twin.views import UprightView

ExposureUs = Annotated[float, msgspec.Meta(gt=0, le=100_000)]


class TwinWide:
    """Grey frames of 60° of the avenue, on one clock that starts at 0.

    seed: which avenue. exposure_us: what the stamps say; the picture is of its middle.
    duration_s: None = no end.
    """

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        seed: Seed = 0,
        rate_hz: Rate = 10.0,
        width_px: Size = 960,
        height_px: Size = 448,
        exposure_us: ExposureUs = 1000.0,
        duration_s: NotNegative | None = None,
    ) -> None:
        self.view = UprightView(Avenue(seed), wide_lens(width_px, height_px))
        self._name, self._clock = name, clock
        self._period_ns = 1e9 / rate_hz
        self._exposure_ns = min(round(exposure_us * 1000), int(self._period_ns))
        self._end_ns = math.inf if duration_s is None else duration_s * 1e9
        self._closed = threading.Event()

    def packets(self) -> Iterator[Frame]:
        """Yield a frame after each period."""
        seq = 0
        while not self._closed.is_set():
            end_ns = round((seq + 1) * self._period_ns)
            if end_ns > self._end_ns or not self._clock.wait_until(end_ns):
                return
            start_ns = end_ns - self._exposure_ns
            stamp = Stamp(source=self._name, seq=seq, start_ns=start_ns, end_ns=end_ns)
            yield Frame(stamp=stamp, image=self.view.image(middle_s(stamp), noise=seq))
            seq += 1

    def truth(self, frame: Frame) -> Truth:
        """Who is in one of this camera's frames."""
        return self.view.truth(middle_s(frame.stamp))

    def close(self) -> None:
        """Stop after the frame in hand."""
        self._closed.set()


def middle_s(stamp: Stamp) -> float:
    """The middle of an exposure, in s."""
    return (stamp.start_ns + stamp.end_ns) * 0.5e-9
