"""Found over time: one panel a scene, one curve a scheduler, and the bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.bench.search_compare import SCENES, Comparison, Settings
from edgeperc.bench.search_world import FOUND_AT_S, SPAN_S, Outcome
from edgeperc.errors import ConfigError

COLOURS = {
    "bayes": "#c2185b",
    "paper": "#1f6fb4",
    "raster": "#7f7f7f",
    "raster_region": "#2a9d5c",
    "paper_wide": "#7ab6e8",
    "oracle": "#e39b1a",
}
FIRST_S = 0.05


def draw(comparison: Comparison, names: Sequence[str], settings: Settings, path: Path) -> None:
    """Write a PNG. Raises ConfigError if the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained", dpi=150)
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axis, (scene, title) in zip(axes, SCENES.items(), strict=True):
        for number, name in enumerate(names):
            colour = COLOURS.get(name, f"C{number}")
            _curve(axis, comparison.outcomes[scene, name], name, colour)
        if scene == "static":
            _bounds(axis, comparison)
        _dress(axis, f"{scene}: {title}")
    handles, labels = axes[list(SCENES).index("static")].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    for axis in axes[2:]:
        axis.set_xlabel("time since the search began / s")
    for axis in axes[::2]:
        axis.set_ylabel("targets found")
    figure.suptitle(
        f"Share of {settings.targets} targets found, {1000 / settings.slot_ms:.0f} looks a second,"
        f" seeds {settings.first_seed} to {settings.last_seed}"
    )
    try:
        FigureCanvasAgg(figure).print_figure(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from None


def _curve(axis: Any, outcomes: Sequence[Outcome], name: str, colour: str) -> None:
    """Mean over the seeds, and a band of twice its standard error."""
    times_s = np.geomspace(FIRST_S, SPAN_S, 200)
    shares = np.array([_found_by(outcome.found_s, times_s) for outcome in outcomes])
    mean = shares.mean(axis=0)
    error = 2 * shares.std(axis=0) / max(len(outcomes), 1) ** 0.5
    axis.plot(times_s, mean, color=colour, label=name, lw=2.4 if name == "bayes" else 1.5)
    axis.fill_between(times_s, mean - error, mean + error, color=colour, alpha=0.12, lw=0)


def _found_by(found_s: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.searchsorted(np.sort(found_s), times_s, side="right") / found_s.size


def _bounds(axis: Any, comparison: Comparison) -> None:
    for name, bound, style in (
        ("bound (Koopman)", comparison.koopman, "--"),
        ("bound (whole looks)", comparison.whole, ":"),
    ):
        axis.plot(
            FOUND_AT_S,
            bound.mean(axis=0),
            style,
            color="black",
            label=name,
            lw=1.2,
            marker="o",
            ms=3,
        )


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=10.5)
    axis.set_xscale("log")
    axis.set_xlim(FIRST_S, SPAN_S)
    axis.set_ylim(0, 1.02)
    ticks_s = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8)
    axis.set_xticks(ticks_s, [f"{t:g}" for t in ticks_s])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
