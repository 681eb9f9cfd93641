"""From a camera's own times and counts to the host's clock and our numbers."""

from __future__ import annotations

_DRIFT = 1e-4  # of crystals, generously: 100 µs a second
_ID_RANGE = 65_535  # GigE Vision counts pictures from 1 to this, then from 1 again


class CameraClock:
    """Moves exposures from a camera's clock to the host's, by the pictures that came quickest.

    The shift is set by the first picture. A picture that is less late than those before shortens
    it; it may grow by 100 µs a second, so that a camera whose crystal runs fast or slow stays in
    step. What remains is the quickest way from the sensor to us, some milliseconds.
    """

    def __init__(self) -> None:
        self._shift_ns: float | None = None
        self._camera_ns = 0
        self._last_ns = 0

    def start_ns(self, camera_ns: int, latest_ns: int) -> int:
        """When an exposure began, on the host's clock; never before the one before.

        camera_ns: the same on the camera's clock. latest_ns: it cannot have been later than that:
        the picture's arrival less its exposure.
        """
        late_ns = latest_ns - camera_ns
        if self._shift_ns is None:
            self._shift_ns, self._last_ns = late_ns, latest_ns
        else:
            drift_ns = _DRIFT * max(camera_ns - self._camera_ns, 0)
            self._shift_ns = min(self._shift_ns + drift_ns, late_ns)
        self._camera_ns = camera_ns
        self._last_ns = max(camera_ns + round(self._shift_ns), self._last_ns)
        return self._last_ns


class PictureCount:
    """Numbers pictures from 0; what the camera took and we never got leaves a gap."""

    def __init__(self) -> None:
        self._seq = -1
        self._camera_id = 0

    def seq(self, camera_id: int, *, missed: int = 0) -> int:
        """The number of a picture.

        camera_id: the camera's count, 64 bits or GigE Vision's 16; one that stands still does not
        count. missed: pictures known to be lost since the last, for cameras that do not count.
        """
        step = (camera_id - self._camera_id) % _ID_RANGE or 1 + missed
        self._seq += step if self._seq >= 0 else 1
        self._camera_id = camera_id
        return self._seq
