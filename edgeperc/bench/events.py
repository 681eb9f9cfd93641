"""The suite `events`: from a 50 ms window of events to a label map, and what each step costs.

By default on windows of the digital twin at 346 × 260, so that no recording is needed.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edgeperc.bench import kernels, network, whole
from edgeperc.bench.figures import Figures
from edgeperc.drivers.replay import Replay
from edgeperc.errors import DataError
from edgeperc.packet import Events, Stamp
from edgeperc.twin.drive import samples
from edgeperc.twin.scene import Camera
from edgeperc.window import TimeWindows

WINDOWS = 16


def measure(figures: Figures, recording: Path | None) -> None:
    """Fill in every figure that this installation can measure, on a recording's own windows."""
    figures.progress("kernels")
    kernels.measure(figures)
    figures.progress("the windows")
    found = recorded_windows(recording) if recording else twin_windows()
    windows = list(one_after_the_other(found, window_us=50_000))
    if not windows:
        raise DataError(f"{recording}: not one full window of 50 ms")
    mean = np.mean([len(window) for window in windows])
    figures.note(
        f"Windows: {len(windows)} of {recording or 'the twin'}, 50 ms each,"
        f" {mean:,.0f} events on average."
    )
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


def recorded_windows(recording: Path) -> Iterator[Events]:
    """The first full 50 ms windows of a recording that have events."""
    cut = TimeWindows(50_000)
    packets = (p for p in Replay(str(recording)).packets() if isinstance(p, Events))
    full = (window for packet in packets for window in cut.push(packet) if len(window))
    return itertools.islice(full, WINDOWS)


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
