"""What a search believes, drawn into the wide camera's picture: heat, tracks, trail, the look."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Frame, Gaze
from edgeperc.result import Detections, SearchMap
from edgeperc.sinks.web_wire import heat_message

if TYPE_CHECKING:
    from edgeperc.calibration.file import Calibration
    from edgeperc.plan import Plan

COLUMNS = 320
"""Width of the heat; the page enlarges it."""
TRAIL_S = 1.0


def view_of(plan: Plan | None) -> SearchView | None:
    """The view of a plan that searches, or None. Raises ConfigError."""
    if plan is None or plan.app.search is None:
        return None
    from edgeperc.steering.calibrated import calibrations

    field = plan.rig.field
    return SearchView(
        calibrations(plan), wide=field.wide, search_rad=math.radians(field.search_deg)
    )


class SearchView:
    """Brings maps and gazes to pixels of the wide picture.

    calibration: for a size of wide picture. wide: the sensor's name. search_rad: angle that a
    search picture spans. `see` and `look` are called from other threads than `message`.
    """

    def __init__(
        self,
        calibration: Callable[[tuple[int, int]], Calibration],
        *,
        wide: str,
        search_rad: float,
    ) -> None:
        self._calibration = calibration
        self.wide, self._half_rad = wide, search_rad / 2
        self._size_px: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._trail: deque[tuple[int, Gaze]] = deque(maxlen=256)
        self._lookups: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def see(self, frame: Frame) -> None:
        """Learn how large the wide picture is."""
        if frame.stamp.source == self.wide:
            self._size_px = (frame.image.shape[1], frame.image.shape[0])

    def look(self, found: Detections) -> None:
        """Remember where the mirror looked."""
        assert found.gaze
        with self._lock:
            self._trail.append((found.stamp.end_ns, found.gaze))

    def message(self, beliefs: SearchMap) -> bytes | None:
        """The map, for the page; None before the first wide picture. Raises ConfigError."""
        size_px = self._size_px
        if size_px is None:
            return None
        high = max(float(np.quantile(beliefs.intensity, 0.99)), 1e-9)
        heat = 255 * np.clip(beliefs.intensity / high, 0, 1)
        x, y = self._lookup(beliefs, size_px)
        warped = cv2.remap(heat.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=0.0)
        tracks = beliefs.tracks.tolist()
        places = self._places([(pan, tilt) for pan, tilt, *_ in tracks], size_px)
        about = {
            "source": self.wide,
            "seq": beliefs.stamp.seq,
            "end_us": beliefs.stamp.end_ns // 1000,
            "model": beliefs.model.name,
            "expected": float(beliefs.intensity.sum()),
            "tracks": [
                [*place, round(confidence, 2), round(age_s, 1)]
                for place, (_, _, confidence, age_s) in zip(places, tracks, strict=True)
            ],
            **self._looks(size_px),
        }
        return heat_message(np.asarray(warped, np.uint8), about=about, picture_px=size_px)

    def _looks(self, size_px: tuple[int, int]) -> dict[str, Any]:
        """The gazes of the last second, the newest last, and what the newest look shows."""
        with self._lock:
            trail = list(self._trail)
        if not trail:
            return {"trail": [], "look": []}
        now_ns, gaze = trail[-1]
        recent = [each for end_ns, each in trail if now_ns - end_ns < TRAIL_S * 1e9]
        corners = [
            (gaze.pan_rad + x * self._half_rad, gaze.tilt_rad + y * self._half_rad)
            for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))
        ]
        return {
            "trail": self._places([(each.pan_rad, each.tilt_rad) for each in recent], size_px),
            "look": self._places(corners, size_px),
            "gaze_deg": [round(math.degrees(rad), 2) for rad in (gaze.pan_rad, gaze.tilt_rad)],
        }

    def _places(
        self, gazes_rad: list[tuple[float, float]], size_px: tuple[int, int]
    ) -> list[list[float]]:
        """Pixels of the wide picture; what cannot be computed lies outside."""
        if not gazes_rad:
            return []
        pixels = self._calibration(size_px).wide_px(np.array(gazes_rad))
        found: list[list[float]] = np.round(np.nan_to_num(pixels, nan=-1e4), 1).tolist()
        return found

    def _lookup(
        self, beliefs: SearchMap, size_px: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For each pixel of the heat its place in the map, in cells."""
        key = (*size_px, *beliefs.intensity.shape)
        if key not in self._lookups:
            scale = size_px[0] / COLUMNS
            rows = max(1, round(size_px[1] / scale))
            height, width = beliefs.intensity.shape
            x_px, y_px = np.meshgrid(np.arange(COLUMNS) + 0.5, np.arange(rows) + 0.5)
            wide_px = np.stack([x_px.ravel(), y_px.ravel()], axis=1) * scale
            pan_rad, tilt_rad = self._calibration(size_px).gaze(wide_px).T
            x = pan_rad / beliefs.cell_rad + width / 2 - 0.5
            y = height / 2 - tilt_rad / beliefs.cell_rad - 0.5
            self._lookups[key] = (
                x.reshape(rows, COLUMNS).astype(np.float32),
                y.reshape(rows, COLUMNS).astype(np.float32),
            )
        return self._lookups[key]
