"""A start that takes its time says why."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from edgeperc.inference import engines
from edgeperc.inference.engines import engine_for
from edgeperc.inference.gpu import Versions
from edgeperc.loading import loading


def test_a_start_says_which_engine_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "versions_of", lambda *_: Versions("TensorRT 10.3.0", "Orin"))
    network = tmp_path / "net.onnx"
    network.write_bytes(b"weights")
    text = io.StringIO()
    with loading(Console(file=text)), engine_for(network, engines.TENSORRT, {}):
        deadline_s = time.monotonic() + 30
        while "building engine for net.onnx" not in text.getvalue():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    assert text.getvalue().count("building") == 1  # not every half second


def test_a_quick_start_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = io.StringIO()
    with loading(Console(file=text)):
        pass
    assert "building" not in text.getvalue()
