"""Schedulers side by side: each searches the same worlds, in several processes; and the bounds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc import plugin
from edgeperc.bench.search_oracle import Oracle
from edgeperc.bench.search_world import FOUND_AT_S, Conditions, Factory, Outcome, World, search
from edgeperc.errors import ConfigError
from edgeperc.search.bound import koopman, whole_looks
from edgeperc.search.grid import Grid
from edgeperc.search.paper import paper_wide
from edgeperc.search.schedulers import Sight

REFERENCES: dict[str, Factory] = {"paper_wide": paper_wide, "oracle": Oracle}
"""Schedulers for comparison only, which no rig can name."""
SCENES = {
    "base": "moving targets, wide camera",
    "no_wide": "moving targets, prior only",
    "static": "targets at rest, prior only",
    "bad_prior": "targets anywhere, wide camera",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is searched. first_seed, last_seed: the worlds, both included.

    schedulers: further ones to compare. plot: PNG of found-over-time curves. realtime_s: for so
    long the twin is searched in real time, too, in each way.
    """

    first_seed: int = 300
    last_seed: int = 319
    targets: int = 20
    pd: float = 0.92
    slot_ms: float = 1000 / 120
    schedulers: tuple[str, ...] = ()
    plot: Path | None = None
    processes: int = 2
    realtime_s: float = 0.0

    @property
    def seeds(self) -> range:
        """The seeds of the worlds."""
        return range(self.first_seed, self.last_seed + 1)

    def conditions(self, scene: str) -> Conditions:
        """A scene's world with these settings."""
        return Conditions(
            targets=self.targets,
            pd=self.pd,
            slot_s=self.slot_ms * 1e-3,
            static=scene == "static",
            wide=scene in {"base", "bad_prior"},
            bad_prior=scene == "bad_prior",
        )


@dataclass
class Comparison:
    """Outcomes by scene and scheduler, each in the order of the seeds.

    koopman, whole: the bounds (seeds, times) at FOUND_AT_S, of the static scene's priors.
    """

    outcomes: dict[tuple[str, str], list[Outcome]] = field(default_factory=dict)
    koopman: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    whole: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))


def check(settings: Settings) -> None:
    """Raise ConfigError for a setting that cannot be."""
    if settings.last_seed < settings.first_seed or settings.first_seed < 0:
        raise ConfigError(
            f"--seeds {settings.first_seed}-{settings.last_seed}: the first one is above the last"
        )
    for name, value, low, high in (
        ("targets", settings.targets, 1, 1000),
        ("pd", settings.pd, 0.01, 1.0),
        ("slot-ms", settings.slot_ms, 0.0, 1000.0),
        ("seconds", settings.realtime_s, 0.0, 86_400.0),
    ):
        if not low <= value <= high:
            raise ConfigError(f"--{name} {value:g}: must be in {low:g} to {high:g}")
    if settings.plot and not settings.plot.parent.is_dir():
        raise ConfigError(f"{settings.plot.parent}: no such folder")
    for name in settings.schedulers:
        factory(name)


def factory(name: str) -> Factory:
    """A scheduler's constructor. Raises ConfigError if there is none of that name."""
    if name in REFERENCES:
        return REFERENCES[name]
    return plugin.resolve(name, kind="scheduler", where="--scheduler", folder=Path.cwd())


def compare(
    names: Sequence[str],
    settings: Settings,
    progress: Callable[[str], None],
    *,
    scenes: Sequence[str] = tuple(SCENES),
) -> Comparison:
    """Search scenes with schedulers, spread over processes."""
    jobs = [(scene, name) for scene in scenes for name in names]
    comparison = Comparison()
    with _workers(settings.processes) as work:
        everything = [(name, seed, settings.conditions(scene)) for scene, name in jobs
                      for seed in settings.seeds]  # fmt: skip
        results = work(everything)
        for number, (scene, name) in enumerate(jobs):
            progress(f"{scene}: {name} ({number + 1} of {len(jobs)})")
            comparison.outcomes[scene, name] = [next(results) for _ in settings.seeds]
    comparison.koopman, comparison.whole = _bounds(settings)
    return comparison


class _workers:  # noqa: N801  (used as a function)
    """Runs searches in order, in processes if more than one is wanted."""

    def __init__(self, processes: int) -> None:
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, mp_context=spawn)

    def __enter__(self) -> Callable[[Sequence[Any]], Iterator[Outcome]]:
        if self._pool is None:
            return lambda jobs: map(_search, jobs)
        pool = self._pool
        return lambda jobs: pool.map(_search, jobs, chunksize=4)

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _search(job: tuple[str, int, Conditions]) -> Outcome:
    name, seed, conditions = job
    outcome = search(factory(name), seed, conditions)
    return replace(outcome, gazes=outcome.gazes[:0])  # nobody reads them; they are the bulk


def _bounds(settings: Settings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both bounds, (seeds, times)."""
    conditions = settings.conditions("static")
    sight = Sight(pd=settings.pd, slot_s=conditions.slot_s)
    rows = []
    for seed in settings.seeds:
        prior = World(seed, conditions, Grid(), sight).prior
        looks = [int(t / sight.cost_s(0) + 1e-6) for t in FOUND_AT_S]
        rows.append(
            [[f(prior, n, half=sight.half, pd=sight.pd) for n in looks]
             for f in (koopman, whole_looks)]
        )  # fmt: skip
    koopmans, wholes = np.array(rows).transpose(1, 0, 2)
    return koopmans, wholes
