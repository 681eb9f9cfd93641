"""Changes of exported graphs: the same answers, from integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.movement import codes_first
from edgeperc.offline.compress.graph.pooling import pooled_in_place
from edgeperc.offline.compress.graph.thirds import thirds
from edgeperc.offline.compress.int8_graph import in_integers, observed, with_opset
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.nets.hiera import Block
from edgeperc.offline.nets.tinyvit import WideConv
from edgeperc.offline.nets.vit import Block as VitBlock
from edgeperc.offline.nets.vit import VitConfig
from edgeperc.offline.onnx_part import Part, traced
from edgeperc.offline.prompt_parts import written_out

FLOAT = 1e-5
"""Of the largest value: what float32 rounds."""
STEPS = 0.02
"""Likewise of quantized values, of which a few round the other way."""

VIT = VitConfig(embed=16, depth=1, heads=2, global_blocks=(), picture_px=128, window=3)


def blocks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    return {
        "hiera": (Block(16, 32, 2, window=4, pooled=True), torch.randn(1, 8, 8, 16)),
        "vit": (VitBlock(VIT, 0), torch.randn(1, 8, 8, 16)),
        "conv": (WideConv(8), torch.randn(1, 8, 12, 12)),
    }


def run(model: onnx.ModelProto, x: Tensor) -> np.ndarray:
    found: np.ndarray = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})[
        0
    ]
    return found


def graph_of(net: nn.Module, x: Tensor, folder: Path) -> onnx.ModelProto:
    part = Part(role="part", net=net, inputs={"x": x}, outputs=("y",))
    with torch.no_grad(), written_out(net):
        return with_opset(traced(part, folder, opset=20)[0], 21)


def quantized(net: nn.Module, x: Tensor, bits: int = 8) -> Simulated:
    sim = Simulated(net.eval())
    held: dict[str, Tensor] = {}
    wanted = ("tap_q", "tap_k", "tap_v", "tap_softmax")
    with torch.no_grad(), written_out(net):
        hooks = [
            site.module.register_forward_pre_hook(
                lambda _, args, name=name: held.__setitem__(name, args[0])
            )
            for name, site in sim.sites.items()
        ]
        net(x)
        for hook in hooks:
            hook.remove()
    for name, site in sim.sites.items():
        q = Uniform(bits, symmetric=False, search="minmax")
        if site.kind == "tap" and name.endswith(wanted):
            q.fit(held[name])
            sim.tap(name, q)
        elif site.kind == "layer":
            w = Uniform(bits, symmetric=True, axis=0, search="minmax")
            w.fit(sim.original(name))
            q.fit(held[name])
            sim.weight(name, w)
            sim.input(name, q)
    sim.switch(True)
    sim.fold()
    return sim


@pytest.mark.parametrize("name", ["hiera", "vit"])
def test_thirds_and_pools_change_nothing(name: str, tmp_path: Path) -> None:
    net, x = blocks()[name]
    model = graph_of(net.eval(), x, tmp_path)
    wanted = run(model, x)
    graph = Graph(model)
    assert thirds(graph) == 1
    assert pooled_in_place(graph) == (2 if name == "hiera" else 0)
    found = run(graph.close(), x)
    assert np.abs(found - wanted).max() <= FLOAT * np.abs(wanted).max()
    assert "Split" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("name", ["hiera", "vit", "conv"])
def test_integers_answer_as_the_simulated_network(name: str, bits: int, tmp_path: Path) -> None:
    net, x = blocks()[name]
    sim = quantized(net, x, bits)
    with prepared(sim.net) as (copied, rows):
        wanted = copied(x).numpy()
        model = graph_of(copied, x, tmp_path)
        ranges = observed(model, [{"x": x.numpy()}])
        model, counts = in_integers(model, rows, ranges)
    found = run(model, x)
    spread = np.sqrt(np.square(found - wanted).mean()) / wanted.std()
    assert spread < STEPS
    assert counts["in integers"] >= 3
    assert any(each.data_type == onnx.TensorProto.INT8 for each in model.graph.initializer)


def test_onnxruntime_runs_attention_and_layers_in_integers(tmp_path: Path) -> None:
    net, x = blocks()["hiera"]
    sim = quantized(net, x)
    with prepared(sim.net) as (copied, rows):
        model, _ = in_integers(graph_of(copied, x, tmp_path), rows)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options)
    ran = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ran.count("QGemm") == 7  # q, k, v, proj, two of the MLP, the shortcut
    assert "MatMul" not in ran
    assert "MaxPool" not in ran
    assert {"MatMulIntegerToFloat", "QLinearMatMul"} & set(ran)


def test_padding_of_codes_is_with_the_code_of_zero() -> None:
    grid = [np.float32(0.1), np.uint8(77)]
    names = ("scale", "zero")
    tensors = [
        onnx.numpy_helper.from_array(np.asarray(v), n) for v, n in zip(grid, names, strict=True)
    ]
    tensors.append(onnx.numpy_helper.from_array(np.array([0, 1, 0, 2]), "pads"))
    nodes = [
        onnx.helper.make_node("Pad", ["x", "pads"], ["p"], name="pad"),
        onnx.helper.make_node("QuantizeLinear", ["p", *names], ["q"], name="q"),
        onnx.helper.make_node("DequantizeLinear", ["q", *names], ["y"], name="dq"),
    ]
    float32 = onnx.TensorProto.FLOAT
    ends = [
        onnx.helper.make_tensor_value_info(n, float32, s) for n, s in (("x", (3, 4)), ("y", (3, 7)))
    ]
    made = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )
    x = torch.randn(3, 4)
    wanted = run(model, x)
    graph = Graph(model)
    assert codes_first(graph) == 1
    assert np.array_equal(run(graph.close(), x), wanted)
