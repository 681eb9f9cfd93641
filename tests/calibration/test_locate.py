from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeperc.calibration.locate import Match, grey, locate

RANDOM = np.random.default_rng(2)
WALL = cv2.GaussianBlur(RANDOM.normal(0, 1, (200, 300)).astype(np.float32), (0, 0), 2.0)
WIDE = np.clip(128 + 400 * WALL, 0, 255).astype(np.uint8)
SLOPE = np.array([[0.30, 0.02], [-0.02, 0.28]])


def look(at: tuple[float, float], slope: np.ndarray = SLOPE, side: int = 128) -> np.ndarray:
    """The search picture whose middle is at a place of WIDE, counted from its corner."""
    middle = (side - 1) / 2
    corner = np.array(at) - 0.5 - slope @ (middle, middle)
    warp = np.concatenate([slope, corner[:, None]], axis=1)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(WIDE.astype(np.float32), warp, (side, side), flags=flags)
    return np.clip(seen + RANDOM.normal(0, 2, seen.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("at", [(150.0, 100.0), (120.3, 80.7), (200.49, 120.51), (30.0, 170.0)])
def test_it_is_found_to_a_fraction_of_a_pixel(at: tuple[float, float]) -> None:
    found = locate(look(at), WIDE, near_px=np.add(at, (6, -5)), slope=SLOPE, window_px=10)
    assert isinstance(found, Match)
    assert np.abs(found.wide_px - at).max() < 0.1
    assert found.likeness > 0.9


def test_the_scale_need_be_right_only_about() -> None:
    at = (150.0, 100.0)
    search = look(at, SLOPE @ [[1.03, 0.02], [-0.02, 0.97]])
    found = locate(search, WIDE, near_px=np.array(at), slope=SLOPE, window_px=8)
    assert isinstance(found, Match)
    assert np.abs(found.wide_px - at).max() < 0.15


def test_light_and_gain_do_not_matter() -> None:
    search = (look((150.0, 100.0)) * 0.4 + 90).astype(np.uint8)
    found = locate(search, WIDE, near_px=np.array([150.0, 100.0]), slope=SLOPE, window_px=8)
    assert isinstance(found, Match)
    assert np.abs(found.wide_px - (150, 100)).max() < 0.1


def test_colour_is_made_grey() -> None:
    search = np.repeat(look((150.0, 100.0))[:, :, None], 3, axis=2)
    found = locate(search, WIDE, near_px=np.array([150.0, 100.0]), slope=SLOPE, window_px=8)
    assert isinstance(found, Match)
    assert grey(search).shape == (128, 128)


def stripes(period: int, width: int, height: int) -> np.ndarray:
    row = np.where(np.arange(width) % period < period / 2, 60, 190).astype(np.uint8)
    return np.tile(row, (height, 1))


STRIPES = stripes(40, 300, 200)


@pytest.mark.parametrize(
    ("search", "wide", "near", "window_px", "reason"),
    [
        (look((150.0, 100.0)), WIDE, (60.0, 60.0), 10, "not alike"),
        (np.full((128, 128), 90, np.uint8), WIDE, (150.0, 100.0), 10, "no contrast"),
        (look((150.0, 100.0))[:16, :16], WIDE, (150.0, 100.0), 10, "too small"),
        (look((150.0, 100.0)), WIDE, (150.0, -60.0), 10, "outside"),
        (look((150.0, 100.0)), WIDE, (4000.0, 9000.0), 10, "outside"),
        (stripes(80, 128, 128), STRIPES, (150.0, 100.0), 30, "ambiguous"),
    ],
)
def test_what_cannot_be_trusted_is_refused(
    search: np.ndarray, wide: np.ndarray, near: tuple[float, float], window_px: float, reason: str
) -> None:
    slope = np.eye(2) * 0.5 if wide is STRIPES else SLOPE
    assert locate(search, wide, near_px=np.array(near), slope=slope, window_px=window_px) == reason
