"""A search as a video: the panorama under its probability map, the gaze's trail, and what it sees.

+---------------------------------------+
| wide picture, map as a glow, tracks,  |
| trail and frame of the gaze           |
+---------------------------------------+
| the newest look, then the looks that  |
| found something of late, with boxes   |
+---------------------------------------+
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.file import Calibration
from edgeperc.packet import Frame, Gaze, Pair
from edgeperc.render.video import RATE_HZ, VideoFile
from edgeperc.result import Detections, Result, SearchMap

Picture: TypeAlias = NDArray[np.uint8]

WIDTH_PX = 1280
CROP_PX = 160
BAR_PX = 28
TRAIL_S = 0.5
WHITE, YELLOW, ORANGE = (255, 255, 255), (255, 220, 60), (255, 120, 0)
GREEN, CYAN = (90, 255, 120), (80, 200, 255)


class Overlay:
    """Where gazes lie in a wide picture that is drawn `WIDTH_PX` wide.

    calibration: for a size of wide picture. search_rad: angle that a search picture spans.
    """

    def __init__(
        self, calibration: Callable[[tuple[int, int]], Calibration], *, search_rad: float
    ) -> None:
        self._calibration = calibration
        self._half_rad = search_rad / 2
        self._glow_maps: dict[tuple[int, ...], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def places(self, gazes: Sequence[Gaze], size_px: tuple[int, int]) -> NDArray[np.intp]:
        """Pixels (N, 2) of the drawn picture; those that cannot be computed lie outside."""
        at = np.array([(gaze.pan_rad, gaze.tilt_rad) for gaze in gazes]).reshape(-1, 2)
        pixels = self._calibration(size_px).wide_px(at) * (WIDTH_PX / size_px[0])
        whole: NDArray[np.intp] = np.rint(np.nan_to_num(pixels, nan=-1e4)).astype(np.intp)
        return whole

    def corners(self, gaze: Gaze, size_px: tuple[int, int]) -> NDArray[np.intp]:
        """The rectangle that a look shows, (4, 2) pixels of the drawn picture."""
        half = self._half_rad
        around = [
            Gaze(pan_rad=gaze.pan_rad + x * half, tilt_rad=gaze.tilt_rad + y * half)
            for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))
        ]
        return self.places(around, size_px)

    def glow(self, beliefs: SearchMap, size_px: tuple[int, int]) -> NDArray[np.float32]:
        """The map in the drawn picture, 0 to 1: the square root, and 1 for the upper hundredth."""
        high = max(float(np.quantile(beliefs.intensity, 0.99)), 1e-9)
        heat = np.sqrt(np.clip(beliefs.intensity / high, 0, 1))
        x, y = self._lookup(beliefs, size_px)
        warped = cv2.remap(heat.astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=0.0)
        glow: NDArray[np.float32] = np.asarray(warped, np.float32)
        return glow

    def _lookup(
        self, beliefs: SearchMap, size_px: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For each pixel of the drawn picture its place in the map, in cells."""
        key = (*size_px, *beliefs.intensity.shape)
        if key not in self._glow_maps:
            scale = size_px[0] / WIDTH_PX
            height, width = beliefs.intensity.shape
            drawn_px = round(size_px[1] / scale)
            columns, rows = np.meshgrid(np.arange(WIDTH_PX), np.arange(drawn_px))
            wide_px = np.stack([columns.ravel(), rows.ravel()], axis=1) * scale
            pan_rad, tilt_rad = self._calibration(size_px).gaze(wide_px).T
            x = pan_rad / beliefs.cell_rad + width / 2 - 0.5
            y = height / 2 - tilt_rad / beliefs.cell_rad - 0.5
            shape = (drawn_px, WIDTH_PX)
            self._glow_maps[key] = (
                x.reshape(shape).astype(np.float32),
                y.reshape(shape).astype(np.float32),
            )
        return self._glow_maps[key]


class Render:
    """Draws a search into a video file (.mp4, .webm or .avi); a Viewer.

    wide, search: names of the sensors. Raises ConfigError if the file cannot be written.
    """

    def __init__(self, path: Path, overlay: Overlay, *, wide: str, search: str) -> None:
        self._video = VideoFile(path, rate_hz=RATE_HZ)
        self.where = str(path)
        self._overlay = overlay
        self._wide, self._search = wide, search
        self._lock = threading.Lock()
        self._panoramas: deque[Frame] = deque()
        self._hints: deque[Detections] = deque()
        self._look: Frame | None = None
        self._beliefs: SearchMap | None = None
        self._trail: deque[tuple[int, Gaze]] = deque()
        self._finds: deque[Picture] = deque(maxlen=WIDTH_PX // CROP_PX - 1)
        self._found = self._looks = 0
        self._next_ns: int | None = None

    def see(self, seen: Frame | Pair) -> None:
        """Keep the picture until its time has come."""
        with self._lock:
            if isinstance(seen, Pair):
                return
            if seen.stamp.source == self._wide:
                self._panoramas.append(seen)
            elif seen.stamp.source == self._search:
                self._look = seen

    def write(self, result: Result) -> None:
        """Take a result; looks move the video on."""
        with self._lock:
            if isinstance(result, SearchMap):
                self._beliefs = result
            elif isinstance(result, Detections) and result.gaze is None:
                self._hints.append(result)
            elif isinstance(result, Detections):
                self._add_look(result)

    def close(self) -> None:
        """Finish the file; may be called twice."""
        with self._lock:
            self._video.close()

    def _add_look(self, found: Detections) -> None:
        assert found.gaze
        now_ns = found.stamp.end_ns
        self._looks += 1
        self._trail.append((now_ns, found.gaze))
        while self._trail[0][0] < now_ns - TRAIL_S * 1e9:
            self._trail.popleft()
        if len(found.boxes) and self._look:
            self._found += 1
            self._finds.appendleft(_crop(self._look, found))
        if self._next_ns is None:
            self._next_ns = now_ns
        while now_ns >= self._next_ns:
            self._next_ns += round(1e9 / RATE_HZ)
            self._draw(found, now_ns)

    def _draw(self, found: Detections, now_ns: int) -> None:
        _skip_to(self._panoramas, now_ns)
        _skip_to(self._hints, now_ns)
        if not self._panoramas or not self._look:
            return
        panorama = self._panorama(self._panoramas[0], found)
        strip = np.zeros((CROP_PX, WIDTH_PX, 3), np.uint8)
        for k, crop in enumerate([_crop(self._look, found), *self._finds]):
            strip[:, k * CROP_PX : (k + 1) * CROP_PX] = crop
        cv2.rectangle(strip, (1, 1), (CROP_PX - 2, CROP_PX - 2), YELLOW, 2)
        self._video.write(np.concatenate([panorama, strip, self._bar(now_ns)]))

    def _panorama(self, frame: Frame, found: Detections) -> Picture:
        """The wide picture with everything that is known drawn over it."""
        assert found.gaze
        size_px = (frame.image.shape[1], frame.image.shape[0])
        scale = WIDTH_PX / size_px[0]
        picture = _rgb(frame.image, WIDTH_PX, round(size_px[1] * scale))
        if self._beliefs:
            picture = _glowing(picture, self._overlay.glow(self._beliefs, size_px))
        if self._hints:
            for box in self._hints[0].boxes * scale:
                x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
                cv2.rectangle(picture, (x0, y0), (x1, y1), CYAN, 1, cv2.LINE_AA)
        for place in self._overlay.places(self._tracks(), size_px):
            cv2.circle(picture, place.tolist(), 9, GREEN, 2, cv2.LINE_AA)
        trail = self._overlay.places([gaze for _, gaze in self._trail], size_px)
        for age, place in enumerate(trail[::-1].tolist()):
            cv2.circle(picture, place, max(1, 5 - age // 12), YELLOW, -1, cv2.LINE_AA)
        corners = self._overlay.corners(found.gaze, size_px).astype(np.int32)
        cv2.polylines(picture, [corners], True, YELLOW, 2, cv2.LINE_AA)
        return picture

    def _tracks(self) -> list[Gaze]:
        tracks = self._beliefs.tracks.tolist() if self._beliefs else []
        return [Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad) for pan_rad, tilt_rad, *_ in tracks]

    def _bar(self, now_ns: int) -> Picture:
        """What the numbers are."""
        bar = np.full((BAR_PX, WIDTH_PX, 3), 24, np.uint8)
        scheduler = self._beliefs.model.name if self._beliefs else ""
        text = (
            f"{now_ns * 1e-9:7.2f} s   {scheduler}   {self._looks} looks, {self._found} with finds"
            f"   {len(self._tracks())} tracks (green)   hints (blue)   gaze (yellow)"
        )
        cv2.putText(bar, text, (10, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
        return bar


def _skip_to(waiting: deque[Frame] | deque[Detections], now_ns: int) -> None:
    """Drop all but the newest of what has happened by now."""
    while len(waiting) > 1 and waiting[1].stamp.end_ns <= now_ns:
        waiting.popleft()


def _rgb(image: NDArray[np.uint8], width_px: int, height_px: int) -> Picture:
    """The picture resized, in colour, to be drawn on."""
    resized = np.asarray(cv2.resize(image, (width_px, height_px)), np.uint8)
    if image.ndim == 3:
        return resized
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB), np.uint8)


def _crop(frame: Frame, found: Detections) -> Picture:
    """A look with its boxes, square."""
    scale = CROP_PX / max(frame.image.shape[:2])
    crop = _rgb(frame.image, CROP_PX, CROP_PX)
    for box in found.boxes * scale:
        x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
        cv2.rectangle(crop, (x0, y0), (x1, y1), GREEN, 1, cv2.LINE_AA)
    return crop


def _glowing(picture: Picture, glow: NDArray[np.float32]) -> Picture:
    """Mix in orange where a map glows."""
    share = 0.5 * glow[:, :, None]
    mixed: Picture = (picture * (1 - share) + np.array(ORANGE, np.float32) * share).astype(np.uint8)
    return mixed
