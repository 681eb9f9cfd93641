"""A calibration's residuals, drawn over the wide picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.fit import Fit

USED, HELD_OUT, OUTLIER = "#0072b2", "#d55e00", "#cc2288"
_ARROW_SHARE = 0.06
"""Of the picture's width: how long an arrow of p95 length is drawn."""


def draw(fit: Fit, path: Path, *, title: str, wide: NDArray[np.uint8] | None = None) -> None:
    """Write a PNG: arrows from where a point should be to where the model puts it, and a histogram.

    wide: the wide picture, if there is one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    over, beside = figure.subplots(1, 2, width_ratios=(2.4, 1))
    errors = fit.chosen.errors
    figure.suptitle(
        f"{title} · {fit.chosen.model.name}: {errors.rms_px:.2f} px rms, {errors.p95_px:.2f} px p95"
        f" · {len(fit.points)} points, {int(fit.outlier.sum())} outliers",
        fontsize=12,
    )
    _arrows(over, fit, wide)
    _histogram(beside, fit)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _arrows(axes: Any, fit: Fit, wide: NDArray[np.uint8] | None) -> None:
    width, height = (2 * middle for middle in fit.lens.centre_px)
    magnified = _ARROW_SHARE * width / max(fit.chosen.errors.p95_px, 1e-6)
    if wide is not None:
        axes.imshow(wide, cmap="gray", extent=(0, width, height, 0), alpha=0.45)
    for chosen, colour, label in _kinds(fit):
        at = fit.points.wide_px[chosen]
        along = fit.chosen.residual_px[chosen] * magnified * (1, -1)
        if label == "outlier":
            axes.plot(*at.T, "x", color=colour, label=label, markersize=7, markeredgewidth=2)
            continue
        axes.quiver(
            *(*at.T, *along.T),
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.0028,
            color=colour,
            zorder=3,
        )
        axes.plot(*at.T, "o", color=colour, label=label, markersize=4, zorder=4)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xlabel="u, px", ylabel="v, px")
    axes.set_title(f"residuals in the wide picture; 1 search px is {magnified:.3g} px long")
    axes.legend(loc="upper right", framealpha=0.9)


def _histogram(axes: Any, fit: Fit) -> None:
    length = np.linalg.norm(fit.chosen.residual_px, axis=1)
    kinds = [kind for kind in _kinds(fit) if kind[2] != "outlier"]
    most = max(float(length[chosen].max(initial=0.0)) for chosen, _, _ in kinds)
    axes.hist(
        [length[chosen] for chosen, _, _ in kinds],
        bins=np.linspace(0, max(most, 1e-3) * 1.001, 16),
        color=[colour for _, colour, _ in kinds],
        label=[label for _, _, label in kinds],
        stacked=True,
    )
    for value, style, name in (
        (fit.chosen.errors.rms_px, "--", "rms"),
        (fit.chosen.errors.p95_px, ":", "p95"),
    ):
        axes.axvline(value, color="black", linestyle=style, label=f"{name}, held out")
    axes.set(xlabel="length of the residual, search px", ylabel="points")
    axes.set_title(f"a quarter of the view is {fit.view.limit_px:.0f} px")
    axes.legend(framealpha=0.9)


def _kinds(fit: Fit) -> list[tuple[NDArray[np.bool_], str, str]]:
    """Which points, their colour and their name."""
    kinds = [
        (~fit.held_out & ~fit.outlier, USED, "fitted"),
        (fit.held_out & ~fit.outlier, HELD_OUT, "held out"),
        (fit.outlier, OUTLIER, "outlier"),
    ]
    return [kind for kind in kinds if kind[0].any()]
