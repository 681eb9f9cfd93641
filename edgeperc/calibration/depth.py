"""How far away what the wide camera sees is, where nothing measures it: the ground is flat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeperc.calibration.models import Array


@dataclass(frozen=True)
class Ground:
    """A level ground below an upright pinhole camera.

    height_m: of the camera. pitch_rad: how far its middle looks down. focal_px, centre_px: of its
    lens. farthest_m: what is taken at the horizon and above it.
    """

    height_m: float
    pitch_rad: float
    focal_px: float
    centre_px: tuple[float, float]
    farthest_m: float = 300.0

    def depth_m(self, wide_px: Array) -> Array:
        """(N,) m along the ray through each pixel, (N, 2)."""
        across, down = ((wide_px - self.centre_px) / self.focal_px).T
        sin, cos = np.sin(self.pitch_rad), np.cos(self.pitch_rad)
        length = np.sqrt(1 + across**2 + down**2)
        falls = (sin + cos * down) / length  # of the ray, over its length
        return np.asarray(self.height_m / np.maximum(falls, self.height_m / self.farthest_m))
