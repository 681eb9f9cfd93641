"""Where the roads of an avenue lie, and the ground between them, as bands of constant z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANE_M, PARKING_M, KERB_M = 3.4, 2.2, 0.25
WALKS = 2
"""Lines along each pavement on which people walk."""
ROAD, KERB, PAVING, YARD = range(4)
CELL_M = 6.0
"""A yard is lawn or paved in cells of this width along x."""
CELLS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """A road across the view, with its pavements; distances z in m, ascending.

    near_m .. far_m: from kerb to kerb. pavement_m: width of each pavement. lanes_m, walks_m,
    parked_m: where vehicles drive, people walk and cars stand. zebras_m: x of crossings.
    """

    near_m: float
    far_m: float
    pavement_m: float
    lanes_m: tuple[float, ...]
    walks_m: tuple[float, ...]
    parked_m: tuple[float, ...]
    zebras_m: tuple[float, ...]

    @property
    def start_m(self) -> float:
        """Where the near pavement begins."""
        return self.near_m - KERB_M - self.pavement_m

    @property
    def stop_m(self) -> float:
        """Where the far pavement ends."""
        return self.far_m + KERB_M + self.pavement_m


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """The ground, as the painter reads it.

    edges_m: (N + 1,) z ascending. kinds: (N,) int8 ROAD, KERB, PAVING or YARD. lawn: (N, CELLS)
    bool, for yards. lines: (L, 4) z, width, period and mark of a line along a road; period 0 is a
    solid one. zebras: (M, 4) x from, to, z from, to.
    """

    edges_m: NDArray[np.float64]
    kinds: NDArray[np.int8]
    lawn: NDArray[np.bool_]
    lines: NDArray[np.float64]
    zebras: NDArray[np.float64]


def roads(rng: np.random.Generator) -> tuple[Road, ...]:
    """A promenade and two or three roads, from about 80 to about 210 m away."""
    if rng.random() < 0.6:
        near = np.cumsum([rng.uniform(97, 104), rng.uniform(40, 52), rng.uniform(42, 54)])
    else:
        near = np.cumsum([rng.uniform(97, 115), rng.uniform(58, 84)])
    return (_promenade(rng), *(_road(rng, float(z)) for z in near))


def _promenade(rng: np.random.Generator) -> Road:
    """Two pavements and no road between them."""
    middle, pavement_m = rng.uniform(80, 86), rng.uniform(2.2, 3.4)
    near, far = _walks(middle, middle, pavement_m)
    return Road(
        near_m=middle,
        far_m=middle,
        pavement_m=pavement_m,
        lanes_m=(),
        walks_m=(*near, *far),
        parked_m=(),
        zebras_m=(),
    )


def _walks(
    near_m: float, far_m: float, pavement_m: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lines on the near and on the far pavement of a road."""
    steps = (np.arange(WALKS) + 0.5) * pavement_m / WALKS
    near, far = near_m - KERB_M - steps[::-1], far_m + KERB_M + steps
    return tuple(near.tolist()), tuple(far.tolist())


def _road(rng: np.random.Generator, near_m: float) -> Road:
    parking = rng.random(2) < 0.4
    pavement_m = rng.uniform(3.0, 4.2)
    lanes_start = near_m + PARKING_M * parking[0]
    far_m = lanes_start + 2 * LANE_M + PARKING_M * parking[1]
    near_walks, far_walks = _walks(near_m, far_m, pavement_m)
    parked = [near_m + 0.3] * bool(parking[0]) + [far_m - 1.9] * bool(parking[1])
    zebras = rng.uniform(-0.5, 0.5, int(rng.integers(0, 3))) * near_m
    return Road(
        near_m=near_m,
        far_m=far_m,
        pavement_m=pavement_m,
        lanes_m=(lanes_start + 0.8, lanes_start + LANE_M + 0.8),
        walks_m=(*near_walks, *far_walks),
        parked_m=tuple(parked),
        zebras_m=tuple(zebras.tolist()),
    )


def bands(rng: np.random.Generator, all_roads: tuple[Road, ...]) -> Bands:
    """The ground from the viewer's feet to the horizon."""
    edges, kinds = [0.0], []
    lines, zebras = [], []
    for road in all_roads:
        for stop, kind in (
            *((road.start_m, YARD), (road.near_m - KERB_M, PAVING), (road.near_m, KERB)),
            *((road.far_m, ROAD), (road.far_m + KERB_M, KERB), (road.stop_m, PAVING)),
        ):
            edges.append(stop)
            kinds.append(kind)
        if road.lanes_m:
            middle = road.lanes_m[0] - 0.8 + LANE_M
            lines.append((middle, 0.15, 8.0, 3.5))
            lines += [(z, 0.12, 0.0, 0.0) for z in (middle - LANE_M, middle + LANE_M)]
        zebras += [(x - 2.0, x + 2.0, road.near_m, road.far_m) for x in road.zebras_m]
    edges.append(1e9)
    kinds.append(YARD)
    lawn = rng.random((len(kinds), CELLS)) < rng.uniform(0.75, 0.95)
    return Bands(
        edges_m=np.array(edges),
        kinds=np.array(kinds, np.int8),
        lawn=lawn,
        lines=np.array(lines),
        zebras=np.array(zebras).reshape(-1, 4),
    )
