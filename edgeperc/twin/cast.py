"""Everything that can stand or move on an avenue: its textures, and the outlines of the movers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.twin import wardrobe
from edgeperc.twin.textures import Atlas, Drawing, tileable_noise
from edgeperc.twin.vehicles import BODIES

HULL_POINTS = 32
"""Corners kept of an outline; one with fewer repeats its last."""
PAINTS = (0.03, 0.06, 0.1, 0.16, 0.24, 0.34, 0.45, 0.58, 0.72, 0.82)
"""Luminance of car paint, from black to white."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Texture indices by what they show; the same for every seed.

    hulls: (textures, HULL_POINTS, 2) float64, the convex outline of each texture's opaque part in
    0..1, x to the right and y up. walkers: (people, WALK_PHASES), walking to the left. standers:
    (people,). vehicles: (BODIES, PAINTS), the nose to the left.
    """

    atlas: Atlas
    noise: NDArray[np.float32]
    clouds: NDArray[np.float32]
    hulls: NDArray[np.float64]
    facades: list[int]
    shops: list[int]
    walls: list[int]
    trees: list[int]
    hedges: list[int]
    signs: list[int]
    pole: int
    lamp: int
    skyline: int
    vehicles: NDArray[np.int32]
    walkers: NDArray[np.int32]
    standers: NDArray[np.int32]


@lru_cache(maxsize=1)
def cast() -> Cast:
    """Draw every texture of the avenue; takes about half a second."""
    rng, atlas = np.random.default_rng(21), Atlas()
    hulls: list[NDArray[np.float64]] = []

    def add(drawing: Drawing) -> int:
        hulls.append(_hull(drawing))
        return atlas.add(drawing)

    return Cast(
        atlas=atlas,
        noise=tileable_noise(rng, 256, 0.6),
        clouds=tileable_noise(rng, 256, 0.15),
        facades=[add(wardrobe.facade(rng)) for _ in range(16)],
        shops=[add(wardrobe.shopfront(rng)) for _ in range(8)],
        walls=[add(wardrobe.blind_wall(rng)) for _ in range(6)],
        trees=[add(wardrobe.tree(rng)) for _ in range(10)],
        hedges=[add(wardrobe.hedge(rng)) for _ in range(4)],
        signs=[add(wardrobe.sign(rng)) for _ in range(8)],
        pole=add(wardrobe.pole()),
        lamp=add(wardrobe.lamp()),
        skyline=add(wardrobe.skyline(rng)),
        vehicles=np.array([[add(body.draw(p)) for p in PAINTS] for body in BODIES], np.int32),
        walkers=np.array(
            [[add(p) for p in wardrobe.person(rng, side=True)] for _ in range(20)], np.int32
        ),
        standers=np.array([add(wardrobe.person(rng, side=False)[0]) for _ in range(12)], np.int32),
        hulls=np.stack(hulls),
    )


def _hull(drawing: Drawing) -> NDArray[np.float64]:
    """Outline of what covers at least half a texel, at its outer edges."""
    _, alpha = drawing.finished()
    height, width = alpha.shape
    rows, columns = np.nonzero(alpha >= 0.5)
    corners = np.concatenate(
        [np.stack([columns + right, rows + down], 1) for right in (0, 1) for down in (0, 1)]
    )
    outline = cv2.convexHull(corners.astype(np.int32))[:, 0] / (width, height)
    if len(outline) > HULL_POINTS:
        outline = outline[np.linspace(0, len(outline) - 1, HULL_POINTS).round().astype(int)]
    padded = np.pad(outline, ((0, HULL_POINTS - len(outline)), (0, 0)), mode="edge")
    return padded * (1, -1) + (0, 1)
