"""MambaSeg as a whole: against the sequential scan, against its own products, in frames, in memory.

Weights are random: what is measured is time and memory. The published size is that of the published
layout, whose channel scans are tied to one size of picture.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeperc.bench.figures import Figures
from edgeperc.bench.machine import gemm_gflops
from edgeperc.config import FrameInput, Input, ModelCard
from edgeperc.fusion import FusionSegmenter
from edgeperc.offline.export import file_entry
from edgeperc.offline.export_fusion import export_onnx
from edgeperc.offline.mambaseg_counts import REASON, count
from edgeperc.offline.nets import ss2d
from edgeperc.offline.nets.mambaseg import VARIANTS, MambaSeg
from edgeperc.offline.nets.selective_scan import sequential_scan
from edgeperc.packet import Events, Frame, Pair, Stamp
from edgeperc.places import ModelFolder
from edgeperc.scan.graph import CutGraph, WholeGraph

THREADS = 2
KEYS = ("nano_fps", "network_speedup_vs_reference", "time_over_convs", "rss_gib_440x640")
PRODUCTS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
"""Operators of onnxruntime that are convolutions and linear layers."""

_WORKER = """
import sys
import numpy as np
from pathlib import Path
from edgeperc.scan.graph import CutGraph
graph = CutGraph(Path(sys.argv[1]), threads=2)
shapes = [tuple(map(int, text.split("x"))) for text in sys.argv[2:]]
inputs = [np.random.default_rng(0).standard_normal(shape, np.float32) for shape in shapes]
for _ in range(2):
    graph(*inputs)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
"""Says its largest resident size in KiB; getrusage would say its parent's, if that was larger."""


def measure(figures: Figures, only: tuple[str, ...] = KEYS) -> None:
    """Add the figures named in `only`, and with all of them the counts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only == KEYS:
            _counts(figures)
        if "nano_fps" in only:
            _nano(figures, folder)
        if {"network_speedup_vs_reference", "time_over_convs"} & set(only):
            _published(figures, folder, only)
        if "rss_gib_440x640" in only:
            _memory(figures, folder)


def _counts(figures: Figures) -> None:
    tiny = VARIANTS["mambaseg-tiny"]
    tied = {px: replace(tiny, frame_channels=1, locked_px=px) for px in ((200, 346), (440, 640))}
    networks = {
        "published layout, 200 x 346": (tied[200, 346], (200, 346)),
        "published layout, 440 x 640": (replace(tied[440, 640], classes=11), (440, 640)),
        "mambaseg-tiny, 200 x 346": (replace(tiny, frame_channels=1), (200, 346)),
        "mambaseg-nano, 200 x 352": (VARIANTS["mambaseg-nano"], (200, 352)),
    }
    rows = [count(config, size).row(name) for name, (config, size) in networks.items()]
    figures.tables.append(("MambaSeg: counted, beside what is published for 200 x 346", rows))
    figures.note(REASON)


def _nano(figures: Figures, folder: Path) -> None:
    figures.progress("the small network")
    net, path = _network("mambaseg-nano", folder, (200, 352))
    card = ModelCard(
        name="bench",
        task="semantic",
        summary="",
        licence="",
        source="",
        classes=tuple("abcdef"),
        input=Input(
            kind="events", represent="sltnet-ddd17", width_px=346, height_px=260, window_us=50_000
        ),
        frames=FrameInput(mean=(127.5,), std=(63.75,)),
        files=(file_entry(path, "network"),),
    )
    model = ModelFolder(card, folder)
    pair = _pair(20_000)
    seconds = {}
    for whole in (False, True):
        segmenter = FusionSegmenter(model, threads=THREADS, whole=whole)
        seconds[whole] = _median_s(partial(segmenter, pair), 20)
        segmenter.close()
    figures.add(
        "nano_fps",
        1 / seconds[False],
        "mambaseg-nano, 346 x 260 px, 20,000 events and a frame to labels, 2 threads, a second",
        aim=20,
    )
    figures.detail("nano_fps_whole_file", 1 / seconds[True])
    inputs = _inputs(net, (200, 352))
    cut, whole_file = CutGraph(path, threads=THREADS), WholeGraph(path, threads=THREADS)
    one, two = cut(*inputs), whole_file(*inputs)
    differ = float(np.abs(one - two).max() / np.abs(two).max())
    figures.detail("cut_and_whole_differ_ppm", differ * 1e6)
    figures.detail("cut_and_whole_same_labels", float((one.argmax(1) == two.argmax(1)).mean()))


def _published(figures: Figures, folder: Path, only: tuple[str, ...]) -> None:
    size = (200, 346)
    figures.progress("the published size in onnxruntime")
    net, path = _network("mambaseg-tiny", folder, size)
    inputs = _inputs(net, size)
    graph = CutGraph(path, threads=THREADS)
    ours_s = _median_s(lambda: graph(*inputs), 5)
    graph.close()
    figures.detail("published_s", ours_s)
    if "time_over_convs" in only:
        _shares(figures, path, folder, inputs)
        _peak(figures)
    path.unlink()
    if "network_speedup_vs_reference" in only:
        figures.progress("the published size with the sequential scan, minutes")
        with _sequential(), torch.no_grad():
            reference_s = _seconds(lambda: net(*map(torch.from_numpy, inputs)))
        figures.add(
            "network_speedup_vs_reference",
            reference_s / ours_s,
            "published size, 200 x 346 px, 2 threads, times torch with the sequential scan",
            aim=20,
        )
        figures.detail("published_reference_s", reference_s)


def _shares(
    figures: Figures, path: Path, folder: Path, inputs: Sequence[NDArray[np.float32]]
) -> None:
    """What the time goes to, by kind of operator."""
    profiled = CutGraph(path, threads=THREADS, profile=folder)
    whole_s = sum(_seconds(lambda: profiled(*inputs)) for _ in range(6))
    times = profiled.operator_times()
    profiled.close()
    products_s = sum(times.get(kind, 0.0) for kind in PRODUCTS)
    figures.add(
        "time_over_convs",
        whole_s / products_s,
        "the same, all its time over that of its convolutions and linear layers (at most 1.5)",
    )
    shares = sorted(times.items(), key=lambda item: -item[1])[:8]
    rows = [{"operator": kind, "share of all time": f"{s / whole_s:.1%}"} for kind, s in shares]
    rest = 1 - sum(times.values()) / whole_s
    rows.append({"operator": "scans, and between the pieces", "share of all time": f"{rest:.1%}"})
    figures.tables.append(("Published size, 200 x 346 px", rows))


def _peak(figures: Figures) -> None:
    """All products of the network over what the best matrix product would do in its time."""
    figures.progress("the best matrix product")
    figures.detail("gemm_gflops", gemm_gflops())


def _memory(figures: Figures, folder: Path) -> None:
    size = (440, 640)
    figures.progress("memory at 440 x 640")
    net, path = _network("mambaseg-tiny", folder, size)
    shapes = ["x".join(map(str, each.shape)) for each in _inputs(net, size)]
    del net
    command = [sys.executable, "-c", _WORKER, str(path), *shapes]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures.add(
        "rss_gib_440x640",
        int(said) / 2**20,
        "published size, 440 x 640 px: largest resident size of a process, GiB (below 3)",
    )


def _network(name: str, folder: Path, size: tuple[int, int]) -> tuple[MambaSeg, Path]:
    """Random weights and their file; the published size in the published layout."""
    config = VARIANTS[name]
    if name == "mambaseg-tiny":
        config = replace(config, locked_px=size, classes=6 if size[0] < 400 else 11)
    torch.manual_seed(0)
    net = MambaSeg(config).eval()
    path = folder / f"{name}.onnx"
    export_onnx(net, path, *size)
    return net, path


def _inputs(net: MambaSeg, size: tuple[int, int]) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    channels = net.config.frame_channels, net.config.bins
    return [rng.standard_normal((1, n, *size), np.float32) for n in channels]


def _pair(count: int) -> Pair:
    rng = np.random.default_rng(0)
    stamp = Stamp(source="bench", seq=0, start_ns=0, end_ns=50_000_000)
    events = Events(
        stamp=stamp,
        t=np.sort(rng.integers(0, 50_000, count)),
        x=rng.integers(0, 346, count, dtype=np.uint16),
        y=rng.integers(0, 260, count, dtype=np.uint16),
        p=rng.random(count) < 0.5,
        width_px=346,
        height_px=260,
    )
    image = rng.integers(0, 256, (260, 346), dtype=np.uint8)
    return Pair(stamp=stamp, frame=Frame(stamp=stamp, image=image), events=events)


@contextmanager
def _sequential() -> Iterator[None]:
    """Networks scan by the plain reference for a while, in THREADS threads of torch."""
    layers: Any = ss2d
    fast, threads = layers.selective_scan, torch.get_num_threads()
    layers.selective_scan = sequential_scan
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        layers.selective_scan = fast
        torch.set_num_threads(threads)


def _median_s(run: Callable[[], Any], times: int) -> float:
    run()
    return float(np.median([_seconds(run) for _ in range(times)]))


def _seconds(run: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s
