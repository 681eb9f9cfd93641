"""How well schedulers search, in a world of statistics, against the published one and a bound."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc import plugin
from edgeperc.bench.figures import Figures
from edgeperc.bench.search_oracle import Oracle
from edgeperc.bench.search_world import FOUND_AT_S, Conditions, Factory, Outcome, World, search
from edgeperc.errors import ConfigError
from edgeperc.search.bound import koopman, whole_looks
from edgeperc.search.grid import Grid
from edgeperc.search.paper import paper_wide
from edgeperc.search.schedulers import Sight

COMPARED = ("paper", "raster", "raster_region", "bayes")
REFERENCES: dict[str, Factory] = {"paper_wide": paper_wide, "oracle": Oracle}
"""Schedulers for comparison only, which no rig can name."""
SCENES = {
    "base": "moving targets, wide camera",
    "no_wide": "moving targets, prior only",
    "static": "targets at rest, prior only",
    "bad_prior": "targets anywhere, wide camera",
}
SHARE_AT = {"250ms": 0.25, "500ms": 0.5, "1s": 1.0, "2s": 2.0}
SHARE_AIMS = (0.75, 0.89, 0.94, 0.96)
RESAMPLES = 2000
TIMED_SEEDS = 3

Outcomes: TypeAlias = Sequence[Outcome]
Figure: TypeAlias = Callable[[Sequence[int]], float]
"""A number from the outcomes of some of the seeds, by their position; one may come repeatedly."""


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


def measure(
    figures: Figures, recording: Path | None = None, settings: Settings | None = None
) -> None:
    """Search all scenes with all schedulers, and fill in figures, a table and the plot.

    Raises ConfigError for a scheduler that is not known or settings that cannot be.
    """
    settings = settings or Settings()
    if recording:
        raise ConfigError("the search suite measures in worlds of its own, not on a recording")
    check(settings)
    names = tuple(dict.fromkeys((*COMPARED, *settings.schedulers)))
    _decisions(figures, settings)
    comparison = compare(names, settings, figures.progress)
    _ratios(figures, comparison)
    _shares(figures, comparison)
    _wrong_prior(figures, comparison)
    figures.tables.extend(_tables(comparison, names))
    figures.note(_what_was_run(settings))
    if settings.realtime_s:
        from edgeperc.bench import search_realtime

        search_realtime.measure(figures, seconds=settings.realtime_s)
    if settings.plot:
        from edgeperc.bench.search_plot import draw

        draw(comparison, names, settings, settings.plot)
        figures.note(f"Drew {settings.plot}.")


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


def _decisions(figures: Figures, settings: Settings) -> None:
    """decision_us_p50 and p99, in this process alone, before others start."""
    figures.progress("the time of a decision")
    make = factory("bayes")
    search(make, settings.first_seed, settings.conditions("base"), span_s=0.5)  # compiles
    took_us, wide_us = [], []
    for scene in ("base", "no_wide", "bad_prior"):
        for seed in settings.seeds[:TIMED_SEEDS]:
            conditions = settings.conditions(scene)
            outcome = search(make, seed, conditions, clock_ns=time.thread_time_ns)
            took_us.append(outcome.decision_us)
            wide_us.append(outcome.wide_us)
    for percent, aim in ((50, 300.0), (99, 1000.0)):
        figures.add(
            f"decision_us_p{percent}", float(np.percentile(np.concatenate(took_us), percent)),
            "bayes: CPU time of step and observe", aim=aim,
        )  # fmt: skip
    figures.add(
        "wide_us_p50", float(np.median(np.concatenate(wide_us))), "bayes: CPU time of a wide update"
    )


def _ratios(figures: Figures, comparison: Comparison) -> None:
    """Bayes over paper: median time to detect and mean time since last look."""
    for scene, prefix, ttd_aim in (("base", "base", 0.25), ("no_wide", "noinfo", 0.38)):
        ours, theirs = (comparison.outcomes[scene, name] for name in ("bayes", "paper"))
        for key, figure, aim, what in (
            ("ttd", ttd_median_s, ttd_aim, "median time to detect"),
            ("age", age_mean_s, 0.22, "mean time since last look"),
        ):
            ratio = _ratio(figure, ours, theirs)
            said = f"bayes over paper, {SCENES[scene]}: {what}"
            _add(figures, f"{prefix}_{key}_ratio", ratio, len(ours), said, aim)
            per_seed = [_ratio(figure, [a], [b])([0]) for a, b in zip(ours, theirs, strict=True)]
            figures.detail(f"{prefix}_{key}_ratio_seed_median", float(np.median(per_seed)))


def _shares(figures: Figures, comparison: Comparison) -> None:
    """Found by bayes over the Koopman bound, and over the bound of whole looks."""
    found = np.array([o.found for o in comparison.outcomes["static", "bayes"]])
    for (name, t_s), aim in zip(SHARE_AT.items(), SHARE_AIMS, strict=True):
        k = FOUND_AT_S.index(t_s)
        bounds = (("bound_share", comparison.koopman, aim), ("whole_share", comparison.whole, None))
        for prefix, bound, its_aim in bounds:
            share = lambda seeds, b=bound, k=k: found[seeds, k].mean() / b[seeds, k].mean()  # noqa: E731
            limit = "Koopman's bound" if prefix == "bound_share" else "the bound of whole looks"
            what = f"bayes, found by {t_s:g} s over {limit}, {SCENES['static']}"
            _add(figures, f"{prefix}_{name}", share, len(found), what, its_aim)


def _wrong_prior(figures: Figures, comparison: Comparison) -> None:
    """Bayes against raster where the prior is wrong."""
    ours, theirs = (comparison.outcomes["bad_prior", name] for name in ("bayes", "raster"))
    last = FOUND_AT_S.index(8.0)
    gain = np.array([a.found[last] - b.found[last] for a, b in zip(ours, theirs, strict=True)])
    what = f"bayes minus raster, {SCENES['bad_prior']}: share found by 8 s"
    _add(figures, "wrong_found8s_minus_raster", lambda seeds: gain[seeds].mean(), len(ours), what,
         -0.01)  # fmt: skip
    what = f"bayes over raster, {SCENES['bad_prior']}: median time to detect"
    ratio = _ratio(ttd_median_s, ours, theirs)
    _add(figures, "wrong_ttd_ratio_raster", ratio, len(ours), what, 0.7)


def ttd_median_s(outcomes: Outcomes) -> float:
    """Upper median of the times to detect of all targets; infinity where most were missed."""
    ttd_s = np.sort(np.concatenate([outcome.ttd_s for outcome in outcomes]))
    return float(ttd_s[ttd_s.size // 2])


def age_mean_s(outcomes: Outcomes) -> float:
    """Mean over the seeds of the mean time since last look."""
    return float(np.mean([outcome.age_mean_s for outcome in outcomes]))


def _ratio(figure: Callable[[Outcomes], float], ours: Outcomes, theirs: Outcomes) -> Figure:
    def of(seeds: Sequence[int]) -> float:
        return figure([ours[k] for k in seeds]) / figure([theirs[k] for k in seeds])

    return of


def _add(
    figures: Figures, key: str, figure: Figure, seeds: int, what: str, aim: float | None
) -> None:
    """A figure with its 95 % bootstrap interval over the seeds."""
    low, high = interval(figure, seeds)
    figures.add(key, figure(range(seeds)), f"{what} ({low:.3f} to {high:.3f})", aim=aim)
    figures.detail(f"{key}_lo", low)
    figures.detail(f"{key}_hi", high)


def interval(figure: Figure, seeds: int) -> tuple[float, float]:
    """95 % bootstrap interval of a figure, worlds drawn again with replacement."""
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    values = [figure(row) for row in drawn]
    low, high = np.nanpercentile(values, (2.5, 97.5), method="nearest")
    return float(low), float(high)


def _tables(
    comparison: Comparison, names: Sequence[str]
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """For each scene a title and a row for each scheduler, and for the bounds."""
    for scene, title in SCENES.items():
        rows = [_row(name, comparison.outcomes[scene, name]) for name in names]
        if scene == "static":
            for name, bound in (("whole looks", comparison.whole), ("bound", comparison.koopman)):
                rows.append({"scheduler": name, **_found(bound.mean(axis=0))})
        yield f"{scene}: {title}", rows


def _row(name: str, outcomes: Outcomes) -> dict[str, str]:
    ttd_s = np.sort(np.concatenate([outcome.ttd_s for outcome in outcomes]))
    ages_s = np.concatenate([outcome.ages_s for outcome in outcomes])
    return {
        "scheduler": name,
        **_found(np.mean([outcome.found for outcome in outcomes], axis=0)),
        "TTD": f"{ttd_s[ttd_s.size // 2]:.3f}",
        "p90": f"{ttd_s[int(0.9 * ttd_s.size)]:.2f}",
        "miss %": f"{100 * np.isinf(ttd_s).mean():.1f}",
        "age": f"{ages_s.mean():.3f}",
        "p95": f"{np.percentile(ages_s, 95):.2f}",
    }


def _found(shares: NDArray[np.float64]) -> Mapping[str, str]:
    return {f"{t:g}s": f"{share:.2f}" for t, share in zip(FOUND_AT_S, shares, strict=True)}


def _what_was_run(settings: Settings) -> str:
    return (
        f"Seeds {settings.first_seed} to {settings.last_seed}, {settings.targets} targets,"
        f" Pd {settings.pd:g}, slots of {settings.slot_ms:.3f} ms. Intervals: 95 %, bootstrap over"
        " the seeds. Columns: share found by then; time to detect (TTD) in s, median and 90 %, over"
        " all targets of all seeds; never found; seconds since a target was last looked at, mean"
        " and 95 %. `paper` is our re-implementation."
    )
