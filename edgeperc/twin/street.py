"""The street of the twin: a pure function from a seed and a time to a Scene.

x is to the right of the road's middle, y up, z along the street, all in metres; the camera drives
along +z on the right. Blocks of 24 m are drawn from (seed, block, side), so the street has no end
and any instant can be asked for in any order. People and vehicles that move are functions of time
too: each of a fixed number of them keeps a place in a stretch around the camera, and becomes
somebody else when it leaves that stretch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from edgeperc.twin.blocks import Layout, build_block, dice, has_zebra
from edgeperc.twin.scene import BACKGROUND, BLOCK_M, Ground, Pose, Scene
from edgeperc.twin.stock import stock
from edgeperc.twin.things import FAR_LAYER, LANE_M, Quad, as_quads, person, standing, vehicle
from edgeperc.twin.wardrobe import WALK_PHASES

VIEW_M = 168.0
"""How far the street is built ahead of the camera."""
EYE_M = 1.45
"""Height of the camera above the road."""


class Street:
    """One street, its traffic and the drive along it, all fixed by `seed`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng((seed, 1))
        road_m = rng.uniform(5.8, 7.0)
        facade_m = road_m + rng.uniform(3.2, 5.0)
        left_sun, right_sun = rng.permutation([1.15, rng.uniform(0.55, 0.85)]).tolist()
        self.haze_m, self.sky = rng.uniform(120, 300), rng.uniform(0.75, 1.0)
        self.layout = Layout(
            seed=seed,
            road_m=road_m,
            facade_m=facade_m,
            sun=(left_sun, right_sun),
            trees=rng.uniform(0.25, 0.75),
            parked=rng.uniform(0.3, 0.7),
        )
        self._speed_m_s, self._surge = rng.uniform(5, 9), rng.uniform(0.1, 0.4)
        self._phase = rng.uniform(0, 2 * math.pi, 8)
        self._yaw_rad, self._yaw_rad_s = math.radians(rng.uniform(1.0, 3.0)), rng.uniform(0.6, 1.2)
        self._vehicles = rng.uniform(size=(6, 4)).tolist()
        self._people = rng.uniform(size=(20, 4)).tolist()

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
        last = first + math.ceil(VIEW_M / BLOCK_M)
        blocks = [build_block(self.layout, k) for k in range(first, last + 1)]
        moving = [
            *self._skyline(pose),
            *self._traffic(time_s, pose),
            *self._passers_by(time_s, pose),
            *self._crossers(pose, first),
        ]
        return Scene(
            pose=pose,
            quads=np.concatenate([*(block.quads for block in blocks), as_quads(moving)]),
            ground=Ground(
                road_m=self.layout.road_m,
                facade_m=self.layout.facade_m,
                first_block=first,
                cover=np.stack([block.cover for block in blocks]),
                zebra=np.array([block.zebra for block in blocks]),
            ),
            haze_m=self.haze_m,
            sky=self.sky,
        )

    def _skyline(self, pose: Pose) -> Iterable[Quad]:
        z = pose.z + VIEW_M
        yield standing(
            *(pose.x - 300, z, pose.x + 300, z, 0, 16, stock().skyline),
            *(BACKGROUND, FAR_LAYER - 1, 10, 1, 1.0),
        )

    def _traffic(self, time_s: float, pose: Pose) -> Iterable[Quad]:
        """Four cars that come towards the camera, and one or none ahead in its own lane."""
        speed_m_s = 9.0
        for k, (offset, *_) in enumerate(self._vehicles[:4]):
            place = 42 * k + 25 * offset - speed_m_s * time_s - pose.z
            z, lap = _around(place, 4, VIEW_M)
            looks = dice(self.seed, 4, k, lap)
            if looks[3] < 0.75:
                yield from vehicle(-LANE_M, pose.z + z, looks, away=False)
        ahead, look = self._vehicles[4:]
        gap = 26 + 17 * math.sin(0.23 * time_s + 6.3 * ahead[0])
        if ahead[1] < 0.7:
            x = LANE_M + 0.25 * math.sin(0.6 * time_s + ahead[2])
            yield from vehicle(x, pose.z + gap, look, away=True)

    def _passers_by(self, time_s: float, pose: Pose) -> Iterable[Quad]:
        """People who walk along the pavement, towards the camera or away from it."""
        for k, (place, pace, offset, side) in enumerate(self._people):
            speed_m_s = (0.9 + 0.8 * pace) * (1 if k % 2 else -1)
            z, lap = _around(80 * place + speed_m_s * time_s - pose.z, 2, 80)
            who = dice(self.seed, 5, k, lap)
            road_m, facade_m = self.layout.road_m, self.layout.facade_m
            across = road_m + 1.3 + (facade_m - road_m - 1.9) * offset
            pictures = stock().walkers[int(who[0] * len(stock().walkers))]
            phase = int((time_s * abs(speed_m_s) / 1.4 + place) * WALK_PHASES)
            x = math.copysign(across, side - 0.5)
            yield person(x, pose.z + z, who[1], pictures[phase % WALK_PHASES])

    def _crossers(self, pose: Pose, first: int) -> Iterable[Quad]:
        """People on a crossing ahead; they are over the road when the camera is 12 m away."""
        for block in range(first, first + 4):
            distance = block * BLOCK_M + 2.7 - pose.z
            if not has_zebra(self.seed, block) or distance < 1:
                continue
            for k in range(3):
                who = dice(self.seed, 6, k, block)
                if k and who[3] < 0.4:
                    continue
                start, lane = 38 + 37 * who[4], 2.4 * who[5] - 1.2
                x = -9 + 18 * min(max((start - distance) / (start - 12), 0), 1)
                pictures = stock().crossers[int(who[0] * len(stock().crossers))]
                picture = pictures[int(x * WALK_PHASES / 1.4) % WALK_PHASES]
                leftwards = who[2] < 0.5
                z = block * BLOCK_M + 2.7 + lane
                yield person(-x if leftwards else x, z, who[1], picture, flip=not leftwards)


def _around(place: float, behind: float, length: float) -> tuple[float, int]:
    """Wrap a distance into [-behind, length - behind); also how often it was wrapped."""
    lap, rest = divmod(place + behind, length)
    return rest - behind, int(lap)
