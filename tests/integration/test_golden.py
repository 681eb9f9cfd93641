"""From a real recording to the official network's labels, through everything that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgeperc import places
from edgeperc.drivers.replay import Replay
from edgeperc.packet import Events
from edgeperc.segment import Segmenter
from edgeperc.window import TimeWindows

Real = Callable[[str], Path]
AGREEMENT = 0.999
"""Share of pixels; the order of additions may flip a spike at its threshold."""


@pytest.fixture(scope="module")
def imported(official: tuple[object, Path]) -> places.ModelFolder:
    return places.find_model(str(official[1]))


@pytest.fixture(scope="module")
def windows(real: Real) -> list[Events]:
    cut = TimeWindows(50_000)
    packets = Replay(str(real("events/davis346.aedat4"))).packets()
    return [w for packet in packets if isinstance(packet, Events) for w in cut.push(packet)]


@pytest.mark.parametrize("engine", ["spiking", "onnx"])
def test_labels_are_the_official_networks(
    engine: Literal["spiking", "onnx"],
    imported: places.ModelFolder,
    windows: list[Events],
    real: Real,
) -> None:
    golden = np.load(real("golden/sltnet_ddd17_davis346.npz"))
    segmenter = Segmenter(imported, engine=engine)
    assert len(windows) == 47
    columns = np.rint(np.arange(346) * 351 / 345).astype(int)  # sensor column -> network column
    for k, end_us, labels in zip((0, 8, 16, 24), golden["t_end_us"], golden["labels"], strict=True):
        result = segmenter(windows[k])
        assert result.stamp.end_ns == int(end_us) * 1000
        assert np.mean(result.labels[:200] == labels[:, columns]) >= AGREEMENT
        assert (result.labels[200:] == 255).all()


def test_the_two_engines_agree_on_every_window(
    imported: places.ModelFolder, windows: list[Events]
) -> None:
    spiking, onnx = (Segmenter(imported, engine=engine) for engine in ("spiking", "onnx"))
    for window in windows:
        assert np.mean(spiking(window).labels == onnx(window).labels) >= AGREEMENT
