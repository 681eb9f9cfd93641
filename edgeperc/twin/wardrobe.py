"""What the street is furnished with: functions that draw one texture each.

Luminance is linear reflectance in 0..1: asphalt is near 0.15, white paint near 0.75.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from edgeperc.twin.textures import Drawing, tileable_noise

SALOON = (
    *((0, 0.2), (0, 0.52), (0.05, 0.57), (0.27, 0.66), (0.4, 0.97), (0.74, 0.98)),
    *((0.88, 0.68), (1, 0.64), (1, 0.2)),
)
VAN = (*((0, 0.12), (0, 0.45), (0.1, 0.55), (0.2, 0.93), (0.25, 0.98), (1, 0.98), (1, 0.12)),)
"""Outlines seen from the left."""
WALK_PHASES = 8
"""Pictures of one stride of a walking person."""


def facade(rng: np.random.Generator) -> Drawing:
    """One bay of one storey, 3 m × 3 m, repeated over a building."""
    wall = rng.uniform(0.18, 0.55)
    drawing = Drawing(32, 32, wall)
    if rng.random() < 0.4:  # courses of stone
        for course in np.linspace(0, 1, 7)[1:-1]:
            drawing.box(0, course, 1, course + 0.02, wall * 0.85)
    half, low, high = rng.uniform(0.16, 0.36), rng.uniform(0.2, 0.35), rng.uniform(0.72, 0.88)
    glass, frame = rng.uniform(0.03, 0.12), min(0.8, wall * rng.uniform(1.3, 1.9))
    drawing.box(0.5 - half - 0.05, low - 0.05, 0.5 + half + 0.05, high + 0.05, frame)
    drawing.box(0.5 - half, low, 0.5 + half, high, glass)
    drawing.polygon(
        [(0.5 - half, high), (0.5, high), (0.5 - half, low)], glass * 2.5
    )  # a reflection
    drawing.box(0.48, low, 0.52, high, frame)
    if rng.random() < 0.3:
        drawing.box(0, 0, 1, 0.06, wall * 0.6)
    return drawing


def shopfront(rng: np.random.Generator) -> Drawing:
    """The ground floor of a building: 6 m of windows, a door and a fascia, 3.6 m high."""
    wall = rng.uniform(0.15, 0.4)
    drawing = Drawing(64, 32, wall)
    drawing.box(0, 0.8, 1, 0.97, rng.uniform(0.1, 0.7))
    for start in (0.05, 0.37):
        drawing.box(start, 0.15, start + 0.28, 0.75, 0.06)
        drawing.polygon([(start, 0.75), (start + 0.2, 0.75), (start, 0.35)], 0.16)
    drawing.box(0.72, 0, 0.9, 0.75, rng.uniform(0.05, 0.3))
    drawing.box(0.75, 0.3, 0.87, 0.7, 0.08)
    return drawing


def blind_wall(rng: np.random.Generator) -> Drawing:
    """The side of a building: stained plaster, one tile is 8 m × 8 m."""
    drawing = Drawing(32, 32, 0.0)
    stains = 1 + 0.12 * tileable_noise(rng, drawing.shape[0], 0.3)
    drawing.luminance[:] = rng.uniform(0.2, 0.4) * np.clip(stains, 0.5, 1.5)
    return drawing


def tree(rng: np.random.Generator) -> Drawing:
    """A crown of leaves on a trunk; the picture is about 0.7 as wide as high."""
    drawing = Drawing(64, 128)
    drawing.polygon([(0.46, 0), (0.54, 0), (0.52, 0.45), (0.48, 0.45)], 0.08)
    leaf = rng.uniform(0.12, 0.2)
    for _ in range(60):
        angle, radius = rng.uniform(0, 2 * math.pi), math.sqrt(rng.uniform(0, 1))
        x, y = 0.5 + 0.33 * radius * math.cos(angle), 0.68 + 0.2 * radius * math.sin(angle)
        drawing.ellipse(x, y, rng.uniform(0.07, 0.13), rng.uniform(0.04, 0.08), leaf)
    return _leafy(drawing, rng, leaf, above=0.42)


def hedge(rng: np.random.Generator) -> Drawing:
    """A strip of bushes, repeated sideways; as wide as high."""
    drawing = Drawing(64, 64)
    leaf = rng.uniform(0.1, 0.18)
    for x in np.linspace(0, 1, 9):
        drawing.ellipse(x, 0.45, 0.12, 0.45 + (0.08 * math.sin(9 * x) if 0 < x < 1 else 0), leaf)
    drawing.box(0, 0, 1, 0.7, leaf)
    return _leafy(drawing, rng, leaf, above=0.0)


def _leafy(drawing: Drawing, rng: np.random.Generator, leaf: float, *, above: float) -> Drawing:
    """Give the part above a height light, shade and ragged edges."""
    height, width = drawing.shape
    noise = tileable_noise(rng, max(height, width), 0.42)[:height, :width]
    rows = slice(0, round(height * (1 - above)))
    shade = np.linspace(1.35, 0.7, rows.stop, dtype=np.float32)[:, None]
    drawing.luminance[rows] = np.clip(leaf * shade * (1 + 0.7 * noise[rows]), 0.02, 0.8)
    drawing.alpha[rows] *= noise[rows] > -1.5
    return drawing


def pole() -> Drawing:
    """A round grey post, lit from one side; stretched to any height."""
    drawing = Drawing(8, 8, 0.22)
    drawing.box(0.0, 0, 0.3, 1, 0.36)
    drawing.box(0.8, 0, 1.0, 1, 0.14)
    return drawing


def lamp() -> Drawing:
    """A lamp head or arm: a plain dark bar."""
    return Drawing(8, 8, 0.12)


def sign(rng: np.random.Generator) -> Drawing:
    """A traffic sign: a disc, a triangle or a board, with something printed on it."""
    drawing = Drawing(32, 32)
    rim, field, ink = rng.uniform(0.15, 0.3), rng.uniform(0.6, 0.8), 0.05
    kind = rng.integers(3)
    if kind == 0:
        drawing.ellipse(0.5, 0.5, 0.47, 0.47, rim)
        drawing.ellipse(0.5, 0.5, 0.36, 0.36, field)
        drawing.box(0.28, 0.43, 0.72, 0.57, ink)
    elif kind == 1:
        drawing.polygon([(0.03, 0.08), (0.97, 0.08), (0.5, 0.95)], rim)
        drawing.polygon([(0.2, 0.18), (0.8, 0.18), (0.5, 0.75)], field)
        drawing.box(0.46, 0.25, 0.54, 0.55, ink)
    else:
        drawing.box(0.08, 0.05, 0.92, 0.95, rim)
        drawing.polygon([(0.25, 0.15), (0.75, 0.15), (0.5, 0.8)], field)
    return drawing


def traffic_light(lit: int) -> Drawing:
    """A signal head with one of three lamps lit, top first."""
    drawing = Drawing(16, 32)
    drawing.box(0.12, 0.02, 0.88, 0.98, 0.05)
    for k, y in enumerate((0.82, 0.5, 0.18)):
        drawing.ellipse(0.5, y, 0.24, 0.12, 0.95 if k == lit else 0.12)
    return drawing


def car_side(paint: float) -> Drawing:
    """A saloon seen from its left: the nose is at x = 0; 4.4 m × 1.5 m."""
    drawing = Drawing(128, 64)
    drawing.polygon(
        SALOON,
        paint,
    )
    drawing.polygon([(0.31, 0.66), (0.42, 0.91), (0.56, 0.92), (0.56, 0.66)], 0.04)
    drawing.polygon([(0.58, 0.66), (0.58, 0.92), (0.73, 0.92), (0.83, 0.67)], 0.05)
    drawing.box(0.56, 0.22, 0.57, 0.66, paint * 0.6)
    drawing.box(0, 0.12, 1, 0.24, 0.03)  # sill and the shadow below it
    drawing.box(0.0, 0.0, 1.0, 0.12, 0.02)
    for hub in (0.19, 0.8):
        drawing.ellipse(hub, 0.21, 0.083, 0.22, 0.02)
        drawing.ellipse(hub, 0.21, 0.045, 0.12, 0.3)
    drawing.box(0.01, 0.45, 0.05, 0.53, 0.8)
    drawing.box(0.95, 0.48, 0.99, 0.58, 0.25)
    return drawing


def car_end(paint: float, *, rear: bool) -> Drawing:
    """The lower half of a car seen from behind or from the front; 1.8 m × 1 m."""
    drawing = Drawing(64, 32)
    drawing.box(0, 0.0, 1, 0.2, 0.02)
    drawing.box(0.06, 0.0, 0.2, 0.3, 0.015)
    drawing.box(0.8, 0.0, 0.94, 0.3, 0.015)
    drawing.polygon([(0, 0.18), (0, 0.65), (0.03, 0.97), (0.97, 0.97), (1, 0.65), (1, 0.18)], paint)
    drawing.box(0.02, 0.3, 0.98, 0.36, paint * 0.5)
    drawing.box(0.36, 0.4, 0.64, 0.53, 0.7)  # number plate
    glow = 0.3 if rear else 0.9
    drawing.box(0.03, 0.6, 0.2, 0.82, glow)
    drawing.box(0.8, 0.6, 0.97, 0.82, glow)
    if not rear:
        drawing.box(0.28, 0.58, 0.72, 0.8, 0.04)
    return drawing


def car_cabin(paint: float) -> Drawing:
    """The glass and roof of a car, from either end; 1.8 m × 0.55 m."""
    drawing = Drawing(64, 32)
    drawing.polygon([(0.05, 0), (0.95, 0), (0.82, 0.98), (0.18, 0.98)], paint)
    drawing.polygon([(0.12, 0.02), (0.88, 0.02), (0.77, 0.8), (0.23, 0.8)], 0.05)
    drawing.polygon([(0.12, 0.02), (0.4, 0.02), (0.3, 0.8), (0.23, 0.8)], 0.12)
    return drawing


def van_side(paint: float) -> Drawing:
    """A delivery van seen from its left, the nose at x = 0; 5.4 m × 2.3 m."""
    drawing = Drawing(128, 64)
    drawing.polygon(
        VAN,
        paint,
    )
    drawing.polygon([(0.14, 0.57), (0.22, 0.88), (0.33, 0.88), (0.33, 0.57)], 0.05)
    drawing.box(0.4, 0.2, 0.41, 0.95, paint * 0.7)
    drawing.box(0.5, 0.5, 0.9, 0.75, paint * 0.6)  # lettering
    drawing.box(0.0, 0.0, 1.0, 0.13, 0.02)
    for hub in (0.18, 0.8):
        drawing.ellipse(hub, 0.14, 0.065, 0.15, 0.02)
        drawing.ellipse(hub, 0.14, 0.03, 0.07, 0.3)
    return drawing


def van_end(paint: float, *, rear: bool) -> Drawing:
    """A van from behind or from the front; 2 m × 2.3 m."""
    drawing = Drawing(64, 64)
    drawing.box(0, 0.0, 1, 0.14, 0.02)
    drawing.polygon([(0, 0.1), (0, 0.7), (0.04, 0.98), (0.96, 0.98), (1, 0.7), (1, 0.1)], paint)
    if rear:
        drawing.box(0.495, 0.15, 0.505, 0.95, paint * 0.4)
        drawing.box(0.14, 0.6, 0.46, 0.86, 0.05)
        drawing.box(0.54, 0.6, 0.86, 0.86, 0.05)
    else:
        drawing.polygon([(0.08, 0.56), (0.92, 0.56), (0.86, 0.88), (0.14, 0.88)], 0.05)
        drawing.box(0.25, 0.25, 0.75, 0.38, 0.04)
    drawing.box(0.04, 0.26, 0.14, 0.4, 0.3 if rear else 0.9)
    drawing.box(0.86, 0.26, 0.96, 0.4, 0.3 if rear else 0.9)
    drawing.box(0.38, 0.16, 0.62, 0.22, 0.7)
    return drawing


def person(rng: np.random.Generator, *, side: bool) -> list[Drawing]:
    """One passer-by in WALK_PHASES pictures of a stride, half as wide as high.

    side: seen from the side, walking to the left; otherwise from the front.
    """
    skin, coat, trousers = rng.uniform(0.15, 0.5), rng.uniform(0.04, 0.6), rng.uniform(0.03, 0.3)
    bag = rng.random() < 0.4
    pictures = []
    for k in range(WALK_PHASES):
        swing = math.sin(2 * math.pi * k / WALK_PHASES)
        lift = math.cos(2 * math.pi * k / WALK_PHASES)
        drawing = Drawing(64, 128)
        _legs(drawing, swing, lift, trousers, side=side)
        reach = 0.2 * swing if side else 0.0
        for hand, shade in ((-reach, 0.8), (reach, 1.15)):
            shoulder = 0.5 if side else 0.5 + (0.15 if shade > 1 else -0.15)
            elbow = (shoulder + hand * 0.5 + (0 if side else (shoulder - 0.5) * 0.35), 0.63)
            drawing.limb([(shoulder, 0.79), elbow, (shoulder + hand, 0.5)], 0.045, coat * shade)
            if shade < 1:
                _torso(drawing, coat, side=side)
        if bag:
            drawing.box(0.58, 0.4, 0.72, 0.52, 0.1)
        drawing.ellipse(0.5, 0.925, 0.11 if side else 0.1, 0.07, skin)
        drawing.polygon([(0.39, 0.93), (0.61, 0.93), (0.58, 1.0), (0.42, 1.0)], 0.05)
        pictures.append(drawing)
    return pictures


def _torso(drawing: Drawing, coat: float, *, side: bool) -> None:
    half = 0.1 if side else 0.16
    drawing.polygon(
        [
            (0.5 - half, 0.84),
            (0.5 + half, 0.84),
            (0.5 + half * 0.9, 0.45),
            (0.5 - half * 0.9, 0.45),
        ],
        coat,
    )


def _legs(drawing: Drawing, swing: float, lift: float, trousers: float, *, side: bool) -> None:
    for sign_of_leg in (-1, 1):
        shade = trousers * (0.75 if sign_of_leg < 0 else 1.1)
        if side:
            foot = 0.5 + 0.28 * swing * sign_of_leg
            knee = (0.5 + 0.13 * swing * sign_of_leg - 0.06 * max(0.0, lift * sign_of_leg), 0.26)
            up = 0.02 + 0.06 * max(0.0, lift * sign_of_leg)
            drawing.limb([(0.5, 0.47), knee, (foot, up)], 0.065, shade)
            drawing.limb([(foot, up), (foot - 0.1, up)], 0.035, 0.03)
        else:
            x = 0.5 + 0.08 * sign_of_leg
            up = 0.01 + 0.08 * max(0.0, swing * sign_of_leg)
            drawing.limb([(x, 0.47), (x, 0.25), (x, up)], 0.07, shade)
            drawing.box(x - 0.05, up, x + 0.05, up + 0.03, 0.03)


def skyline(rng: np.random.Generator) -> Drawing:
    """The far end of every street: roofs and hills, repeated sideways."""
    drawing = Drawing(128, 32)
    edges = np.linspace(0, 1, 17)
    for left, right in pairwise(edges):
        drawing.box(left, 0, right, rng.uniform(0.35, 0.95), rng.uniform(0.25, 0.45))
    return drawing
