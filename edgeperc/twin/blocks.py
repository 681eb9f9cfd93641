"""What stands still: blocks of 24 m with their buildings, trees, lamps, signs and parked cars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.scene import BACKGROUND, BLOCK_M, OBJECT, VEGETATION
from edgeperc.twin.stock import stock
from edgeperc.twin.things import (
    BUILDING_LAYER,
    FAR_LAYER,
    Quad,
    as_quads,
    facing,
    standing,
    vehicle,
)

STOREY_M, SHOP_M = 3.0, 3.6
NON_NEGATIVE = 1 << 20
"""Added to block and lap numbers, which may be negative where numpy's seeds may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is the same along a whole street, drawn from its seed.

    road_m, facade_m: distance of the kerb and of the façades from the road's middle. sun: gain of
    the left and the right façades. trees, parked: share of places that are taken.
    """

    seed: int
    road_m: float
    facade_m: float
    sun: tuple[float, float]
    trees: float
    parked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """quads: (N,) QUAD. cover, zebra: see `scene.Ground`."""

    quads: NDArray[Any]
    cover: NDArray[np.int8]
    zebra: bool


@lru_cache(maxsize=256)
def build_block(layout: Layout, index: int) -> Block:
    """Block `index` of a street, always the same; it starts at z = index · BLOCK_M."""
    zebra = has_zebra(layout.seed, index)
    quads: list[Quad] = []
    cover = np.zeros((2, 2), np.int8)
    start = index * BLOCK_M
    for k, side in enumerate((-1, 1)):
        rng = np.random.default_rng((layout.seed, 2, k, index + NON_NEGATIVE))
        cover[k] = rng.random(2) < (0.4, 0.7)
        quads += _buildings(layout, rng, start, side)
        quads += _greenery(layout, rng, start, side)
        quads += _furniture(layout, rng, start, side, zebra=zebra)
        quads += _parked_cars(layout, rng, start, side, zebra=zebra)
    return Block(quads=as_quads(quads), cover=cover, zebra=zebra)


def has_zebra(seed: int, block: int) -> bool:
    """Whether a block starts with a pedestrian crossing."""
    return dice(seed, 3, block)[0] < 0.3


@lru_cache(maxsize=4096)
def dice(seed: int, topic: int, *index: int) -> tuple[float, ...]:
    """Six numbers in [0, 1), always the same for the same question."""
    key = (seed, topic, *(k + NON_NEGATIVE for k in index))
    return tuple(np.random.default_rng(key).random(6).tolist())


def _buildings(layout: Layout, rng: np.random.Generator, start: float, side: int) -> Iterable[Quad]:
    pictures, gain = stock(), layout.sun[int(side > 0)]
    x, behind = side * layout.facade_m, side * (layout.facade_m + 12)
    height = SHOP_M + STOREY_M * int(rng.integers(1, 5))
    yield standing(
        *(behind, start, behind, start + BLOCK_M, 0, height, rng.choice(pictures.facades)),
        *(BACKGROUND, FAR_LAYER, 8, height / STOREY_M, 0.8 * gain),
    )
    lower_m = 0.0  # height of the building before: its neighbour's side shows above it
    cuts = np.cumsum([0.0, *((24,), (12, 12), (9, 15), (8, 8, 8))[rng.integers(4)]])
    for near, far in pairwise(start + cuts):
        if rng.random() < 0.17:  # a gap between buildings, perhaps with a hedge
            if rng.random() < 0.6:
                yield standing(
                    *(x, near, x, far, 0, rng.uniform(1.0, 1.8), rng.choice(pictures.hedges)),
                    *(VEGETATION, BUILDING_LAYER, (far - near) / 1.5, 1, gain),
                )
            lower_m = 0.0
            continue
        storeys = int(rng.integers(1, 6))
        height = SHOP_M + STOREY_M * storeys
        wall = rng.choice(pictures.walls)
        if height > lower_m:
            yield standing(
                *(x, near, behind, near, lower_m, height, wall),
                *(BACKGROUND, BUILDING_LAYER, 1.5, (height - lower_m) / 8, 0.8),
            )
        lower_m = height
        yield standing(
            *(x, near, x, far, 0, SHOP_M, rng.choice(pictures.shops)),
            *(BACKGROUND, BUILDING_LAYER, round((far - near) / 6), 1, gain),
        )
        yield standing(
            *(x, near, x, far, SHOP_M, height, rng.choice(pictures.facades)),
            *(BACKGROUND, BUILDING_LAYER, round((far - near) / 3), storeys, gain),
        )


def _greenery(layout: Layout, rng: np.random.Generator, start: float, side: int) -> Iterable[Quad]:
    for z in start + np.array([4.0, 13.0]) + rng.uniform(0, 6, 2):
        if rng.random() < layout.trees:
            height = rng.uniform(4.5, 8.5)
            yield facing(
                *(side * (layout.road_m + 0.9), z, 0.62 * height, 0, height),
                *(rng.choice(stock().trees), VEGETATION, rng.uniform(0.8, 1.3)),
            )
    if rng.random() < 0.35:  # one behind the line of façades, seen through gaps
        height, x = rng.uniform(6, 11), side * (layout.facade_m + rng.uniform(3, 7))
        yield facing(
            *(x, start + rng.uniform(0, BLOCK_M), 0.7 * height, 0, height),
            *(rng.choice(stock().trees), VEGETATION, 1.0, BUILDING_LAYER),
        )


def _furniture(
    layout: Layout, rng: np.random.Generator, start: float, side: int, *, zebra: bool
) -> Iterable[Quad]:
    pictures, kerb = stock(), side * (layout.road_m + 0.45)
    z = start + rng.uniform(1.5, 4)
    yield facing(kerb, z, 0.18, 0, 7.2, pictures.pole, OBJECT, 1.0)
    reach = kerb - side * rng.uniform(1.2, 2.0)
    middle, span = (kerb + reach) / 2, abs(kerb - reach)
    yield facing(middle, z, span, 7.08, 7.2, pictures.lamp, OBJECT, 1.0)
    yield facing(reach, z, 0.7, 6.95, 7.15, pictures.lamp, OBJECT, 1.0)
    if rng.random() < 0.6:
        z, size = start + rng.uniform(6, 22), rng.uniform(0.6, 0.9)
        yield facing(kerb, z, 0.1, 0, 2.3, pictures.pole, OBJECT, 1.0)
        yield facing(kerb, z - 0.06, size, 2.2, 2.2 + size, rng.choice(pictures.signs), OBJECT, 1)
    if zebra and side > 0:
        z, lit = start - 0.5, pictures.lights[int(rng.integers(3))]
        yield facing(kerb, z, 0.16, 0, 3.4, pictures.pole, OBJECT, 0.8)
        yield facing(kerb, z - 0.1, 0.42, 2.5, 3.5, lit, OBJECT, 1.0)
    if rng.random() < 0.35:
        for z in start + 8 + 1.6 * np.arange(int(rng.integers(3, 7))):
            yield facing(kerb, z, 0.16, 0, 0.95, pictures.pole, OBJECT, 0.8)


def _parked_cars(
    layout: Layout, rng: np.random.Generator, start: float, side: int, *, zebra: bool
) -> Iterable[Quad]:
    for slot in range(4):
        if rng.random() < layout.parked and not (zebra and slot == 0):
            z = start + 6 * slot + rng.uniform(0.1, 0.9)
            x = side * (layout.road_m - 1.15 + rng.uniform(-0.1, 0.1))
            yield from vehicle(x, z, rng.random(3).tolist(), away=side > 0)
