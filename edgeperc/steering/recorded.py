"""The looks of a search as they were recorded: pictures through the mirror, and where it pointed.

A search decides where to look by what it sees, so what it saw can be played to it: detector, map
and scheduler do all that they did, and only the mirror does not move by what the scheduler says. It
goes where it went. If nothing else has changed, that is what the scheduler says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from edgeperc.drivers.replay import Replay
from edgeperc.errors import DataError, DeviceError
from edgeperc.packet import Frame, Gaze, GazeRange, Mirror
from edgeperc.steering.device import Device
from edgeperc.steering.shutter import Look
from edgeperc.validate import Validator

_ANYWHERE = GazeRange(
    lowest=Gaze(pan_rad=-math.pi, tilt_rad=-math.pi / 2),
    highest=Gaze(pan_rad=math.pi, tilt_rad=math.pi / 2),
)


class RecordedMirror:
    """A mirror that goes where it went, whatever it is asked for. gaze: where it points now."""

    range = _ANYWHERE
    clipped = 0
    source = "as recorded"

    def __init__(self) -> None:
        self.gaze = Gaze(pan_rad=0.0, tilt_rad=0.0)

    def aim(self, gaze: Gaze) -> Gaze:
        """See Mirror."""
        return self.range.clip(gaze)

    def measured(self, time_ns: int | None = None) -> Gaze:
        """Where the picture in hand was taken."""
        return self.gaze

    def settled_ns(self) -> int:
        """See Mirror."""
        return 0

    def close(self) -> None:
        """See Mirror."""


class RecordedLooks:
    """Looks, one for each recorded picture; the face of a Shutter.

    waits: by number of the picture, how long after its slot's beginning it was taken, in ns.
    period_ns: of the slots, for pictures of which that is not known. max_gap_us: see Validator.
    """

    def __init__(
        self,
        *,
        camera: Device[Replay],
        waits: Mapping[int, int],
        period_ns: int,
        max_gap_us: int,
    ) -> None:
        self.camera = camera
        self._mirror = RecordedMirror()
        self.mirror: Device[Mirror] = Device("mirror", lambda: self._mirror, lossless=True)
        self.unsettled = self.missed = 0
        self._waits, self._period_ns = waits, period_ns
        self._validator = Validator("raise", max_gap_us=max_gap_us)

    def arm(self) -> None:
        """The next look is there already."""

    def __iter__(self) -> Iterator[Look]:
        """Looks until the recording ends; where it breaks, the camera is lost for good."""
        self.mirror.get()
        camera = self.camera.get()
        if camera is None:
            return
        try:
            for packet in self._validator.stream(camera.packets()):
                if isinstance(packet, Frame) and packet.gaze:
                    self.camera.works()
                    self.camera.status.frames += 1
                    self._mirror.gaze = packet.gaze
                    yield self._look(packet)
        except DataError as error:
            self.camera.lost(DeviceError(str(error), hint=error.hint))

    def _look(self, frame: Frame) -> Look:
        start_ns = frame.stamp.start_ns
        late_ns = self._waits.get(frame.stamp.seq, start_ns % self._period_ns)
        return Look(due_ns=start_ns - late_ns, late_ns=late_ns, frame=frame)
