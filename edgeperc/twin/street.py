"""The street of the twin: a pure function from a seed and a time to a Scene.

x is to the right of the road's middle, y up, z along the street, all in metres; the camera drives
along +z on the right. Blocks of 24 m are drawn from (seed, block, side), so the street has no end
and any instant can be asked for in any order. People and vehicles that move are functions of time
too: each of a fixed number of them keeps a place in a stretch around the camera, and becomes
somebody else when it leaves that stretch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin import wardrobe
from edgeperc.twin.render import (
    BACKGROUND,
    BLOCK_M,
    HUMAN,
    OBJECT,
    QUAD,
    VEGETATION,
    VEHICLE,
    Ground,
    Pose,
    Scene,
)
from edgeperc.twin.textures import Atlas, tileable_noise

VIEW_M = 168.0
"""How far the street is built ahead of the camera."""
EYE_M = 1.45
"""Height of the camera above the road."""
LANE_M = 1.8
"""Distance of a lane's middle from the road's middle."""
STOREY_M, SHOP_M = 3.0, 3.6
NON_NEGATIVE = 1 << 20
"""Added to block and lap numbers, which may be negative where numpy's seeds may not."""
FAR_LAYER, BUILDING_LAYER, STREET_LAYER = range(3)

Quad = tuple[float | int, ...]


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


class Street:
    """One street, its traffic and the drive along it, all fixed by `seed`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.stock = stock()
        rng = np.random.default_rng((seed, 1))
        self.road_m = rng.uniform(5.8, 7.0)
        self.facade_m = self.road_m + rng.uniform(3.2, 5.0)
        self.sun = rng.permutation([1.15, rng.uniform(0.55, 0.85)])
        self.haze_m, self.sky = rng.uniform(120, 300), rng.uniform(0.75, 1.0)
        self.trees, self.parked = rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.7)
        self._speed_m_s, self._surge = rng.uniform(5, 9), rng.uniform(0.1, 0.4)
        self._phase = rng.uniform(0, 2 * math.pi, 8)
        self._yaw_rad, self._yaw_rad_s = math.radians(rng.uniform(1.0, 3.0)), rng.uniform(0.6, 1.2)
        self._vehicles = rng.uniform(size=(6, 4)).tolist()
        self._people = rng.uniform(size=(20, 4)).tolist()
        self._block = lru_cache(maxsize=64)(self._build_block)
        self._has_zebra = lru_cache(maxsize=64)(lambda block: self._dice(3, block)[0] < 0.3)

    def pose(self, time_s: float) -> Pose:
        """Where the camera is: a drive with changing speed, swaying, nodding and looking about."""
        wave, phase = self._surge * self._speed_m_s / 0.5, self._phase
        nod = 0.006 * math.sin(7.5 * time_s + phase[3]) + 0.0012 * math.sin(43 * time_s + phase[4])
        return Pose(
            x=LANE_M + 0.4 * math.sin(0.35 * time_s + phase[1]),
            y=EYE_M + 0.012 * math.sin(8.3 * time_s + phase[5]),
            z=self._speed_m_s * time_s + wave * math.sin(0.5 * time_s + phase[0]),
            yaw=self._yaw_rad * math.sin(self._yaw_rad_s * time_s + phase[2]),
            pitch=nod,
        )

    def scene(self, time_s: float) -> Scene:
        """All that stands, lies, walks and drives around the camera at a time ≥ 0."""
        pose = self.pose(time_s)
        first = math.floor(pose.z / BLOCK_M)
        blocks = [self._block(k) for k in range(first, first + math.ceil(VIEW_M / BLOCK_M) + 1)]
        moving = [
            *self._skyline(pose),
            *self._traffic(time_s, pose),
            *self._passers_by(time_s, pose),
            *self._crossers(pose, first),
        ]
        return Scene(
            pose=pose,
            quads=np.concatenate([quads for quads, _, _ in blocks] + [as_quads(moving)]),
            ground=Ground(
                road_m=self.road_m,
                facade_m=self.facade_m,
                first_block=first,
                cover=np.stack([cover for _, cover, _ in blocks]),
                zebra=np.array([zebra for _, _, zebra in blocks]),
            ),
            haze_m=self.haze_m,
            sky=self.sky,
        )

    # What stands still.

    def _dice(self, topic: int, *index: int) -> tuple[float, ...]:
        """Six numbers in [0, 1), always the same for the same question."""
        return _dice(self.seed, topic, *index)

    def _build_block(self, block: int) -> tuple[NDArray[Any], NDArray[np.int8], bool]:
        """Quads, ground cover and crossing of one block."""
        zebra = self._has_zebra(block)
        quads: list[Quad] = []
        cover = np.zeros((2, 2), np.int8)
        for index, side in enumerate((-1, 1)):
            rng = np.random.default_rng((self.seed, 2, index, block + NON_NEGATIVE))
            cover[index] = rng.random(2) < (0.4, 0.7)
            start = block * BLOCK_M
            quads += self._buildings(rng, start, side)
            quads += self._greenery(rng, start, side)
            quads += self._furniture(rng, start, side, zebra=zebra)
            quads += self._parked_cars(rng, start, side, zebra=zebra)
        return as_quads(quads), cover, zebra

    def _buildings(self, rng: np.random.Generator, start: float, side: int) -> Iterable[Quad]:
        stock, gain = self.stock, self.sun[int(side > 0)]
        x, behind = side * self.facade_m, side * (self.facade_m + 12)
        height = SHOP_M + STOREY_M * int(rng.integers(1, 5))
        yield _standing(
            *(behind, start, behind, start + BLOCK_M, 0, height, rng.choice(stock.facades)),
            *(BACKGROUND, FAR_LAYER, 8, height / STOREY_M, 0.8 * gain),
        )
        lower_m = 0.0  # height of the building before: its neighbour's side shows above it
        cuts = np.cumsum([0.0, *((24,), (12, 12), (9, 15), (8, 8, 8))[rng.integers(4)]])
        for near, far in pairwise(start + cuts):
            if rng.random() < 0.17:  # a gap between buildings, perhaps with a hedge
                if rng.random() < 0.6:
                    yield _standing(
                        *(x, near, x, far, 0, rng.uniform(1.0, 1.8), rng.choice(stock.hedges)),
                        *(VEGETATION, BUILDING_LAYER, (far - near) / 1.5, 1, gain),
                    )
                lower_m = 0.0
                continue
            storeys = int(rng.integers(1, 6))
            height = SHOP_M + STOREY_M * storeys
            wall = rng.choice(stock.walls)
            if height > lower_m:
                yield _standing(
                    *(x, near, behind, near, lower_m, height, wall),
                    *(BACKGROUND, BUILDING_LAYER, 1.5, (height - lower_m) / 8, 0.8),
                )
            lower_m = height
            yield _standing(
                *(x, near, x, far, 0, SHOP_M, rng.choice(stock.shops)),
                *(BACKGROUND, BUILDING_LAYER, round((far - near) / 6), 1, gain),
            )
            yield _standing(
                *(x, near, x, far, SHOP_M, height, rng.choice(stock.facades)),
                *(BACKGROUND, BUILDING_LAYER, round((far - near) / 3), storeys, gain),
            )

    def _greenery(self, rng: np.random.Generator, start: float, side: int) -> Iterable[Quad]:
        for z in start + np.array([4.0, 13.0]) + rng.uniform(0, 6, 2):
            if rng.random() < self.trees:
                height = rng.uniform(4.5, 8.5)
                yield _facing(
                    *(side * (self.road_m + 0.9), z, 0.62 * height, 0, height),
                    *(rng.choice(self.stock.trees), VEGETATION, rng.uniform(0.8, 1.3)),
                )
        if rng.random() < 0.35:  # one behind the line of façades, seen through gaps
            height, x = rng.uniform(6, 11), side * (self.facade_m + rng.uniform(3, 7))
            yield _facing(
                *(x, start + rng.uniform(0, BLOCK_M), 0.7 * height, 0, height),
                *(rng.choice(self.stock.trees), VEGETATION, 1.0, BUILDING_LAYER),
            )

    def _furniture(
        self, rng: np.random.Generator, start: float, side: int, *, zebra: bool
    ) -> Iterable[Quad]:
        stock, kerb = self.stock, side * (self.road_m + 0.45)
        z = start + rng.uniform(1.5, 4)
        yield _facing(kerb, z, 0.18, 0, 7.2, stock.pole, OBJECT, 1.0)
        reach = kerb - side * rng.uniform(1.2, 2.0)
        middle, span = (kerb + reach) / 2, abs(kerb - reach)
        yield _facing(middle, z, span, 7.08, 7.2, stock.lamp, OBJECT, 1.0)
        yield _facing(reach, z, 0.7, 6.95, 7.15, stock.lamp, OBJECT, 1.0)
        if rng.random() < 0.6:
            z, size = start + rng.uniform(6, 22), rng.uniform(0.6, 0.9)
            yield _facing(kerb, z, 0.1, 0, 2.3, stock.pole, OBJECT, 1.0)
            yield _facing(kerb, z - 0.06, size, 2.2, 2.2 + size, rng.choice(stock.signs), OBJECT, 1)
        if zebra and side > 0:
            z, lit = start - 0.5, stock.lights[int(rng.integers(3))]
            yield _facing(kerb, z, 0.16, 0, 3.4, stock.pole, OBJECT, 0.8)
            yield _facing(kerb, z - 0.1, 0.42, 2.5, 3.5, lit, OBJECT, 1.0)
        if rng.random() < 0.35:
            for z in start + 8 + 1.6 * np.arange(int(rng.integers(3, 7))):
                yield _facing(kerb, z, 0.16, 0, 0.95, stock.pole, OBJECT, 0.8)

    def _parked_cars(
        self, rng: np.random.Generator, start: float, side: int, *, zebra: bool
    ) -> Iterable[Quad]:
        for slot in range(4):
            if rng.random() < self.parked and not (zebra and slot == 0):
                z = start + 6 * slot + rng.uniform(0.1, 0.9)
                x = side * (self.road_m - 1.15 + rng.uniform(-0.1, 0.1))
                yield from self._vehicle(x, z, rng.random(3).tolist(), away=side > 0)

    # What moves.

    def _skyline(self, pose: Pose) -> Iterable[Quad]:
        z = pose.z + VIEW_M
        yield _standing(
            *(pose.x - 300, z, pose.x + 300, z, 0, 16, self.stock.skyline),
            *(BACKGROUND, FAR_LAYER - 1, 10, 1, 1.0),
        )

    def _traffic(self, time_s: float, pose: Pose) -> Iterable[Quad]:
        """Four cars that come towards the camera, and one or none ahead in its own lane."""
        speed_m_s = 9.0
        for k, dice in enumerate(self._vehicles[:4]):
            place = 42 * k + 25 * dice[0] - speed_m_s * time_s - pose.z
            z, lap = _around(place, 4, VIEW_M)
            looks = self._dice(4, k, lap)
            if looks[3] < 0.75:
                yield from self._vehicle(-LANE_M, pose.z + z, looks, away=False)
        ahead, look = self._vehicles[4:]
        gap = 26 + 17 * math.sin(0.23 * time_s + 6.3 * ahead[0])
        if ahead[1] < 0.7:
            x = LANE_M + 0.25 * math.sin(0.6 * time_s + ahead[2])
            yield from self._vehicle(x, pose.z + gap, look, away=True)

    def _vehicle(self, x: float, z: float, dice: Sequence[float], *, away: bool) -> list[Quad]:
        """A car or a van whose near end is at z; `away`: it faces along +z, as the camera does."""
        van = dice[0] < 0.2
        looks = (self.stock.vans if van else self.stock.cars)[int(dice[1] * 5)]
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
            _facing(x, z, width, 0, body, end, VEHICLE, 1.0),
        ]
        if not van:
            back = z + (0.35 if away else 1.2)
            cabin = looks["cabin"]
            parts.append(_facing(x, back, width, body - 0.06, height, cabin, VEHICLE, 1.0))
        return parts

    def _passers_by(self, time_s: float, pose: Pose) -> Iterable[Quad]:
        """People who walk along the pavement, towards the camera or away from it."""
        for k, (place, pace, offset, side) in enumerate(self._people):
            speed_m_s = (0.9 + 0.8 * pace) * (1 if k % 2 else -1)
            z, lap = _around(80 * place + speed_m_s * time_s - pose.z, 2, 80)
            dice = self._dice(5, k, lap)
            across = self.road_m + 1.3 + (self.facade_m - self.road_m - 1.9) * offset
            pictures = self.stock.walkers[int(dice[0] * len(self.stock.walkers))]
            phase = int((time_s * abs(speed_m_s) / 1.4 + place) * wardrobe.WALK_PHASES)
            yield self._person(
                math.copysign(across, side - 0.5), pose.z + z, dice[1], pictures[phase % 8]
            )

    def _crossers(self, pose: Pose, first: int) -> Iterable[Quad]:
        """People on a crossing ahead; they are over the road when the camera is 12 m away."""
        for block in range(first, first + 4):
            distance = block * BLOCK_M + 2.7 - pose.z
            if not self._has_zebra(block) or distance < 1:
                continue
            for k in range(3):
                dice = self._dice(6, k, block)
                if k and dice[3] < 0.4:
                    continue
                start, lane = 38 + 37 * dice[4], 2.4 * dice[5] - 1.2
                x = -9 + 18 * min(max((start - distance) / (start - 12), 0), 1)
                pictures = self.stock.crossers[int(dice[0] * len(self.stock.crossers))]
                picture = pictures[int(x * wardrobe.WALK_PHASES / 1.4) % wardrobe.WALK_PHASES]
                leftwards = dice[2] < 0.5
                z = block * BLOCK_M + 2.7 + lane
                yield self._person(-x if leftwards else x, z, dice[1], picture, flip=not leftwards)

    @staticmethod
    def _person(x: float, z: float, size: float, picture: int, *, flip: bool = False) -> Quad:
        height = 1.5 + 0.4 * size
        quad = _facing(x, z, height / 2, 0, height, picture, HUMAN, 1.0)
        return (*quad[:6], 1, 0, *quad[8:]) if flip else quad


def as_quads(rows: Iterable[Quad]) -> NDArray[Any]:
    """(N,) QUAD from tuples in the order of its fields."""
    return np.array(list(rows), QUAD)


def _standing(
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


def _facing(
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


@lru_cache(maxsize=4096)
def _dice(seed: int, topic: int, *index: int) -> tuple[float, ...]:
    key = (seed, topic, *(k + NON_NEGATIVE for k in index))
    return tuple(np.random.default_rng(key).random(6).tolist())


def _around(place: float, behind: float, length: float) -> tuple[float, int]:
    """Wrap a distance into [-behind, length - behind); also how often it was wrapped."""
    lap, rest = divmod(place + behind, length)
    return rest - behind, int(lap)
