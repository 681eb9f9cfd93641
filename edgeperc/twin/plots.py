"""What stands still along an avenue: houses, trees, hedges, lamps and signs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.cast import cast
from edgeperc.twin.roads import Bands, Road, bands
from edgeperc.twin.things import Quad, as_quads

REGIONS = (
    *("sky", "building", "tree", "road", "sidewalk", "grass", "object"),
    *("person", "vehicle"),
)
"""What a pixel shows; the last two move (or are parked)."""
SKY, BUILDING, TREE, ROADWAY, SIDEWALK, GRASS, OBJECT, FIRST_MOVER = range(8)
BEHIND_ALL = 31
"""Rank of ground and sky."""
STOREY_M, SHOP_M = 3.0, 3.6
EYE_M = 25.0
"""Height of the roof from which it is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """quads: (N,) scene.QUAD, nearest first, whose kind is 8 · rank + region.

    region: index into REGIONS. rank: how many tracks are nearer: it hides movers on the others.
    """

    quads: NDArray[Any]
    bands: Bands


def plots(
    rng: np.random.Generator, all_roads: tuple[Road, ...], tracks_m: NDArray[np.float64]
) -> Plots:
    """Furnish an avenue."""
    quads: list[Quad] = []
    for k, road in enumerate(all_roads):
        quads += _kerbside(rng, road)
        before = all_roads[k - 1].stop_m if k else 66.0
        quads += _garden(rng, before, road.start_m)
        if k > 1:
            quads += _houses(rng, before, road.start_m)
    quads += _skyline_of(rng, all_roads[-1].stop_m)
    table = as_quads(quads)
    table = table[np.argsort(table["z0"], kind="stable")]
    table["kind"] += 8 * np.searchsorted(tracks_m, table["z0"]).astype(np.int32)
    return Plots(quads=table, bands=bands(rng, all_roads))


def _panel(
    x: float,
    z: float,
    width: float,
    y0: float,
    y1: float,
    texture: int,
    region: int,
    gain: float,
    u: float = 1.0,
    v: float = 1.0,
) -> Quad:
    """A picture that faces the viewer, from x to x + width, repeated u times along, v down."""
    return (x, z, x + width, z, y0, y1, 0, u, v, gain, texture, region, 0)


def _tree(rng: np.random.Generator, x: float, z: float, height: float) -> Quad:
    width = height * rng.uniform(0.6, 0.8)
    gain = rng.uniform(0.8, 1.3)
    return _panel(x - width / 2, z, width, 0, height, rng.choice(cast().trees), TREE, gain)


def _along(rng: np.random.Generator, z: float, spacing_m: float) -> Iterable[float]:
    """Places along a line at a distance, roughly regular, beyond both edges of the field."""
    reach = 0.7 * z + 10
    places = np.arange(-reach, reach, spacing_m)
    return [float(x) for x in places + rng.uniform(-0.3, 0.3, len(places)) * spacing_m]


def _kerbside(rng: np.random.Generator, road: Road) -> Iterable[Quad]:
    """Lamps, signs and trees at the outer edge of both pavements."""
    pictures = cast()
    for z in (road.start_m - 0.3, road.stop_m + 0.3):
        if rng.random() < 0.65:
            for x in _along(rng, z, rng.uniform(12, 26)):
                if rng.random() < 0.75:
                    yield _tree(rng, x, z + rng.uniform(-0.2, 0.2), rng.uniform(4.5, 8.0))
        for x in _along(rng, z, rng.uniform(30, 44)):
            yield _panel(x - 0.09, z + 0.1, 0.18, 0, 7.0, pictures.pole, OBJECT, 1.0)
            yield _panel(x - 1.5, z + 0.1, 1.5, 6.9, 7.02, pictures.lamp, OBJECT, 1.0)
    for x in _along(rng, road.near_m, 40.0):
        if rng.random() < 0.6:
            z, size = road.near_m - 0.4, rng.uniform(0.6, 0.9)
            face = rng.choice(pictures.signs)
            yield _panel(x - size / 2, z - 0.02, size, 2.2, 2.2 + size, face, OBJECT, 1.0)
            yield _panel(x - 0.05, z, 0.1, 0, 2.3, pictures.pole, OBJECT, 1.0)


def _garden(rng: np.random.Generator, near_m: float, far_m: float) -> Iterable[Quad]:
    """Trees and hedges between a pavement and the next."""
    area = (far_m - near_m) * 1.3 * near_m
    for _ in range(int(area / 400 * rng.uniform(0.3, 1.4))):
        z = rng.uniform(near_m + 1, far_m - 1)
        yield _tree(rng, rng.uniform(-0.7, 0.7) * z, z, rng.uniform(3.5, 10.0))
    for _ in range(int(rng.integers(1, 5))):
        z, length, height = rng.uniform(near_m + 1, far_m - 1), rng.uniform(6, 25), 1.4
        x = rng.uniform(-0.7, 0.6) * z
        hedge = rng.choice(cast().hedges)
        yield _panel(x, z, length, 0, height, hedge, TREE, rng.uniform(0.8, 1.1), length / 1.5)


def _houses(rng: np.random.Generator, near_m: float, far_m: float) -> Iterable[Quad]:
    """Low houses between two roads, and tall ones at the sides, which hide the roads' ends."""
    for _ in range(int(rng.integers(1, 5))):
        z = rng.uniform(near_m + 8, far_m - 3)
        x = rng.uniform(-0.6, 0.5) * z
        yield from _house(rng, x, z, rng.uniform(8, 18), int(rng.integers(0, 2)))
    for side in (-1, 1):
        if rng.random() < 0.6:
            z, width = rng.uniform(near_m + 4, far_m - 3), rng.uniform(14, 24)
            inner = side * rng.uniform(0.45, 0.52) * z
            left = inner if side > 0 else inner - width
            yield from _house(rng, left, z, width, int(rng.integers(3, 7)))


def _house(
    rng: np.random.Generator, x: float, z: float, width: float, storeys: int
) -> Iterable[Quad]:
    """A shop and storeys above it; the roof, seen from above, is a strip on top of the front."""
    pictures, gain = cast(), rng.uniform(0.75, 1.15)
    top = SHOP_M + STOREY_M * storeys
    shop, face = rng.choice(pictures.shops), rng.choice(pictures.facades)
    bays = max(1, round(width / 6))
    yield _panel(x, z, width, 0, SHOP_M, shop, BUILDING, gain, bays)
    if storeys:
        rows, columns = float(storeys), float(round(width / 3))
        yield _panel(x, z, width, SHOP_M, top, face, BUILDING, gain, columns, rows)
    depth_m = rng.uniform(8, 14)
    if top < EYE_M:
        seen = top + (EYE_M - top) * depth_m / (z + depth_m)
        roof = rng.choice(pictures.walls)
        yield _panel(x, z, width, top, seen, roof, BUILDING, rng.uniform(0.6, 1.3), width / 8, 0.5)


def _skyline_of(rng: np.random.Generator, last_m: float) -> Iterable[Quad]:
    """Two rows of houses behind the last road, and the town beyond."""
    for z, low, high, gaps in (
        (last_m + rng.uniform(6, 14), 1, 7, 0.15),
        (last_m + 45, 4, 12, 0.1),
    ):
        x, end = -0.75 * z, 0.75 * z
        while x < end:
            width = rng.uniform(10, 24)
            if rng.random() > gaps:
                front_m, storeys = z + rng.uniform(0, 2), int(rng.integers(low, high))
                yield from _house(rng, x, front_m, width, storeys)
            x += width + (rng.uniform(0, 3) if rng.random() < 0.3 else 0)
    for x in _along(rng, last_m + 3, rng.uniform(10, 25)):
        yield _tree(rng, x, last_m + rng.uniform(2, 5), rng.uniform(5, 11))
    yield _panel(-420, 520.0, 840, 0, 46, cast().skyline, BUILDING, 1.0, 9)
