"""The suite `calibration`: how far a fitted calibration looks past what it should show."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeperc.bench.figures import Figures
from edgeperc.bench.two_mirrors import SIDE_PX, Truth
from edgeperc.calibrate import calibrate
from edgeperc.calibration import Points, fit, load_calibration
from edgeperc.errors import ConfigError
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.rig import Mount
from edgeperc.twin.views import UprightView

DEPTHS_M = {"30m": (30.0, 30.0), "10_60m": (10.0, 60.0), "5_60m": (5.0, 60.0)}
AIMS = {("cubic", "30m"): 2.0, ("cubic-1z", "30m"): 2.0, ("cubic-1z", "10_60m"): 3.0}
SIDE, TESTS, SEEDS = 8, 2000, 30
TWIN_SEED, TWIN_S = 2026, 60


def measure(figures: Figures, recording: Path | None = None) -> None:
    """Fit all models to the made-up rig at three ranges of depth, and calibrate the twin."""
    if recording:
        raise ConfigError("the calibration suite measures on rigs of its own, not on a recording")
    for where, depth_m in DEPTHS_M.items():
        figures.progress(f"the made-up rig at {where.replace('_', ' to ')}")
        rows = [_reached(seed, depth_m) for seed in range(SEEDS)]
        for name in rows[0]:
            rms_px = [row[name] for row in rows]
            key = f"{name.replace('-', '_')}_rms_px_{where}"
            what = (
                f"{name}, median of {SEEDS} fits to {SIDE} x {SIDE} points; worst {max(rms_px):.2f}"
            )
            figures.add(key, float(np.median(rms_px)), what, aim=AIMS.get((name, where)))
    figures.progress("the twin")
    miss_px = _twin_miss_px()
    figures.add(
        "twin_rms_px", _rms(miss_px), f"{len(miss_px)} people and cars of the twin, truth", aim=2.0
    )
    figures.add("twin_p95_px", float(np.quantile(miss_px, 0.95)), "of the same")


def _reached(seed: int, depth_m: tuple[float, float]) -> dict[str, float]:
    """Search-camera px rms of each model, on points that it was not fitted to."""
    truth = Truth()
    found = fit(truth.grid(seed, SIDE, depth_m), truth.lens, truth.view)
    tests: Points = truth.points(1000 + seed, TESTS, depth_m, noise_px=0.0)
    return {
        one.model.name: _rms(
            truth.error_px(one.model.gaze(tests.wide_px, tests.inverse_depth), tests)
        )
        for one in found.fits
    }


def _twin_miss_px() -> NDArray[np.float64]:
    """How far the twin's calibration misses the middles of whole people and cars, in px."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "twin.toml"
        calibrate("twin-search", out=path)
        calibration = load_calibration(path)
    view = UprightView(Avenue(TWIN_SEED), mount=Mount.drawn(0))
    misses = []
    for time_s in range(0, TWIN_S, 4):
        truth = view.truth(float(time_s))
        boxes = truth.boxes
        whole = (boxes[:, 0] > 1) & (boxes[:, 2] < 959) & (boxes[:, 3] < 447)
        middles = (boxes[whole, :2] + boxes[whole, 2:]) / 2
        misses.append(calibration.gaze(middles) - truth.gaze_rad[whole])
    px_per_rad = SIDE_PX / math.radians(2.81)
    miss_px: NDArray[np.float64] = np.linalg.norm(np.concatenate(misses), axis=1) * px_per_rad
    return miss_px


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
