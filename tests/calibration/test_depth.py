from __future__ import annotations

import numpy as np
import pytest

from edgeperc.calibration.depth import Ground

GROUND = Ground(
    height_m=5.0,
    pitch_rad=np.radians(10),
    focal_px=800.0,
    centre_px=(480.0, 224.0),
    farthest_m=90.0,
)


def test_a_point_of_the_ground_is_as_far_as_it_is() -> None:
    at = np.array([[3.0, 20.0], [-8.0, 12.0], [0.0, 50.0]])  # aside and ahead, m
    right, ahead = at.T
    turned = np.stack(
        [
            right,
            5.0 * np.cos(GROUND.pitch_rad) - ahead * np.sin(GROUND.pitch_rad),
            5.0 * np.sin(GROUND.pitch_rad) + ahead * np.cos(GROUND.pitch_rad),
        ],
        axis=1,
    )
    wide_px = turned[:, :2] / turned[:, 2:] * 800 + (480.0, 224.0)
    assert GROUND.depth_m(wide_px) == pytest.approx(np.linalg.norm([*at.T, np.full(3, 5)], axis=0))


def test_the_horizon_and_the_sky_are_far() -> None:
    horizon_px = 224.0 - 800 * np.tan(GROUND.pitch_rad)
    sky = np.array([[480.0, horizon_px], [100.0, horizon_px - 1], [480.0, 0.0]])
    assert GROUND.depth_m(sky) == pytest.approx([90.0, 90.0, 90.0])
