"""A calibration that follows its rig: small slow corrections from what the search camera finds."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import ArrayLike

from edgeperc.calibration.file import Calibration
from edgeperc.calibration.models import Array
from edgeperc.packet import Gaze

log = logging.getLogger("edgeperc")
_MANY = 50


class Refiner:
    """A calibration plus a correction that is affine in the wide pixel, learned while running.

    px_per_rad: of the search camera. gain: share of a residual that one detection moves the
    correction by. bound_px: the correction is never longer, anywhere in the picture. gate_px: a
    longer residual is another object, not an error of calibration. step_px: what is beyond it
    counts no more than it. All px are search-camera px. Used from one thread.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        px_per_rad: float,
        gain: float = 0.02,
        bound_px: float = 20.0,
        gate_px: float = 56.0,
        step_px: float = 8.0,
    ) -> None:
        self.calibration = calibration
        self.accepted = 0
        self.rejected = 0
        self._px_per_rad = px_per_rad
        self._gain, self._bound_px = gain, bound_px
        self._gate_px, self._step_px = gate_px, step_px
        size = np.array([calibration.rig.width_px, calibration.rig.height_px])
        self._half_px = size / 2
        self._correction_px = np.zeros((3, 2))  # by (1, x, y), to (pan, tilt)
        self._logged_px = np.zeros((3, 2))
        self._rejected_in_a_row = 0
        self._at_bound = False

    @property
    def longest_px(self) -> float:
        """No correction within the picture is longer."""
        return float(np.linalg.norm(self._correction_px, axis=1).sum())

    def gaze(self, wide_px: ArrayLike, depth_m: ArrayLike | None = None) -> Array:
        """As Calibration.gaze, corrected."""
        gaze = self.calibration.gaze(wide_px, depth_m)
        return gaze + self._correction_rad(np.asarray(wide_px, np.float64))

    def wide_px(self, gaze: ArrayLike, depth_m: ArrayLike | None = None) -> Array:
        """As Calibration.wide_px, corrected."""
        wanted = np.asarray(gaze, np.float64)
        seen = self.calibration.wide_px(wanted, depth_m)
        for _ in range(2):  # the correction hardly varies over its own length
            seen = self.calibration.wide_px(wanted - self._correction_rad(seen), depth_m)
        return seen

    def observe(
        self,
        wide_px: tuple[float, float],
        looked: Gaze,
        offset_px: tuple[float, float],
        depth_m: float | None = None,
    ) -> bool:
        """Learn from one confirmed detection; False if it was no use.

        wide_px: where the wide camera saw the object, at the time of the look. looked: measured
        gaze of the look. offset_px: middle of the box minus middle of the search picture, right
        and down.
        """
        found = np.array([looked.pan_rad, looked.tilt_rad])
        found = found + np.array([offset_px[0], -offset_px[1]]) / self._px_per_rad
        error_px = (found - self.gaze([wide_px], depth_m)[0]) * self._px_per_rad
        length_px = math.hypot(*error_px)
        if not length_px <= self._gate_px:  # also NaN
            self._reject()
            return False
        self.accepted += 1
        self._rejected_in_a_row = 0
        basis = self._basis(np.array([wide_px]))[0]
        step_px = error_px * min(1.0, self._step_px / max(length_px, 1e-9))
        self._correction_px += self._gain * np.outer(basis, step_px) / (basis @ basis)
        self._hold()
        return True

    def _reject(self) -> None:
        self.rejected += 1
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row == _MANY:
            log.warning(
                "calibration: %d detections in a row were not where they should be;"
                " calibrate again",
                _MANY,
            )

    def _hold(self) -> None:
        """Keep within the bound, and tell of changes."""
        at_bound = self.longest_px >= self._bound_px
        if at_bound:
            self._correction_px *= self._bound_px / self.longest_px
            if not self._at_bound:
                log.warning(
                    "calibration: its correction has reached %.0f px, the most that is allowed;"
                    " calibrate again",
                    self._bound_px,
                )
        self._at_bound = at_bound or (self._at_bound and self.longest_px > 0.9 * self._bound_px)
        if np.linalg.norm(self._correction_px - self._logged_px, axis=1).sum() >= 1.0:
            self._logged_px = self._correction_px.copy()
            right, up = self._correction_px[0]
            log.info(
                "calibration: corrected by %.1f px right, %.1f px up, at most %.1f px, after %d"
                " detections",
                right,
                up,
                self.longest_px,
                self.accepted,
            )

    def _correction_rad(self, wide_px: Array) -> Array:
        corrected: Array = self._basis(wide_px) @ self._correction_px / self._px_per_rad
        return corrected

    def _basis(self, wide_px: Array) -> Array:
        """(N, 3): 1, x, y, with x and y in [-1, 1]."""
        at = np.clip((wide_px - self._half_px) / self._half_px, -1.0, 1.0)
        return np.concatenate([np.ones((len(at), 1)), at], axis=1)
