"""Engines that are built ahead, by the real providers where they are, and by a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeperc.cli import app
from edgeperc.config import PipelineTable
from edgeperc.errors import ConfigError, ModelError
from edgeperc.inference import engines
from edgeperc.inference import session as infer
from edgeperc.inference.gpu import Versions
from edgeperc.prepare import Doing, Made, _picture_px, prepare

CPU = "CPUExecutionProvider"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The processor's provider, as one that builds an engine for each network."""
    built: list[str] = []
    real = infer._open

    def build(path: Path, *arguments: Any, kept: Mapping[str, str], **more: Any) -> Any:
        folder = Path(kept["trt_engine_cache_path"])
        if not list(folder.glob("*.engine")):
            built.append(path.name)
            (folder / f"{path.stem}.engine").write_bytes(bytes(1000))
        return real(path, *arguments, kept={}, **more)

    monkeypatch.setattr(infer, "_open", build)
    monkeypatch.setattr(engines, "versions_of", lambda *_: Versions("TensorRT 10.3.0", "Orin"))
    return built


def nothing(doing: Doing) -> None:
    del doing


def names(made: list[Made]) -> list[str]:
    return [each.network for each in made]


def test_every_network_of_an_app_is_built_once(builds: list[str]) -> None:
    first = list(prepare(["search"], show=nothing))
    assert names(first) == builds == ["finder-twin.onnx", "regions-twin.onnx"]
    assert [each.was_there for each in first] == [False, False]
    second = list(prepare(["search", "finder-twin"], show=nothing))
    assert names(second)[:2] == names(first)
    assert all(each.was_there for each in second)
    assert all(each.bytes > 1000 and Path(each.kept).is_dir() for each in second)
    assert len(builds) == 2
    assert engines.building() == ()


def test_all_networks_of_what_follows_objects_are_run(builds: list[str]) -> None:
    made = list(prepare(["promptable"], show=nothing))
    assert set(names(made)) >= {"encoder.onnx", "decoder.onnx", "memory_encoder.onnx"}
    assert "memory_attention.onnx" in builds
    assert all(each.kept for each in made)


def test_the_processor_has_nothing_to_keep(cache: Path) -> None:
    made = list(prepare(["finder-twin"], show=nothing))
    assert [(each.provider, each.bytes, each.kept) for each in made] == [(CPU, 0, "")]
    assert not cache.exists()


def test_a_model_without_onnxruntime_is_made_ready_too() -> None:
    (made,) = prepare(["events"], show=nothing)
    assert (made.model, made.network, made.provider) == ("sltnet-twin", "", "CPU")


def test_what_must_run_elsewhere_is_not_prepared_here(tmp_path: Path) -> None:
    file = tmp_path / "app.toml"
    pipeline = 'name = "a"\ninput = "wide"\nmodel = "finder-twin"\nrequire = "tensorrt"\n'
    file.write_text(f'rig = "twin-search"\n[[pipelines]]\n{pipeline}')
    with pytest.raises(ModelError, match=r"app.toml \[\[pipelines\]\] #1 model: .*'tensorrt'"):
        list(prepare([str(file)], show=nothing))


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(ConfigError, match="'nosuch' is no app and no model") as error:
        list(prepare(["nosuch"], show=nothing))
    assert "search" in error.value.hint


def test_networks_of_any_size_see_pictures_of_the_rigs_size() -> None:
    table = PipelineTable(name="p", input="wide", model="m")
    sensors = {"wide": {"driver": "basler", "width_px": 960, "height_px": 448}}
    assert _picture_px(sensors, table) == (960, 448)
    assert _picture_px({"wide": {"driver": "twin-wide"}}, table) is None


def test_the_verb_says_what_it_did(builds: list[str]) -> None:
    run = CliRunner().invoke(app, ["prepare", "finder-twin"])
    assert run.exit_code == 0
    assert f"finder-twin/finder-twin.onnx: {CPU}, 0.0 MB, built in" in run.output
    assert "kept in" in run.output
    again = CliRunner().invoke(app, ["prepare", "--json", "finder-twin"])
    (made,) = json.loads(again.stdout)
    assert made["was_there"] is True


OPENVINO = os.environ.get("EDGEPERC_OPENVINO", "")


@pytest.mark.skipif(not OPENVINO, reason="set EDGEPERC_OPENVINO to the Python of `make openvino`")
def test_openvino_keeps_what_it_compiled() -> None:
    call = [OPENVINO, "-m", "edgeperc", "prepare", "--json", "search"]
    for was_there in (False, True):
        done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120)
        made = json.loads(done.stdout)
        assert [each["provider"] for each in made] == ["OpenVINOExecutionProvider"] * 2
        assert [each["was_there"] for each in made] == [was_there] * 2
        assert all(each["bytes"] > 100_000 for each in made)
