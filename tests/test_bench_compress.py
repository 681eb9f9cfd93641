"""`edgeperc bench compress` and the pair of processes behind it."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeperc.bench import openvino_nncf
from edgeperc.bench.compress import Settings, measure
from edgeperc.bench.figures import Figures
from edgeperc.bench.onnx_pair import paired
from edgeperc.bench.openvino_arm import RUNTIMES, arm
from edgeperc.errors import ConfigError, ModelError


def product(path: Path, times: int) -> Path:
    """A file that multiplies matrices of 512 x 512 so often."""
    weight = numpy_helper.from_array(np.eye(512, dtype=np.float32) * 0.5, "w")
    names = ["x", *(f"y{index}" for index in range(times))]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    shape = [512, 512]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, shape)],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_a_file_with_less_to_do_is_faster(tmp_path: Path) -> None:
    timed = paired(product(tmp_path / "a.onnx", 12), product(tmp_path / "b.onnx", 2), rounds=2)
    assert timed.speedup > 2
    assert timed.before_ms > timed.after_ms


def test_a_file_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        paired(tmp_path / "none.onnx", tmp_path / "none.onnx", rounds=1)


def test_an_unknown_figure_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown figure 'speed'"):
        measure(Figures(), None, Settings(only=("speed",)))


def test_a_figure_of_openvino_wants_its_environment(tmp_path: Path) -> None:
    asked = Settings(only=("int8_vs_openvino_native_vitb",))
    with pytest.raises(ConfigError, match="needs --openvino-venv"):
        measure(Figures(), None, asked)
    with pytest.raises(ConfigError, match="no environment is there"):
        measure(Figures(), None, Settings(only=asked.only, openvino_venv=tmp_path))


def test_each_runtime_times_a_file_and_names_one_that_is_not_there(tmp_path: Path) -> None:
    given = os.environ.get("EDGEPERC_OPENVINO")
    if not given:
        pytest.skip("EDGEPERC_OPENVINO names no Python with OpenVINO and NNCF")
    long, short = product(tmp_path / "a.onnx", 12), product(tmp_path / "b.onnx", 2)
    for runtime in RUNTIMES:
        ends = [arm(Path(given), runtime, each) for each in (long, short)]
        assert paired(*ends, rounds=1).speedup > 1.5
        with pytest.raises(ModelError, match="no such file"):
            paired(arm(Path(given), runtime, tmp_path / "none.onnx"), ends[0], rounds=1)


def test_an_environment_without_nncf_is_named(tmp_path: Path) -> None:
    network = product(tmp_path / "a.onnx", 1)
    out = tmp_path / "nncf.xml"
    with pytest.raises(ModelError, match="NNCF makes nothing of .*a.onnx: .*No module named"):
        openvino_nncf.made(Path(sys.executable), network, out)
    out.write_text("there already")
    assert openvino_nncf.made(Path(sys.executable), network, out) == out


def test_nncf_makes_a_network_that_openvino_runs(tmp_path: Path) -> None:
    python = os.environ.get("EDGEPERC_OPENVINO")
    if python is None:
        pytest.skip("EDGEPERC_OPENVINO names no Python with OpenVINO and NNCF")
    network = product(tmp_path / "a.onnx", 2)
    own = openvino_nncf.made(Path(python), network, tmp_path / "nncf.xml")
    assert (tmp_path / "nncf.bin").stat().st_size < 0.3 * network.stat().st_size
    command = arm(Path(python), "native", own)
    assert paired(command, command, rounds=1).before_ms > 0
