"""Engines that are kept: whole or not at all, and only for what they were built for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeperc.inference import engines
from edgeperc.inference.engines import building, engine_for
from edgeperc.inference.gpu import Versions, gpu, tensorrt_version, version_of, versions_of

TRT = "TensorrtExecutionProvider"
ORIN = Versions("onnxruntime 1.23.0, TensorRT 10.3.0", "Orin, compute capability 8.7")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "versions_of", lambda provider, options: ORIN)
    return tmp_path / "cache" / "edgeperc" / "engines"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"weights")
    return path


def build(network: Path, options: dict[str, str] | None = None, text: str = "engine") -> Any:
    """Build as a provider would, unless it is there."""
    with engine_for(network, TRT, options or {}) as engine:
        assert engine
        assert engine.options["trt_engine_cache_path"] == str(engine.folder)
        if not engine.built:
            (engine.folder / "net_1.engine").write_text(text)
    engine.keep()
    return engine


def test_an_engine_is_built_once(network: Path, cache: Path) -> None:
    assert not build(network).built
    second = build(network, text="never written")
    assert second.built
    assert (second.place / "net_1.engine").read_text() == "engine"
    assert second.place.parent == cache
    assert not list(cache.glob(".building-*"))


@pytest.mark.parametrize("change", ["weights", "options", "tensorrt", "gpu"])
def test_another_of_anything_is_built_anew(
    change: str, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(network)
    options = {}
    if change == "weights":
        network.write_bytes(b"other weights")
    if change == "options":
        options = {"trt_fp16_enable": "True"}
    if change == "tensorrt":
        newer = Versions("onnxruntime 1.23.0, TensorRT 10.16.2", ORIN.device)
        monkeypatch.setattr(engines, "versions_of", lambda *_: newer)
    if change == "gpu":
        thor = Versions(ORIN.runtime, "Thor, compute capability 11.0")
        monkeypatch.setattr(engines, "versions_of", lambda *_: thor)
    other = build(network, options)
    assert not other.built
    assert other.place != first.place


def test_a_key_that_was_changed_by_hand_is_no_key(network: Path) -> None:
    place = build(network).place
    key = json.loads((place / "key.json").read_text())
    (place / "key.json").write_text(json.dumps({**key, "device": "Thor"}))
    assert not build(network).built


def test_an_engine_that_lost_bytes_is_built_anew(network: Path) -> None:
    """As after a power cut, where a disk forgot what it had promised."""
    place = build(network).place
    (place / "net_1.engine").write_text("eng")
    assert not build(network).built
    assert build(network).built


def test_a_session_that_cannot_be_made_leaves_nothing(network: Path, cache: Path) -> None:
    def build_half() -> None:
        with engine_for(network, TRT, {}) as engine:
            assert engine
            (engine.folder / "net_1.engine").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build_half()
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_provider_that_wrote_nothing_has_nothing_kept(network: Path, cache: Path) -> None:
    with engine_for(network, TRT, {}) as engine:
        pass
    assert engine
    engine.keep()
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_without_a_place_to_write_there_is_no_engine(network: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    with engine_for(network, TRT, {}) as engine:
        assert engine is None


BUILDER = """
import sys, time
from pathlib import Path
from edgeperc.inference import engines
from edgeperc.inference.gpu import Versions
engines.versions_of = lambda *_: Versions("r", "d")
with engines.engine_for(Path(sys.argv[1]), "TensorrtExecutionProvider", {}) as engine:
    print(engine.built, flush=True)
    if not engine.built:
        (engine.folder / "net_1.engine").write_text("half")
        sys.stdin.readline()
        (engine.folder / "net_1.engine").write_text("whole engine")
engine.keep()
print((engine.place / "net_1.engine").read_text(), flush=True)
"""


def builder(network: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(network)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_kill_in_the_middle_leaves_no_engine(
    network: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "versions_of", lambda *_: Versions("r", "d"))
    process = builder(network)
    assert say(process) == "False"
    (there,) = building()
    assert (there.network, there.provider) == ("net.onnx", TRT)
    assert there.bytes > 0
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert building() == ()
    assert list(cache.glob(".building-*"))  # still lies there, as nobody's
    engine = build(network)
    assert not engine.built
    assert (engine.place / "net_1.engine").read_text() == "engine"
    assert not list(cache.glob(".building-*"))


def test_a_second_process_waits_and_takes_what_the_first_built(network: Path) -> None:
    first = builder(network)
    assert say(first) == "False"
    second = builder(network)
    time.sleep(0.3)
    assert second.poll() is None
    assert first.stdin
    first.stdin.write("\n")
    first.stdin.flush()
    assert say(first) == "whole engine"
    assert say(second) == "True"
    assert say(second) == "whole engine"
    for process in (first, second):
        process.communicate()
        assert process.returncode == 0


def test_what_builds_engines_is_asked_of_its_libraries() -> None:
    assert [version_of(n) for n in (8502, 100300, 101602)] == ["8.5.2", "10.3.0", "10.16.2"]
    openvino = versions_of("OpenVINOExecutionProvider", {"device_type": "GPU"})
    assert openvino
    assert openvino.device.startswith("GPU, ")
    assert versions_of("CPUExecutionProvider", {}) is None
    if gpu() is None or not tensorrt_version():  # what is not known is no key
        assert versions_of(TRT, {}) is None
