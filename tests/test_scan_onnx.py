from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.nets.selective_scan import selective_scan, sequential_scan
from edgeperc.offline.scan_onnx import expand_scans, with_portable_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
FORMS = {"function": with_portable_scan, "expanded": expand_scans}


class Twice(nn.Module):
    """Two scans in a row, one with softplus and one without skip or bias."""

    def forward(self, *inputs: Tensor) -> Tensor:
        y = selective_scan(*inputs, softplus=True)
        return selective_scan(y, inputs[1].abs(), *inputs[2:5])


def inputs(
    shape: tuple[int, int, int, int, int], seed: int = 0, step: float = 0.05
) -> list[np.ndarray]:
    batch, groups, each, states, length = shape
    rng = np.random.default_rng(seed)
    channels = groups * each
    found = (
        rng.standard_normal((batch, channels, length)),
        step * rng.uniform(0.2, 1.8, (batch, channels, length)),
        -rng.uniform(0.1, 16, (channels, states)),
        *rng.standard_normal((2, batch, groups, states, length)),
        rng.standard_normal(channels),
        step * rng.uniform(0, 1, channels),
    )
    return [each.astype(np.float32) for each in found]


def exported(model: nn.Module, arrays: list[np.ndarray]) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(
        model,
        tuple(torch.from_numpy(each) for each in arrays),
        file,
        dynamo=False,
        opset_version=17,
        input_names=list(NAMES),
        output_names=["y"],
        custom_opsets={"edgeperc": 1},
    )
    return onnx.load_from_string(file.getvalue())


def one_node(
    softplus: int, *, opset: int = 17, shapes: list[tuple[int, ...]] | None = None
) -> onnx.ModelProto:
    """A model of one scan; without `shapes`, of any."""
    ranks = (3, 3, 2, 4, 4, 1, 1)
    sizes: list[Any] = list(
        shapes or [[f"{n}{k}" for k in range(r)] for n, r in zip("abcdefg", ranks, strict=True)]
    )
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in zip(NAMES, sizes, strict=True)
    ]
    node = helper.make_node("SelectiveScan", NAMES, ["y"], domain="edgeperc", softplus=softplus)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "c", "l"])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("edgeperc", 1)]
    graph = helper.make_graph([node], "scan", values, [y])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, arrays: list[np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (y,) = session.run(None, dict(zip(NAMES, arrays, strict=True)))
    return y


def error(y: np.ndarray, arrays: list[np.ndarray], **how: bool) -> float:
    """Relative to the largest output of its channel."""
    doubles = (torch.from_numpy(each).double() for each in arrays)
    with torch.inference_mode():
        expected = sequential_scan(*doubles, **how).numpy()
    return float((np.abs(y - expected) / np.abs(expected).max(axis=-1, keepdims=True)).max())


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript")
@pytest.mark.parametrize("form", FORMS)
def test_an_exported_network(form: str, recwarn: pytest.WarningsRecorder) -> None:
    arrays = inputs((1, 2, 24, 3, 77))
    marked = exported(Twice(), arrays)
    assert not [each for each in recwarn if "trace" in str(each.message).lower()]
    scans = [each for each in marked.graph.node if each.op_type == "SelectiveScan"]
    assert [each.domain for each in scans] == ["edgeperc", "edgeperc"]
    assert [each.attribute[0].i for each in scans] == [1, 0]
    assert all(len(each.input) == 7 for each in scans)
    model = FORMS[form](marked)
    onnx.checker.check_model(model, full_check=True)
    with torch.inference_mode():
        expected = Twice()(*map(torch.from_numpy, arrays)).numpy()
    np.testing.assert_allclose(run(model, arrays), expected, atol=1e-5 * np.abs(expected).max())


def test_what_each_form_looks_like() -> None:
    marked = one_node(1)
    before = marked.SerializeToString()
    portable, expanded = with_portable_scan(marked), expand_scans(marked)
    assert marked.SerializeToString() == before
    assert [each.op_type for each in portable.graph.node] == ["SelectiveScan"]
    assert not expanded.functions
    assert {each.domain for each in expanded.graph.node} == {""}
    assert {each.domain for each in expanded.opset_import} == {""}
    again = with_portable_scan(portable)
    assert len(again.functions) == len(again.opset_import) - 1 == 1


@pytest.mark.parametrize("opset", [15, 17, 18, 21])
@pytest.mark.parametrize("form", FORMS)
def test_opsets(form: str, opset: int) -> None:
    arrays = inputs((2, 2, 5, 3, 20))
    model = FORMS[form](one_node(0, opset=opset))
    onnx.checker.check_model(model, full_check=True)
    assert error(run(model, arrays), arrays) < 5e-6


def test_an_old_opset() -> None:
    with pytest.raises(ModelError, match="opset 13"):
        with_portable_scan(one_node(0, opset=13))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64, 65, 300])
def test_every_length_with_one_file(length: int) -> None:
    arrays = inputs((2, 2, 7, 4, length))
    model = with_portable_scan(one_node(1))
    assert error(run(model, arrays), arrays, softplus=True) < 5e-6


@pytest.mark.parametrize("seed", range(10))
def test_random_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, groups, each, states, length = (int(rng.integers(1, m)) for m in (3, 5, 40, 18, 300))
    arrays = inputs((batch, groups, each, states, length), seed, step=10 ** rng.uniform(-5, 1))
    model = with_portable_scan(one_node(0, shapes=[each.shape for each in arrays]))
    assert error(run(model, arrays), arrays) < 5e-6


@pytest.mark.parametrize("step", [1e-8, 1e-3, 1.0, 1e3])
def test_long_sequences_of_extreme_steps(step: float) -> None:
    """Of one sign, rounding adds up: one pass in float32 is off by 6e-4 for 1e-8."""
    arrays = [np.abs(each) for each in inputs((1, 1, 2, 2, 50_000 if step == 1e-8 else 4_000))]
    arrays[0][:], arrays[1][:], arrays[5][:], arrays[6][:] = 1, step, 0, 0
    arrays[2] = -arrays[2]
    assert error(run(with_portable_scan(one_node(0)), arrays), arrays) < 1e-5
