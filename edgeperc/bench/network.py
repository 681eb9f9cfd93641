"""SLTNet against the plain module that it was exported from, and from events to labels."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.bench import machine
from edgeperc.bench.figures import Figures
from edgeperc.bench.timing import compare, times_ms
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.packet import Events
from edgeperc.places import ModelFolder
from edgeperc.represent import RECIPES
from edgeperc.segment import Engine, OnnxEngine, Segmenter
from edgeperc.spiking import SpikingEngine

MODEL = "sltnet-ddd17"
THREADS = 2
Grid = NDArray[np.float32]


def open_model(figures: Figures, windows: Sequence[Events], folder: Path) -> ModelFolder | None:
    """The imported network; else one of its shape with random weights; None without torch."""
    try:
        model = places.find_model(MODEL)
    except ModelError:
        baseline = _baseline(figures)
        if baseline is None:
            return None
        card = places.find_card(MODEL).card
        figures.note(
            f"Network: random weights and, as in the published one, LMSBs that never fire; "
            f"{MODEL} is not imported."
        )
        random: ModelFolder = baseline.random_model(card, folder / MODEL, grids(card, windows))
        return random
    figures.note(f"Network: {MODEL} from {model.folder}.")
    return model


def measure(figures: Figures, model: ModelFolder, windows: Sequence[Events]) -> None:
    """Speed-ups over eager torch, frames a second, share of the machine's peak."""
    inputs = grids(model.card, windows)
    figures.progress("frames a second")
    fps = {engine: _frames_a_second(model, engine, windows) for engine in ("auto", "onnx")}
    what = f"windows a second, events to sensor labels, {THREADS} threads"
    figures.add("sltnet_fps", fps["auto"], f"{what}, default engine", aim=114)
    figures.add("sltnet_onnx_fps", fps["onnx"], f"{what}, onnxruntime")
    baseline = _baseline(figures)
    if baseline is None:
        return
    figures.progress("eager torch")
    eager = _each(baseline.eager(len(model.card.classes), inputs[0].shape[0], THREADS), inputs)
    peak = machine.gemm_gflops()
    figures.add("gemm_gflops", peak, "best float32 matrix product in numpy, all cores")
    gflop = 2e-9 * baseline.products(len(model.card.classes), inputs[0].shape)
    engines = list(_engines(model))
    calls = [_each(engine.labels, inputs) for _, engine, _ in engines]
    compared = compare(eager, *calls, rounds=5, baseline_reps=2, reps=8)
    figures.add("eager_ms", compared.baseline_ms, f"the plain module in torch, {THREADS} threads")
    for (prefix, engine, aim), pair in zip(engines, compared.pairs, strict=True):
        figures.add(
            f"{prefix}speedup_vs_eager", pair.speedup, f"{engine.name}: times eager torch", aim=aim
        )
        share = gflop / (pair.median_ms * 1e-3) / peak
        what = f"{engine.name}: {gflop:.2f} dense GFLOP of the unfolded network"
        figures.add(
            f"{prefix}share_of_gemm_peak",
            share,
            f"{what} in its time, over gemm_gflops; skips many",
        )
    if compared.steady < 0.5:
        figures.note("Eager torch took uneven times: its ratios are rough.")


def _engines(model: ModelFolder) -> Iterator[tuple[str, Engine, float | None]]:
    """Prefix of the key, engine, aim; the engine that runs by default first."""
    network, spiking = model.file("network"), model.file("spiking")
    assert network is not None
    if spiking is not None:
        yield "sltnet_", SpikingEngine(spiking, threads=THREADS), 10
    prefix, aim = ("sltnet_", 10) if spiking is None else ("sltnet_onnx_", None)
    yield (
        prefix,
        OnnxEngine(Session(network, threads=THREADS), classes=len(model.card.classes)),
        aim,
    )


def grids(card: Any, windows: Sequence[Events]) -> list[Grid]:
    """The network's input for each window."""
    first = windows[0]
    recipe = RECIPES[card.input.represent](first.width_px, first.height_px, card.input)
    return [recipe(window).copy() for window in windows]


def _frames_a_second(
    model: ModelFolder, engine: Literal["auto", "onnx"], windows: Sequence[Events]
) -> float:
    segmenter = Segmenter(model, engine=engine, threads=THREADS)
    call = _each(segmenter, windows)
    return 1e3 / float(np.median(times_ms(call, reps=5 * len(windows))))


def _each(function: Callable[[Any], object], inputs: Sequence[Any]) -> Callable[[], object]:
    """A call without arguments that takes one input after the other, round and round."""
    turns = itertools.cycle(inputs)
    return lambda: function(next(turns))


def _baseline(figures: Figures) -> Any:
    """`edgeperc.offline.baseline`, or None and a note if torch is not installed."""
    try:
        return importlib.import_module("edgeperc.offline.baseline")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("edgeperc"):
            raise
        figures.note(
            f"No comparison with torch: needs {error.name}: pip install 'edgeperc[offline]'"
        )
        return None
