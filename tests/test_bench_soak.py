"""A daemon that is left alone: what is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeperc.bench.figures import Figures
from edgeperc.bench.soak import MODELS, Soaked, memory_of, soak


def test_growth_is_of_medians_and_not_of_spikes() -> None:
    steady = [100] * 50
    assert Soaked(rss_bytes=steady).growth() == 0
    spiky = [*steady[:-1], 900]
    assert Soaked(rss_bytes=spiky).growth() == 0
    leaking = Soaked(rss_bytes=[100 + k for k in range(50)])
    assert leaking.growth() == pytest.approx(144.5 / 114.5 - 1)


def test_memory_is_of_this_process_and_its_children() -> None:
    before = memory_of({os.getpid()})
    held = bytearray(os.urandom(1 << 20) * 64)
    assert memory_of({os.getpid()}) - before > 60 << 20
    del held


@pytest.mark.slow
def test_a_short_soak_answers_every_beat(tmp_path: Path) -> None:
    soaked = soak(tmp_path, 20.0, Figures())
    assert soaked.missed == 0
    assert len(soaked.rss_bytes) >= 10
    assert min(soaked.results[model] for model in MODELS) > 5
    assert soaked.growth() < 0.2
