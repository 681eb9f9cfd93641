"""The suite `events`: from a 50 ms window of events to a label map, and what each step costs.

Everything runs on windows of the digital twin at 346 × 260, so that no recording is needed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edgeperc.bench import kernels, network, whole
from edgeperc.bench.figures import Figures
from edgeperc.packet import Events, Stamp
from edgeperc.twin.drive import samples
from edgeperc.twin.scene import Camera

WINDOWS = 16


def measure(figures: Figures) -> None:
    """Fill in every figure that this installation can measure."""
    figures.progress("kernels")
    kernels.measure(figures)
    figures.progress("the twin")
    windows = list(one_after_the_other(twin_windows(), window_us=50_000))
    mean = np.mean([len(window) for window in windows])
    figures.note(f"Windows: {len(windows)} of the twin, 50 ms each, {mean:,.0f} events on average.")
    with tempfile.TemporaryDirectory() as folder:
        model = network.open_model(figures, windows, Path(folder))
        if model is not None:
            network.measure(figures, model, windows)
            figures.progress("the pipeline")
            whole.measure(figures, model, windows, Path(folder))


def twin_windows() -> Iterator[Events]:
    """50 ms windows of one street, 1.5 s apart."""
    camera = Camera(width_px=346, height_px=260, focal_px=300.0)
    return (sample.events for sample in samples(0, count=WINDOWS, camera=camera))


def one_after_the_other(windows: Iterable[Events], *, window_us: int) -> Iterator[Events]:
    """The windows moved in time, so that they follow each other from 0 and all are full."""
    for k, window in enumerate(windows):
        t = window.t - window.stamp.start_ns // 1000 + k * window_us
        t[:1] = k * window_us  # a pipeline's windows start at the first event
        yield Events(
            stamp=Stamp(
                source="twin",
                seq=k,
                start_ns=k * window_us * 1000,
                end_ns=(k + 1) * window_us * 1000,
            ),
            t=t,
            x=window.x,
            y=window.y,
            p=window.p,
            width_px=window.width_px,
            height_px=window.height_px,
        )
