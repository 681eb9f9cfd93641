"""A wall clock that is set for some processes alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeperc.bench import wall_clock as module
from edgeperc.bench.victim import ImpossibleError
from edgeperc.bench.wall_clock import WallClock

TELLING = """
import sys, threading, time
for line in sys.stdin:
    began = time.monotonic()
    threading.Event().wait(0.05)
    waited = time.monotonic() - began
    print(time.time(), time.time_ns() * 1e-9, time.monotonic(), waited, flush=True)
"""


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[WallClock]:
    try:
        clock = WallClock(tmp_path)
    except ImpossibleError as error:
        pytest.skip(str(error))
    with clock:
        yield clock


def test_those_who_are_started_with_it_see_the_step_and_nobody_else(clock: WallClock) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TELLING],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for step_s in (0.0, 3600.0, -3600.0, 0.0):
            clock.set(step_s)
            process.stdin.write("\n")
            process.stdin.flush()
            wall_s, wall_too_s, monotonic_s, waited_s = map(
                float, process.stdout.readline().split()
            )
            assert abs(wall_s - time.time() - step_s) < 60
            assert abs(wall_too_s - wall_s) < 60
            assert abs(monotonic_s - time.monotonic()) < 60
            assert waited_s < 60
        process.stdin.close()


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(ImpossibleError, match="gcc"):
        WallClock(tmp_path)
