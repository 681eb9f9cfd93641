"""A world of moving targets, two detectors and time, to compare schedulers in: pure statistics.

Source: search.md, section 3. Cells and degrees as there; one random generator a world.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeperc.search.grid import Grid
from edgeperc.search.intake import Cells
from edgeperc.search.prior import region_prior
from edgeperc.search.schedulers import Place, Scheduler, Sight

SKY, BUILDING, TREE, ROAD, SIDEWALK = range(5)
WEIGHTS = {SKY: 0.0, BUILDING: 0.002, TREE: 0.022, ROAD: 0.847, SIDEWALK: 0.129}
SPAN_S = 10.0
FOUND_AT_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SETTLED_S = 3.0
"""Ages are sampled from this time on; targets born later than that before the end do not count."""
CLUTTER = 15
WIDE_PERIOD_S, WIDE_DELAY_S = 0.1, 0.05


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a world is like. slot_s 0: a look takes what it takes.

    static: targets stay put. wide: there is a wide detector. bad_prior: targets are anywhere.
    """

    targets: int = 20
    pd: float = 0.92
    slot_s: float = 1 / 120
    static: bool = False
    wide: bool = True
    bad_prior: bool = False


class Targets:
    """Structure of arrays over the targets that are present; each has an identity for life."""

    def __init__(self, count: int) -> None:
        self.x, self.y, self.vx, self.vy, self.size_px, self.bias_px = np.zeros((6, count))
        self.identity = np.zeros(count, np.intp)


class World:
    """Targets that move and are replaced where they leave, and what two cameras see of them.

    births_s, first_s, last_s: by identity, when it came, was first and was last detected by the
    search camera (infinity, minus infinity: never).
    """

    def __init__(self, seed: int, conditions: Conditions, grid: Grid, sight: Sight) -> None:
        self.conditions, self.grid, self._sight = conditions, grid, sight
        self._rng = np.random.default_rng(seed)
        self.labels = street(grid, self._rng)
        self.prior = region_prior(self.labels, WEIGHTS)
        self._where = np.full(grid.shape, 1 / self.prior.size)
        if not conditions.bad_prior:
            self._where = self.prior
        self._cumulative = np.cumsum(self._where)
        self.now_s = 0.0
        self.births_s: list[float] = []
        self.first_s: list[float] = []
        self.last_s: list[float] = []
        self.targets = Targets(conditions.targets)
        for k in range(conditions.targets):
            self._bear(k)
        self._clutter = self._draw_clutter()

    def _bear(self, k: int, *, entering: bool = False) -> None:
        """Put a new identity in place k of the targets."""
        rng, grid, all_ = self._rng, self.grid, self.targets
        y, x = divmod(self._draw_cell(), grid.width)
        all_.x[k], all_.y[k] = x + rng.random(), y + rng.random()
        road = self.labels[y, x] == ROAD
        speed_deg_s = rng.uniform(1, 4) if road else rng.uniform(0.1, 0.6)
        speed = math.radians(speed_deg_s) / grid.cell_rad * (not self.conditions.static)
        all_.vx[k] = speed * rng.choice((-1, 1))
        all_.vy[k] = 0.0 if road else rng.normal(0, 0.1) * speed
        if entering and not self.conditions.bad_prior:
            all_.x[k] = 0.5 if all_.vx[k] > 0 else grid.width - 0.5
        nearness = min(max((all_.y[k] - 30) / 98, 0.02), 1.0)
        all_.size_px[k] = 6 + 44 * nearness * rng.uniform(0.5, 1.2)
        all_.bias_px[k] = rng.normal(0, 4)
        all_.identity[k] = len(self.births_s)
        self.births_s.append(self.now_s)
        self.first_s.append(math.inf)
        self.last_s.append(-math.inf)

    def _draw_cell(self) -> int:
        drawn = self._rng.random() * self._cumulative[-1]
        return min(int(np.searchsorted(self._cumulative, drawn, side="right")), self.prior.size - 1)

    def _draw_clutter(self) -> NDArray[np.float64]:
        """x, y and probability of firing of the points that the wide detector takes for targets."""
        mixed: NDArray[np.float64] = np.cumsum(0.5 * self.prior + 0.5 / self.prior.size)
        cells = np.searchsorted(mixed, self._rng.random(CLUTTER) * mixed[-1], side="right")
        y, x = np.divmod(np.minimum(cells, mixed.size - 1), self.grid.width)
        inside = self._rng.random((2, CLUTTER))
        return np.stack([x + inside[0], y + inside[1], self._rng.uniform(0.05, 0.35, CLUTTER)], 1)

    def advance(self, to_s: float) -> None:
        """Move all targets; those that leave are replaced at once."""
        all_, step_s = self.targets, to_s - self.now_s
        self.now_s = to_s
        if self.conditions.static:
            return
        all_.x += all_.vx * step_s
        all_.y += all_.vy * step_s
        inside_x = (all_.x >= 0) & (all_.x < self.grid.width)
        inside = inside_x & (all_.y >= 0) & (all_.y < self.grid.height)
        for k in np.flatnonzero(~inside):
            self._bear(int(k), entering=True)

    def wide(self) -> Cells:
        """What the wide detector sees now: some targets, some clutter."""
        if not self.conditions.wide:
            return np.empty((0, 3))
        rng, all_ = self._rng, self.targets
        likely = 1 / (1 + np.exp(-(all_.size_px + all_.bias_px - 26) / 3))
        hit = rng.random(likely.size) < likely
        count = int(hit.sum())
        confidence = np.clip(likely[hit] * rng.uniform(0.6, 1, count), 0.2, 0.98)
        places = np.stack([all_.x[hit], all_.y[hit]], 1) + rng.normal(0, 0.4, (count, 2))
        fires = rng.random(CLUTTER) < self._clutter[:, 2]
        false = self._clutter[fires, :2] + rng.normal(0, 0.3, (int(fires.sum()), 2))
        doubtful = rng.uniform(0.2, 0.7, len(false))
        return np.vstack(
            [np.column_stack([places, confidence]), np.column_stack([false, doubtful])]
        )

    def look(self, gaze: Place) -> Cells:
        """What the search detector sees there, noted in first_s and last_s."""
        rng, all_ = self._rng, self.targets
        offset = np.maximum(np.abs(all_.x - gaze[0]), np.abs(all_.y - gaze[1]))
        usable = np.flatnonzero(offset <= self._sight.half)
        hit = usable[rng.random(usable.size) < self.conditions.pd]
        for identity in all_.identity[hit]:
            self.first_s[identity] = min(self.first_s[identity], self.now_s)
            self.last_s[identity] = self.now_s
        noise = rng.normal(0, 0.08, (hit.size, 2))
        places = np.stack([all_.x[hit], all_.y[hit]], 1) + noise
        certain = np.clip(0.95 - 0.05 * offset[hit] + rng.normal(0, 0.05, hit.size), 0.5, 0.99)
        detections: Cells = np.column_stack([places, certain])
        if rng.random() < 0.003:
            false = (*(gaze + rng.uniform(-5, 5, 2)), rng.uniform(0.5, 0.7))
            detections = np.vstack([detections, false])
        return detections

    def ages_s(self) -> NDArray[np.float64]:
        """Time since each present target was last detected, or came."""
        who = self.targets.identity
        last = np.maximum(np.take(self.last_s, who), np.take(self.births_s, who))
        return np.asarray(self.now_s - last, np.float64)


def street(grid: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Labels (H, W): sky over buildings, six trees, two roads between sidewalks."""
    labels = np.full(grid.shape, BUILDING, np.uint8)
    horizon = int(rng.integers(30, 45))
    labels[:horizon] = SKY
    for _ in range(6):
        x, width = int(rng.integers(0, 226)), int(rng.integers(15, 45))
        top, height = horizon + int(rng.integers(-8, 6)), int(rng.integers(15, 30))
        labels[top : top + height, x : x + width] = TREE
    tops = rng.choice(np.arange(horizon + 12, 106), 2, replace=False)
    heights = rng.integers(8, 16, 2)
    for label, beside in ((SIDEWALK, 5), (ROAD, 0)):
        for top, height in zip(tops.tolist(), heights.tolist(), strict=True):
            labels[max(top - beside, 0) : top + height + beside] = label
    return labels


@dataclass(kw_only=True)
class Outcome:
    """One search. found: share of the first targets found by each of FOUND_AT_S.

    ttd_s: time to detect of each target that counts. ages_s: sampled times since the last look.
    decision_us: CPU time of each step with its observation. found_s: when each first target was
    found.
    """

    found: NDArray[np.float64]
    found_s: NDArray[np.float64]
    ttd_s: NDArray[np.float64]
    ages_s: NDArray[np.float64]
    gazes: NDArray[np.float64]
    decision_us: NDArray[np.float64]
    wide_us: NDArray[np.float64]

    @property
    def ttd_median_s(self) -> float:
        """Upper median of the times to detect; infinity where most were never found."""
        return float(np.sort(self.ttd_s)[self.ttd_s.size // 2])

    @property
    def age_mean_s(self) -> float:
        """Mean time since last look."""
        return float(self.ages_s.mean())


@dataclass
class _Log:
    gazes: list[Place] = field(default_factory=list)
    decision_ns: list[int] = field(default_factory=list)
    wide_ns: list[int] = field(default_factory=list)
    ages_s: list[NDArray[np.float64]] = field(default_factory=list)


Factory = Callable[..., Scheduler]
"""(grid, sight, seed=) -> a scheduler."""


def search(
    factory: Factory,
    seed: int,
    conditions: Conditions,
    *,
    grid: Grid | None = None,
    span_s: float = SPAN_S,
    clock_ns: Callable[[], int] = lambda: 0,
) -> Outcome:
    """Let a scheduler search a world from the middle of the grid.

    clock_ns: what its decisions are timed by, such as `time.thread_time_ns`.
    """
    grid = grid or Grid()
    sight = Sight(pd=conditions.pd, slot_s=conditions.slot_s)
    world = World(seed, conditions, grid, sight)
    scheduler = factory(grid, sight, seed=seed + 999)
    if hasattr(scheduler, "know"):  # a reference that is told the truth
        scheduler.know(world)
    scheduler.regions(0.0, world.labels, WEIGHTS)
    log = _Log()
    _run(world, scheduler, log, sight, span_s, clock_ns)
    return _outcome(world, log, conditions.targets, span_s)


def _run(
    world: World,
    scheduler: Scheduler,
    log: _Log,
    sight: Sight,
    span_s: float,
    clock_ns: Callable[[], int],
) -> None:
    last: Place = (world.grid.width / 2, world.grid.height / 2)
    on_the_way: list[tuple[float, Cells]] = []
    frame, sample = 0, round(SETTLED_S / 0.1)
    while True:
        now_s = world.now_s
        while on_the_way and on_the_way[0][0] <= now_s:
            started = clock_ns()
            scheduler.wide(now_s, on_the_way.pop(0)[1])
            log.wide_ns.append(clock_ns() - started)
        started = clock_ns()
        gaze = scheduler.step(now_s)
        spent_ns = clock_ns() - started
        turn = max(abs(gaze[0] - last[0]), abs(gaze[1] - last[1]))
        look_s = now_s + sight.cost_s(turn)
        if look_s > span_s:
            return
        while min(frame * WIDE_PERIOD_S, sample * 0.1) <= look_s:
            if frame * WIDE_PERIOD_S <= sample * 0.1:
                world.advance(frame * WIDE_PERIOD_S)
                on_the_way.append((world.now_s + WIDE_DELAY_S, world.wide()))
                frame += 1
            else:
                world.advance(sample * 0.1)
                log.ages_s.append(world.ages_s())
                sample += 1
        world.advance(look_s)
        detections = world.look(gaze)
        started = clock_ns()
        scheduler.observe(look_s, gaze, detections)
        log.decision_ns.append(spent_ns + clock_ns() - started)
        log.gazes.append(gaze)
        last = gaze


def _outcome(world: World, log: _Log, first: int, span_s: float) -> Outcome:
    births_s, first_s = np.array(world.births_s), np.array(world.first_s)
    found_s = first_s[:first]
    return Outcome(
        # Slots add up to times that miss a round number by rounding.
        found=np.array([(found_s <= t + 1e-6).mean() for t in FOUND_AT_S]),
        found_s=found_s,
        ttd_s=(first_s - births_s)[births_s < span_s - SETTLED_S],
        ages_s=np.concatenate(log.ages_s) if log.ages_s else np.empty(0),
        gazes=np.array(log.gazes),
        decision_us=np.array(log.decision_ns) * 1e-3,
        wide_us=np.array(log.wide_ns) * 1e-3,
    )
