"""The avenue of the twin: parallel streets seen from a roof, a pure function of seed and time.

x is to the right, y up and z ahead, in metres; the viewer stands at x = 0, z = 0, 25 m high. A
promenade and two or three roads run across the view, each between two pavements, with gardens and
houses between them.
Everything stands in planes of constant z. What moves keeps to a track, a line of constant z on a
lane or a pavement: each of a fixed number of members goes round on it, out of the field on one
side and in on the other, and is somebody else each time round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.cast import PAINTS, cast
from edgeperc.twin.plots import Plots, plots
from edgeperc.twin.roads import Road, roads
from edgeperc.twin.vehicles import BODIES
from edgeperc.twin.wardrobe import WALK_PHASES

PERSON, VEHICLE = 0, 1
KINDS = ("person", "vehicle")
FIELD_SLOPE = 0.66
"""|x| / z at which a mover leaves the world: outside of every camera's field."""
STRIDE_M = 1.4
BODIES_M = np.array([(body.length_m, body.height_m) for body in BODIES])
SLOWEST_DEG_S, FASTEST_DEG_S = 1.0, 4.0
"""Vehicles, as seen from the roof straight ahead."""
HURRIED_DEG_S = 0.6
"""The fastest person."""

SPRITE = np.dtype(
    [(name, "f8") for name in ("x0", "x1", "y0", "y1", "z", "gain")]
    + [(name, "i4") for name in ("texture", "track", "kind", "flipped")]
    + [("identity", "i8")]
)
"""A picture that faces the viewer, from x0 to x1 and y0 to y1 in the plane z, in metres.

track: number of tracks nearer than its own. kind: index into KINDS. flipped: drawn mirrored, nose
to the right. identity: the same while the same person or vehicle is in the world.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Who may move, a column each; all (N,).

    track, kind: see SPRITE. z: m. half_m: x runs from -half_m to half_m. place_m: x at time 0.
    speed_m_s: signed. surge_m, surge_rad_s, phase_rad: hurrying and lingering on the way.
    present: chance that a round is taken by somebody.
    """

    track: NDArray[np.int32]
    kind: NDArray[np.int32]
    z: NDArray[np.float64]
    half_m: NDArray[np.float64]
    place_m: NDArray[np.float64]
    speed_m_s: NDArray[np.float64]
    surge_m: NDArray[np.float64]
    surge_rad_s: NDArray[np.float64]
    phase_rad: NDArray[np.float64]
    present: NDArray[np.float64]


class Avenue:
    """One avenue and all that moves on it, fixed by `seed`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng((seed, 21))
        self.haze_m, self.sky = float(rng.uniform(900, 3000)), float(rng.uniform(0.75, 1.0))
        self.roads: tuple[Road, ...] = roads(rng)
        self.tracks_m = np.array(
            sorted(z for road in self.roads for z in (*road.lanes_m, *road.walks_m, *road.parked_m))
        )
        self.members = _members(rng, self.roads, self.tracks_m)
        self._plots: Plots | None = None

    @property
    def plots(self) -> Plots:
        """All that stands still."""
        if self._plots is None:
            rng = np.random.default_rng((self.seed, 22))
            self._plots = plots(rng, self.roads, self.tracks_m)
        return self._plots

    def movers(self, time_s: float) -> NDArray[np.void]:
        """Everybody in the world at a time, (N,) SPRITE, nearest first; parked cars too."""
        members = self.members
        surge = members.surge_m * np.sin(members.surge_rad_s * time_s + members.phase_rad)
        way = members.place_m + members.speed_m_s * time_s + surge
        length = 2 * members.half_m
        lap = np.floor(way / length + 0.5).astype(np.int64)
        chance = self._dice(lap, 0)
        there = np.flatnonzero(chance < members.present)
        x, lap, way = (way - lap * length)[there], lap[there], way[there]
        return self._dressed(there, x, lap, way, time_s)

    def _dressed(
        self,
        who: NDArray[np.intp],
        x: NDArray[np.float64],
        lap: NDArray[np.int64],
        way: NDArray[np.float64],
        time_s: float,
    ) -> NDArray[np.void]:
        """Sprites of members at x on their round `lap`."""
        members, pictures = self.members, cast()
        look, size, paint = (self._dice(lap, topic, who) for topic in (1, 2, 3))
        kind, speed = members.kind[who], members.speed_m_s[who]
        vehicle = kind == VEHICLE
        body = (look * len(BODIES)).astype(int)
        stature = 1.5 + 0.4 * size
        length_m, height_m = (BODIES_M[body] * (0.94 + 0.12 * size)[:, None]).T
        phase = np.floor(np.abs(way) / STRIDE_M * WALK_PHASES).astype(int) % WALK_PHASES
        coat = (paint * len(pictures.walkers)).astype(int)
        person = np.where(
            speed == 0,
            pictures.standers[(paint * len(pictures.standers)).astype(int)],
            pictures.walkers[coat, phase],
        )
        colour = (paint * len(PAINTS)).astype(int)
        width = np.where(vehicle, length_m, stature / 2)
        sprites = np.empty(len(who), SPRITE)
        sprites["x0"], sprites["x1"] = x - width / 2, x + width / 2
        sprites["y0"], sprites["y1"] = 0.0, np.where(vehicle, height_m, stature)
        sprites["z"] = members.z[who]
        sprites["gain"] = 0.85 + 0.3 * size
        sprites["texture"] = np.where(vehicle, pictures.vehicles[body, colour], person)
        sprites["track"] = members.track[who]
        sprites["kind"] = kind
        sprites["flipped"] = np.where(speed == 0, look * 8 % 2 < 1, speed > 0)
        sprites["identity"] = (lap + (1 << 20)) * 256 + who
        return sprites

    def _dice(
        self, lap: NDArray[np.int64], topic: int, who: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """A number in [0, 1) for each member and round, always the same for the same question."""
        member = np.arange(len(lap)) if who is None else who
        key = self.seed * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF
        question = (lap + (1 << 20) << 16 | member << 4 | topic).astype(np.uint64)
        mixed = question ^ np.uint64(key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
        chance: NDArray[np.float64] = (mixed >> np.uint64(11)) * 2.0**-53
        return chance


def _members(
    rng: np.random.Generator, all_roads: tuple[Road, ...], tracks_m: NDArray[np.float64]
) -> Members:
    """Draw who moves on which track, nearest first."""
    rows: list[tuple[float, ...]] = []
    rightwards_first = 1 if rng.random() < 0.5 else -1
    for road in all_roads:
        for k, z in enumerate(road.lanes_m):
            rows += _traffic(rng, z, rightwards_first * (-1) ** k)
        for z in road.walks_m:
            rows += _walkers(rng, z)
        for z in road.parked_m:
            rows += _parked(rng, z)
    columns = np.array(sorted(rows)).T
    z, kind, half, place, speed, surge, surge_rad_s, phase, present = columns
    return Members(
        track=np.searchsorted(tracks_m, z).astype(np.int32),
        kind=kind.astype(np.int32),
        z=z,
        half_m=half,
        place_m=place,
        speed_m_s=speed,
        surge_m=surge,
        surge_rad_s=surge_rad_s,
        phase_rad=phase,
        present=present,
    )


def _half_m(z: float) -> float:
    """Where a track ends: far enough out that nobody is seen to vanish."""
    return FIELD_SLOPE * z + 4.0


def _traffic(rng: np.random.Generator, z: float, direction: int) -> list[tuple[float, ...]]:
    """A lane, all at one speed, so that nobody drives through anybody."""
    count, half = int(rng.integers(1, 5)), _half_m(z)
    speed = direction * z * math.radians(rng.uniform(SLOWEST_DEG_S * 1.2, FASTEST_DEG_S * 0.75))
    rate = rng.uniform(0.2, 0.5)
    surge = rng.uniform(0, 0.25) * abs(speed) / rate
    phase, gap = rng.uniform(0, 2 * math.pi), 2 * half / count
    return [
        (z, VEHICLE, half, gap * (k + rng.uniform(0, 0.6)), speed, surge, rate, phase, 0.8)
        for k in range(count)
    ]


def _walkers(rng: np.random.Generator, z: float) -> list[tuple[float, ...]]:
    """One or two people on a line along the pavement; some stand."""
    count, half = int(rng.integers(1, 3)), _half_m(z)
    if rng.random() < 0.25:
        return [(z, PERSON, half, rng.uniform(-0.8, 0.8) * half, 0, 0, 1, 0, 0.6)]
    pace = math.radians(HURRIED_DEG_S) * z / 1.25 * rng.uniform(0.35, 1.0)
    speed = pace * (1 if rng.random() < 0.5 else -1)
    rate = rng.uniform(0.1, 0.4)
    surge, phase = rng.uniform(0, 0.25) * pace / rate, rng.uniform(0, 2 * math.pi)
    return [
        (z, PERSON, half, half * (k + rng.uniform(0, 0.8)), speed, surge, rate, phase, 0.55)
        for k in range(count)
    ]


def _parked(rng: np.random.Generator, z: float) -> list[tuple[float, ...]]:
    """Cars at the kerb, for good."""
    places = np.arange(-0.55 * z, 0.55 * z, 6.5)
    taken = rng.choice(places, size=min(len(places), int(rng.integers(0, 4))), replace=False)
    return [(z, VEHICLE, _half_m(z), float(x), 0, 0, 1, 0, 1.0) for x in taken]
