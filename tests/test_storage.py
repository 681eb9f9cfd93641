"""Weights that are kept in fewer bytes are nearly the same weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeperc.inference.session import Session
from edgeperc.offline.storage import stored

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(288, 32)).astype(np.float32) * np.geomspace(1e-3, 1, 32, dtype=np.float32)
BIAS = RNG.normal(size=32).astype(np.float32)


def network():
    """Picture @ weight + bias."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["picture", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["answer"]),
        ],
        "line",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [3, 288])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [3, 32])],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(BIAS, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("storage", "error"), [("single", 1e-6), ("half", 6e-4), ("byte", 5e-3)])
def test_the_network_answers_nearly_the_same(tmp_path, storage, error):
    path = tmp_path / "line.onnx"
    onnx.save(stored(network(), storage), path)
    onnx.checker.check_model(str(path))
    picture = RNG.normal(size=(3, 288)).astype(np.float32)
    wanted = picture @ WEIGHT + BIAS
    # Each column has a scale of its own, so that those of small weights are as exact.
    scale = np.linalg.norm(picture, axis=1)[:, None] * np.linalg.norm(WEIGHT, axis=0)
    off = np.abs(Session(path).run(picture)[0] - wanted) / scale
    assert off.max() < error


def test_fewer_bytes_are_fewer_bytes(tmp_path):
    sizes = []
    for storage in ("single", "half", "byte"):
        path = tmp_path / f"{storage}.onnx"
        onnx.save(stored(network(), storage), path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[2] < 0.45 * sizes[0]


def test_small_convolutions_keep_two_bytes():
    model = network()
    kernel = numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "kernel")
    model.graph.initializer.append(kernel)
    kept = {w.name: w.data_type for w in stored(model, "byte").graph.initializer}
    assert kept["kernel_half"] == TensorProto.FLOAT16
    assert kept["weight_byte"] == TensorProto.INT8


def test_nothing_is_not_a_number():
    model = network()
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros((288, 32), np.float32), "weight")
    )
    kept = {w.name: numpy_helper.to_array(w) for w in stored(model, "byte").graph.initializer}
    assert not kept["weight_byte"].any()
    assert np.isfinite(kept["weight_scale"]).all()
