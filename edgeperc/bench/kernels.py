"""Rates of the representation kernels on one core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeperc.bench.figures import Figures
from edgeperc.bench.timing import compare, core_ms
from edgeperc.packet import Events, Stamp
from edgeperc.represent import event_count, voxel_grid

EVENTS = 500_000


def measure(figures: Figures) -> None:
    """voxel_mev_s and count_mev_s at two sensor sizes, voxel_vs_add_at at the smaller one."""
    for size_px, suffix, aims in (
        ((346, 260), "", (100, 400)),
        ((640, 480), "_640x480", (None, None)),
    ):
        events = random_events(*size_px)
        rates = _rates(events)
        for name, rate, aim in zip(("voxel", "count"), rates, aims, strict=True):
            kernel = {"voxel": "voxel_grid", "count": "event_count"}[name]
            what = f"{kernel}: Mev/s on one core, {size_px[0]} × {size_px[1]} px"
            figures.add(f"{name}_mev_s{suffix}", rate, what, aim=aim)
    events = random_events(346, 260)
    grid = voxel_grid(events, bins=5)
    comparison = compare(
        lambda: add_at_voxels(events, bins=5),
        lambda: voxel_grid(events, bins=5, out=grid),
        rounds=5,
        baseline_reps=2,
        reps=10,
    )
    figures.add(
        "voxel_vs_add_at", comparison.pairs[0].speedup, "voxel_grid, times numpy.add.at", aim=10
    )


def _rates(events: Events) -> tuple[float, float]:
    """Million events a second of voxel_grid and event_count, into buffers that are kept."""
    grid, counts = voxel_grid(events, bins=5), event_count(events)
    voxel_ms = core_ms(lambda: voxel_grid(events, bins=5, out=grid), reps=30)
    count_ms = core_ms(lambda: event_count(events, out=counts), reps=30)
    return len(events) / voxel_ms / 1e3, len(events) / count_ms / 1e3


def random_events(width_px: int, height_px: int) -> Events:
    """Events anywhere within 50 ms."""
    rng = np.random.default_rng(0)
    return Events(
        stamp=Stamp(source="random", seq=0, start_ns=0, end_ns=50_000_000),
        t=np.sort(rng.integers(0, 50_000, EVENTS)),
        x=rng.integers(0, width_px, EVENTS, dtype=np.uint16),
        y=rng.integers(0, height_px, EVENTS, dtype=np.uint16),
        p=rng.random(EVENTS) < 0.5,
        width_px=width_px,
        height_px=height_px,
    )


def add_at_voxels(events: Events, *, bins: int) -> NDArray[np.float32]:
    """`voxel_grid` in plain numpy, the baseline of its speed."""
    grid = np.zeros((bins, events.height_px, events.width_px), np.float32)
    place = (bins - 1) * (events.t - events.t[0]) / max(int(events.t[-1] - events.t[0]), 1)
    lower = place.astype(np.int64)
    sign = np.where(events.p, 1.0, -1.0)
    later = sign * (place - lower)
    np.add.at(grid, (lower, events.y, events.x), sign - later)
    inside = lower + 1 < bins
    cells = (lower[inside] + 1, events.y[inside], events.x[inside])
    np.add.at(grid, cells, later[inside])
    return grid
