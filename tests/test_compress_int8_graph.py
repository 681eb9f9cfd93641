"""Changes of exported graphs: the same answers, from integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.movement import codes_first
from edgeperc.offline.compress.graph.pixels import convolutions_as_products
from edgeperc.offline.compress.graph.pooling import pooled_in_place
from edgeperc.offline.compress.graph.thirds import thirds
from edgeperc.offline.compress.int8_graph import in_integers, observed, with_opset
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.nets.hiera import Block
from edgeperc.offline.nets.pyramid import Bottleneck, ConvAct, separable
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


class Small(nn.Module):
    """What a pyramid has: 1 x 1 and depthwise convolutions, sums, joined and enlarged maps."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.side = separable(8, 16, 2), ConvAct(8, 12, 1)
        self.block, self.last = Bottleneck(16, residual=True), nn.Conv2d(28, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.block(self.down(x))
        large = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return self.last(torch.cat([large, self.side(x)], dim=1))


def with_outputs(net: nn.Module, x: Tensor, bits: int = 8) -> Simulated:
    """What convolutions give that look at neighbours is rounded, too, as the recipe w8a8 does."""

    class Subject:
        def run(self, net: nn.Module, sample: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"y": net(sample["x"])}

    sim = Simulated(net.eval())
    subject: Any = Subject()
    ctx = Context(subject=subject, sim=sim, samples=[{"x": x}], held_out=[{"x": x}])
    grids = {"weight": f"uniform{bits}c", "act": f"uniform{bits}"}
    quantize(ctx, list(sim.sites.values()), **grids, conv_out="uniform8c")
    sim.fold()
    sim.check()
    return sim


def ran_by(model: onnx.ModelProto, folder: Path) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options)
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("name", ["pyramid", "conv"])
def test_convolutions_in_integers_answer_as_simulated(name: str, bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: nn.Module = Small() if name == "pyramid" else WideConv(8)
    x = torch.randn(1, 8, 16, 24)
    sim = with_outputs(net, x, bits)
    kinds = [key.rpartition(":")[2] for key in sim.quantizers]
    assert kinds.count("output") == (2 if name == "pyramid" else 1)
    with torch.no_grad():
        simulated = sim.net(x).numpy()
    with prepared(sim.net) as (copied, rows):
        model = graph_of(copied, x, tmp_path)
        assert observed(model, [{"x": x.numpy()}]) == {}
        model, counts = in_integers(model, rows)
    found = run(model, x)
    assert np.sqrt(np.square(found - simulated).mean()) / simulated.std() < STEPS
    assert counts["in integers"] == counts["products"]
    ran = ran_by(model, tmp_path)
    assert "Conv" not in ran
    assert "FusedConv" not in ran
    assert ran.count("QLinearConv") == kinds.count("output")
    assert ran.count("QGemm") == counts["products"] - kinds.count("output")


def test_products_of_pixels_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Small(), torch.randn(1, 8, 16, 24)
    sim = with_outputs(net, x)
    with prepared(sim.net) as (copied, rows):
        model = graph_of(copied, x, tmp_path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

    def plainly(model: onnx.ModelProto) -> np.ndarray:
        session = ort.InferenceSession(model.SerializeToString(), options)
        return session.run(None, {"x": x.numpy()})[0]

    wanted = plainly(model)
    graph = Graph(model)
    assert convolutions_as_products(graph, rows) == 5
    found = plainly(graph.close())
    assert np.abs(found - wanted).max() <= FLOAT * np.abs(wanted).max()
    kernels = [len(each.dims) for each in model.graph.initializer if len(each.dims) == 4]
    assert len(kernels) == 2


def test_rounding_goes_up_above_all_that_moves_data_at_once(tmp_path: Path) -> None:
    net, x = blocks()["hiera"]
    sim = quantized(net, x)
    with prepared(sim.net) as (copied, rows):
        model, _ = in_integers(graph_of(copied, x, tmp_path), rows)
    before = {name: node for node in model.graph.node for name in node.output}
    rounded = [
        before[n.input[0]].op_type for n in model.graph.node if n.op_type == "QuantizeLinear"
    ]
    assert not {"Reshape", "Transpose"} & set(rounded)
    assert "Gemm" not in rounded
    # Keys and values have codes with a sign: not by way of ones without.
    assert ran_by(model, tmp_path).count("DequantizeLinear") == 0


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
