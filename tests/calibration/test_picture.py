from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeperc.calibration import fit
from edgeperc.calibration.picture import HELD_OUT, OUTLIER, USED, draw


def share_of(picture: Any, colour: str) -> float:
    """How much of a picture has a colour, about."""
    wanted = np.array([int(colour[k : k + 2], 16) for k in (5, 3, 1)])
    return float((np.abs(picture.astype(int) - wanted).max(axis=2) < 12).mean())


def test_arrows_and_bars_of_every_kind_are_drawn(truth: Any, tmp_path: Path) -> None:
    points = truth.points(1, 60, (30.0, 30.0))
    clean = fit(points, truth.lens, truth.view)
    wide_px = points.wide_px.copy()
    wide_px[:4] += 80
    dirty = fit(replace(points, wide_px=wide_px), truth.lens, truth.view)
    wide = np.full((2160, 3840), 200, np.uint8)
    draw(clean, tmp_path / "clean.png", title="rig", wide=wide)
    draw(dirty, tmp_path / "new" / "dirty.png", title="rig")
    plain, marked = (cv2.imread(str(tmp_path / name)) for name in ("clean.png", "new/dirty.png"))
    assert plain is not None
    assert marked is not None
    for colour in (USED, HELD_OUT):
        assert share_of(plain, colour) > 0.002
        assert share_of(marked, colour) > 0.002
    assert share_of(marked, OUTLIER) > 3 * share_of(plain, OUTLIER)


def test_a_perfect_fit_can_be_drawn(truth: Any, tmp_path: Path) -> None:
    points = truth.points(1, 60, (30.0, 30.0), 0.0)
    exact = fit(points, truth.lens, truth.view)
    straight = replace(points, gaze=exact.fits[0].model.gaze(points.wide_px, points.inverse_depth))
    draw(fit(straight, truth.lens, truth.view), tmp_path / "exact.png", title="rig")
    assert (tmp_path / "exact.png").stat().st_size > 10_000
