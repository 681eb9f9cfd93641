"""Vehicles seen from their left, the nose at x = 0, in the units of `textures.Drawing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeperc.twin.textures import Drawing, Points
from edgeperc.twin.wardrobe import car_side, van_side

DARK, GLASS, SHEEN = 0.02, 0.045, 0.13


@dataclass(frozen=True, slots=True)
class Body:
    """A make of vehicle: what it looks like in a paint, and its usual length and height in m."""

    draw: Callable[[float], Drawing]
    length_m: float
    height_m: float


def _vehicle(paint: float, outline: Points, windows: Sequence[Points], hubs: Points) -> Drawing:
    """hubs: x and radius (in units of the length) of each wheel."""
    drawing = Drawing(128, 64)
    drawing.polygon(outline, paint)
    drawing.box(0.02, 0.42, 0.98, 0.44, 0.8 * paint)
    for window in windows:
        drawing.polygon(window, GLASS)
        (x0, y0), (x1, y1) = window[0], window[1]
        drawing.polygon([(x0, y0), (x1, y1), (x1 + 0.03, y1), (x0 + 0.03, y0)], SHEEN)
    drawing.box(0.02, 0.1, 0.98, 0.2, 0.03)
    drawing.box(0.0, 0.0, 1.0, 0.09, DARK)  # the shadow below
    for x, radius in hubs:
        drawing.ellipse(x, 2.2 * radius, radius, 2.2 * radius, DARK)
        drawing.ellipse(x, 2.2 * radius, 0.5 * radius, 1.1 * radius, 0.3)
    drawing.box(0.005, 0.45, 0.04, 0.54, 0.85)
    drawing.box(0.965, 0.46, 0.995, 0.58, 0.25)
    return drawing


def hatchback(paint: float) -> Drawing:
    """Short, with a steep tail."""
    outline = (
        *((0, 0.14), (0, 0.5), (0.05, 0.58), (0.24, 0.66), (0.38, 0.96), (0.8, 0.98)),
        *((0.96, 0.66), (1, 0.58), (1, 0.14)),
    )
    windows = [
        [(0.29, 0.66), (0.4, 0.9), (0.56, 0.92), (0.56, 0.66)],
        [(0.59, 0.66), (0.59, 0.92), (0.78, 0.92), (0.88, 0.68)],
    ]
    return _vehicle(paint, outline, windows, [(0.19, 0.09), (0.81, 0.09)])


def estate(paint: float) -> Drawing:
    """Long-roofed, with three windows."""
    outline = (
        *((0, 0.14), (0, 0.5), (0.05, 0.56), (0.26, 0.65), (0.38, 0.95), (0.45, 0.97)),
        *((0.9, 0.95), (0.98, 0.66), (1, 0.5), (1, 0.14)),
    )
    windows = [
        [(0.3, 0.65), (0.4, 0.9), (0.52, 0.91), (0.52, 0.65)],
        [(0.55, 0.65), (0.55, 0.91), (0.71, 0.91), (0.71, 0.65)],
        [(0.74, 0.65), (0.74, 0.91), (0.87, 0.9), (0.93, 0.67)],
    ]
    return _vehicle(paint, outline, windows, [(0.18, 0.082), (0.8, 0.082)])


def off_roader(paint: float) -> Drawing:
    """High and square, on big wheels."""
    outline = (
        *((0, 0.2), (0, 0.58), (0.04, 0.64), (0.27, 0.69), (0.35, 0.96), (0.93, 0.98)),
        *((0.98, 0.7), (1, 0.6), (1, 0.2)),
    )
    windows = [
        [(0.31, 0.69), (0.37, 0.91), (0.54, 0.92), (0.54, 0.69)],
        [(0.57, 0.69), (0.57, 0.92), (0.74, 0.92), (0.74, 0.69)],
        [(0.77, 0.69), (0.77, 0.92), (0.9, 0.91), (0.94, 0.71)],
    ]
    drawing = _vehicle(paint, outline, windows, [(0.19, 0.1), (0.8, 0.1)])
    drawing.box(0.4, 0.975, 0.88, 1.0, 0.1)  # a rack
    return drawing


def pickup(paint: float) -> Drawing:
    """A cabin and an open bed."""
    outline = (
        *((0, 0.18), (0, 0.52), (0.05, 0.6), (0.24, 0.66), (0.32, 0.96), (0.56, 0.97)),
        *((0.6, 0.64), (1, 0.62), (1, 0.18)),
    )
    windows = [[(0.28, 0.66), (0.35, 0.91), (0.54, 0.91), (0.55, 0.66)]]
    return _vehicle(paint, outline, windows, [(0.18, 0.09), (0.79, 0.09)])


def lorry(paint: float) -> Drawing:
    """A small lorry: a cabin, and a bright box with a stripe of the paint."""
    outline = ((0, 0.12), (0, 0.45), (0.04, 0.66), (0.24, 0.7), (0.24, 0.12))
    window = [(0.04, 0.46), (0.07, 0.64), (0.18, 0.64), (0.18, 0.46)]
    drawing = _vehicle(paint, outline, [window], [])
    drawing.box(0.27, 0.2, 1.0, 0.99, 0.62)
    drawing.box(0.27, 0.45, 1.0, 0.6, paint)
    drawing.box(0.24, 0.14, 1.0, 0.2, 0.06)
    for hub in (0.14, 0.78):
        drawing.ellipse(hub, 0.13, 0.07, 0.13, DARK)
        drawing.ellipse(hub, 0.13, 0.035, 0.065, 0.3)
    return drawing


BODIES = (
    Body(car_side, 4.2, 1.42),
    Body(hatchback, 3.8, 1.48),
    Body(estate, 4.3, 1.46),
    Body(off_roader, 4.2, 1.7),
    Body(pickup, 4.6, 1.72),
    Body(van_side, 4.8, 2.15),
    Body(lorry, 4.9, 2.6),
)
