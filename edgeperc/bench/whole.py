"""Everything around the network: decoding, the pipeline's stages, and what they add to a window."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from edgeperc.bench.figures import Figures
from edgeperc.bench.timing import median_ms
from edgeperc.clock import ReplayClock
from edgeperc.drivers.replay import Replay
from edgeperc.errors import EdgepercError
from edgeperc.meter import STAGES
from edgeperc.packet import Events
from edgeperc.pipeline import Pipeline, Run
from edgeperc.places import ModelFolder
from edgeperc.represent import RECIPES
from edgeperc.result import Result
from edgeperc.segment import Segmenter
from edgeperc.sink import Inventory, Sink
from edgeperc.sinks.file import File
from edgeperc.validate import Validator
from edgeperc.window import TimeWindows

ROUNDS = 5
PACKETS = 5


def measure(figures: Figures, model: ModelFolder, windows: Sequence[Events], folder: Path) -> None:
    """overhead_ms_p50, and the p50 of each stage."""
    sensor = _StepByStep(windows)
    segmenter = Segmenter(model)
    pipeline = Pipeline(
        name="bench", input="twin", model=segmenter, ref=segmenter.ref, windows=TimeWindows(50_000)
    )
    sink = _Timed(File(str(folder / "out"), inventory=Inventory()), sensor)
    run = Run(
        sensors={"twin": lambda: sensor},
        pipelines=[pipeline],
        sinks=[sink],
        clock=ReplayClock(None),
        validator=partial(Validator, policy="raise"),
        lossless=True,
    )
    run.start()
    run.wait()
    run.stop()
    if run.errors:
        raise EdgepercError("; ".join(run.errors))
    # A result's infer time holds bringing the labels back to the sensor, which is not the network.
    overhead_ms = float(np.median(sink.around_ms)) + _back_to_sensor_ms(model, windows[0])
    figures.add(
        "overhead_ms_p50", overhead_ms,
        "all but network and decoder, from a window's first packet to its labels on disk", aim=2,
    )  # fmt: skip
    _decoding(figures, windows, folder)
    for row in pipeline.meter.snapshot().stages:
        if row.stage in STAGES[1:]:
            figures.add(f"{row.stage}_ms_p50", row.p50_ms, f"stage '{row.stage}' of the pipeline")


class _StepByStep:
    """A sensor that hands out a window's packets when the result of the last one is written."""

    def __init__(self, windows: Sequence[Events]) -> None:
        self._windows = windows
        self._written: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.handed_out_ns = 0

    def packets(self) -> Iterator[Events]:
        span_us = 50_000 * len(self._windows)
        for turn in range(ROUNDS):
            for window in self._windows:
                packets = list(_pieces(_later(window, turn * span_us)))
                self.handed_out_ns = time.perf_counter_ns()
                yield from packets
                self._written.get(timeout=60)

    def written(self) -> None:
        self._written.put(None)

    def close(self) -> None:
        self._written.put(None)


class _Timed:
    """A sink around a sink that notes how long a result took, less the network's time."""

    where = ""

    def __init__(self, sink: Sink, sensor: _StepByStep) -> None:
        self._sink, self._sensor = sink, sensor
        self.around_ms: list[float] = []

    def write(self, result: Result) -> None:
        self._sink.write(result)
        took_ns = time.perf_counter_ns() - self._sensor.handed_out_ns
        self.around_ms.append((took_ns - result.timings.infer_ns) * 1e-6)
        self._sensor.written()

    def close(self) -> None:
        self._sink.close()


def _later(window: Events, by_us: int) -> Events:
    stamp = replace(
        window.stamp,
        start_ns=window.stamp.start_ns + by_us * 1000,
        end_ns=window.stamp.end_ns + by_us * 1000,
    )
    return replace(window, stamp=stamp, t=window.t + by_us)


def _pieces(window: Events) -> Iterator[Events]:
    """The window in packets of 10 ms, as a sensor sends them."""
    start_us = window.stamp.start_ns // 1000
    edges = np.searchsorted(window.t, start_us + np.arange(1, PACKETS) * 50_000 // PACKETS)
    for k, (first, last) in enumerate(itertools.pairwise([0, *edges.tolist(), len(window)])):
        end_ns = window.stamp.start_ns + (k + 1) * 50_000_000 // PACKETS
        stamp = replace(window.stamp, start_ns=end_ns - 50_000_000 // PACKETS, end_ns=end_ns)
        yield window.slice(first, last, stamp)


def _back_to_sensor_ms(model: ModelFolder, window: Events) -> float:
    spec = model.card.input
    recipe = RECIPES[spec.represent](window.width_px, window.height_px, spec)
    labels = np.zeros(recipe.shape[1:], np.uint8)
    return median_ms(lambda: recipe.labels_to_sensor(labels), reps=50)


def _decoding(figures: Figures, windows: Sequence[Events], folder: Path) -> None:
    """decode_ms: a recording's events read as fast as they come, per window."""
    path = folder / "twin.dat"
    write_dat(path, windows)
    first_ns, events = 0, 0  # the clock starts when the decoder's process has
    for packet in Replay(str(path)).packets():
        first_ns = first_ns or time.perf_counter_ns()
        events += len(packet) if isinstance(packet, Events) else 0
    assert events == sum(len(window) for window in windows)
    took_ms = (time.perf_counter_ns() - first_ns) * 1e-6
    figures.add(
        "decode_ms", took_ms / len(windows), "a window of a DAT recording, in the decoder's process"
    )


def write_dat(path: Path, windows: Sequence[Events]) -> None:
    """A Prophesee DAT file, version 2: header, then 32 bit of time and 14 + 14 + 1 of address."""
    first = windows[0]
    records = np.empty(sum(len(window) for window in windows), [("t", "<u4"), ("address", "<u4")])
    t, x, y, p = (np.concatenate([getattr(w, name) for w in windows]) for name in "txyp")
    records["t"] = t
    records["address"] = x.astype("<u4") | y.astype("<u4") << 14 | p.astype("<u4") << 28
    header = f"% Version 2\n% Width {first.width_px}\n% Height {first.height_px}\n"
    path.write_bytes(header.encode() + b"\x0c\x08" + records.tobytes())
