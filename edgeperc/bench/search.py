"""How well schedulers search, in a world of statistics, against the published one and a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.bench.figures import Figures
from edgeperc.bench.search_compare import SCENES, Comparison, Settings, check, compare, factory
from edgeperc.bench.search_world import FOUND_AT_S, Outcome, search
from edgeperc.errors import ConfigError

COMPARED = ("paper", "raster", "raster_region", "bayes")
SHARE_AT = {"250ms": 0.25, "500ms": 0.5, "1s": 1.0, "2s": 2.0}
SHARE_AIMS = (0.75, 0.89, 0.94, 0.96)
RESAMPLES = 2000
TIMED_SEEDS = 3

Outcomes: TypeAlias = Sequence[Outcome]
Figure: TypeAlias = Callable[[Sequence[int]], float]
"""A number from the outcomes of some of the seeds, by their position; one may come repeatedly."""


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
        from edgeperc.bench.search_plot import draw  # matplotlib

        draw(comparison, names, settings, settings.plot)
        figures.note(f"Drew {settings.plot}.")


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
