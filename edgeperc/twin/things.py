"""Things to put into a street, each made of upright quads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.scene import HUMAN, QUAD, VEHICLE
from edgeperc.twin.stock import stock

LANE_M = 1.8
"""Distance of a lane's middle from the road's middle; the camera drives in the right one."""
FAR_LAYER, BUILDING_LAYER, STREET_LAYER = range(3)

Quad = tuple[float | int, ...]
"""The fields of `scene.QUAD` in their order."""


def as_quads(rows: Iterable[Quad]) -> NDArray[Any]:
    """(N,) QUAD from tuples in the order of its fields."""
    return np.array(list(rows), QUAD)


def standing(
    x0: float,
    z0: float,
    x1: float,
    z1: float,
    y0: float,
    y1: float,
    texture: int,
    kind: int,
    layer: int,
    u: float,
    v: float,
    gain: float,
) -> Quad:
    """A wall whose texture is repeated u times along and v times down."""
    return (x0, z0, x1, z1, y0, y1, 0, u, v, gain, texture, kind, layer)


def facing(
    x: float,
    z: float,
    width: float,
    y0: float,
    y1: float,
    texture: int,
    kind: int,
    gain: float,
    layer: int = STREET_LAYER,
) -> Quad:
    """A picture that faces the camera, centred at (x, z)."""
    half = width / 2
    return (x - half, z, x + half, z, y0, y1, 0, 1, 1, gain, texture, kind, layer)


def vehicle(x: float, z: float, dice: Sequence[float], *, away: bool) -> list[Quad]:
    """A car or a van whose near end is at z; `away`: it faces along +z, as the camera does."""
    van = dice[0] < 0.2
    looks = (stock().vans if van else stock().cars)[int(dice[1] * 5)]
    length, width, height = (5.4, 2.0, 2.2 + 0.3 * dice[2]) if van else (4.4, 1.8, 1.5)
    flank = x - math.copysign(width / 2, x - LANE_M)
    near_u, far_u = (1, 0) if away else (0, 1)
    end = looks["rear" if away else "front"]
    body = height if van else 1.02
    parts = [
        (
            *(flank, z, flank, z + length, 0, height, near_u, far_u, 1, 0.9),
            *(looks["side"], VEHICLE, STREET_LAYER),
        ),
        facing(x, z, width, 0, body, end, VEHICLE, 1.0),
    ]
    if not van:
        back = z + (0.35 if away else 1.2)
        cabin = looks["cabin"]
        parts.append(facing(x, back, width, body - 0.06, height, cabin, VEHICLE, 1.0))
    return parts


def person(x: float, z: float, size: float, picture: int, *, flip: bool = False) -> Quad:
    """Somebody 1.5 to 1.9 m tall (size 0 to 1), with the index of one picture of a stride."""
    height = 1.5 + 0.4 * size
    quad = facing(x, z, height / 2, 0, height, picture, HUMAN, 1.0)
    return (*quad[:6], 1, 0, *quad[8:]) if flip else quad
