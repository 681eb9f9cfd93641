"""Every texture of the street, drawn once: the same for every seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin import wardrobe
from edgeperc.twin.textures import Atlas, tileable_noise


@dataclass(frozen=True, slots=True)
class Stock:
    """Texture indices by what they show; drawn once, the same for every seed."""

    atlas: Atlas
    noise: NDArray[np.float32]
    facades: list[int]
    shops: list[int]
    walls: list[int]
    trees: list[int]
    hedges: list[int]
    signs: list[int]
    lights: list[int]
    pole: int
    lamp: int
    skyline: int
    cars: list[dict[str, int]]
    vans: list[dict[str, int]]
    walkers: list[list[int]]
    crossers: list[list[int]]


@lru_cache(maxsize=1)
def stock() -> Stock:
    """Draw every texture of the street."""
    rng, atlas = np.random.default_rng(20), Atlas()
    paints = (0.04, 0.12, 0.25, 0.45, 0.7)
    return Stock(
        atlas=atlas,
        noise=tileable_noise(rng, 256, 0.6),
        facades=[atlas.add(wardrobe.facade(rng)) for _ in range(16)],
        shops=[atlas.add(wardrobe.shopfront(rng)) for _ in range(8)],
        walls=[atlas.add(wardrobe.blind_wall(rng)) for _ in range(4)],
        trees=[atlas.add(wardrobe.tree(rng)) for _ in range(6)],
        hedges=[atlas.add(wardrobe.hedge(rng)) for _ in range(3)],
        signs=[atlas.add(wardrobe.sign(rng)) for _ in range(8)],
        lights=[atlas.add(wardrobe.traffic_light(lit)) for lit in range(3)],
        pole=atlas.add(wardrobe.pole()),
        lamp=atlas.add(wardrobe.lamp()),
        skyline=atlas.add(wardrobe.skyline(rng)),
        cars=[
            {
                "side": atlas.add(wardrobe.car_side(paint)),
                "rear": atlas.add(wardrobe.car_end(paint, rear=True)),
                "front": atlas.add(wardrobe.car_end(paint, rear=False)),
                "cabin": atlas.add(wardrobe.car_cabin(paint)),
            }
            for paint in paints
        ],
        vans=[
            {
                "side": atlas.add(wardrobe.van_side(paint)),
                "rear": atlas.add(wardrobe.van_end(paint, rear=True)),
                "front": atlas.add(wardrobe.van_end(paint, rear=False)),
            }
            for paint in paints
        ],
        walkers=[[atlas.add(p) for p in wardrobe.person(rng, side=False)] for _ in range(8)],
        crossers=[[atlas.add(p) for p in wardrobe.person(rng, side=True)] for _ in range(6)],
    )
