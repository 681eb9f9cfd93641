"""Weights of 4 bits in blocks: what onnxruntime multiplies by is what was simulated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress import artifact
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.int8_graph import in_integers, with_opset
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.quantizers.blocks import LEAST, Blocks
from edgeperc.offline.compress.recipe import load_recipe, read_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.onnx_part import Part, traced

from .tiny_promptable import tiny_sam2

FLOAT = 1e-5
"""Of the largest value: what float32 rounds in sums of some hundred products."""
BYTE = 0.1
"""Of the largest value: what rounding to int8 does in a block whose inputs count unlike."""
RECIPE = 'version = 1\n{}[[passes]]\nkind = "quantize"\nweight = "{}"\nact = "none"\n'


class Linears(nn.Module):
    """Two layers, of which the second is too small to be stored in blocks."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, outputs, bias=bias)
        self.second = nn.Linear(outputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., 3)."""
        out: torch.Tensor = self.second(self.first(x).relu())
        return out


def simulated(net: nn.Module, name: str) -> Simulated:
    """Its first layer's weight in blocks, for good."""
    sim = Simulated(net.eval())
    q = make(name, use="weight")
    q.fit(sim.original("first").detach())
    sim.weight("first", q)
    sim.switch(True)
    sim.fold()
    sim.check()
    return sim


@settings(max_examples=15, deadline=None)
@given(
    blocks=st.integers(1, 5),
    size=st.sampled_from([32, 128]),
    extra=st.integers(0, 3),
    rows=st.sampled_from([(1,), (7,), (2, 5)]),
    bias=st.booleans(),
    rounded=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_kernel_multiplies_by_what_is_simulated(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: int,
    size: int,
    extra: int,
    rows: tuple[int, ...],
    bias: bool,
    rounded: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    inputs = blocks * size
    net = Linears(inputs, -(-LEAST // inputs) + extra, bias)
    with torch.no_grad():
        net.first.weight.mul_(torch.logspace(-3, 2, inputs)[torch.randperm(inputs)])
        net.first.weight[0] = 0
        net.first.weight[1] = net.first.weight[1].abs() + 1
    x = torch.randn(*rows, inputs)
    sim = simulated(net, f"blocks{size}x4")
    with prepared(sim.net) as (copied, table), torch.no_grad():
        wanted = copied(x).numpy()
        part = Part(role="part", net=copied, inputs={"x": x}, outputs=("y",))
        model, _ = traced(part, tmp_path_factory.mktemp("graph"), opset=20)
        model, counts = in_integers(model, table, rounded=rounded)
    model = with_opset(model, 21)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString())
    found = session.run(None, {"x": x.numpy()})[0]
    assert np.abs(found - wanted).max() <= (BYTE if rounded else FLOAT) * max(
        np.abs(wanted).max(), 1e-3
    )
    assert counts == {"products": 2, "in integers": 0, "in 4 bits": 1}
    node = next(node for node in model.graph.node if node.op_type == "MatMulNBits")
    codes = next(each for each in model.graph.initializer if each.name == node.input[1])
    assert codes.data_type == onnx.TensorProto.UINT8
    assert len(codes.raw_data) == net.first.weight.numel() // 2


@settings(max_examples=30, deadline=None)
@given(outputs=st.integers(1, 6), blocks=st.integers(1, 4), seed=st.integers(0, 1000))
def test_each_block_is_a_grid_of_its_own(outputs: int, blocks: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(outputs, 32 * blocks) * torch.logspace(-2, 2, blocks).repeat_interleave(32)
    whole = Blocks(4)
    whole.fit(weight)
    whole.enabled = True
    values = whole(weight)
    assert torch.equal(whole(values), values)
    assert whole.off_grid(values) < 1e-3
    for row, first in ((0, 0), (outputs - 1, 32 * (blocks - 1))):
        part = weight[row : row + 1, first : first + 32]
        alone = Blocks(4)
        alone.fit(part)
        alone.enabled = True
        torch.testing.assert_close(values[row : row + 1, first : first + 32], alone(part))


def test_only_large_matrices_of_whole_blocks_are_taken() -> None:
    q = Blocks(4)
    assert q.takes(torch.zeros(64, 64))
    assert not q.takes(torch.zeros(64, 48))
    assert not q.takes(torch.zeros(32, 64))
    assert not q.takes(torch.zeros(64, 64, 1, 1))
    with pytest.raises(ModelError, match="whole blocks"):
        q.fit(torch.zeros(64, 48))
    with pytest.raises(ConfigError, match="blocks are of weights"):
        make("blocks32x4", use="act")


@pytest.mark.parametrize(
    ("table", "weight"), [("", "blocks32x4"), ('[export]\nweights = "int4"\n', "uniform8c")]
)
def test_a_recipe_says_one_thing_about_weights(tmp_path: Path, table: str, weight: str) -> None:
    path = tmp_path / "mine.recipe.toml"
    path.write_text(RECIPE.format(table, weight))
    with pytest.raises(ConfigError, match=r"\[export\] weights"):
        read_recipe(path)


def test_the_preset_writes_a_smaller_model_that_agrees(tmp_path: Path) -> None:
    torch.manual_seed(0)
    subject = subject_for(tiny_sam2(embed=32))
    samples = subject.noise(2)
    sim = Simulated(subject.net)
    ctx = Context(subject=subject, sim=sim, samples=samples, held_out=samples)
    recipe = load_recipe("w4a16")
    done = quantize(ctx, choose(sim.sites, recipe.passes[0].at), **recipe.passes[0].options)
    sim.fold()
    ledger = Ledger("tiny", "w4a16", "0" * 64, 0, "noise", 2, 2)
    written = artifact.write(ctx, ledger, tmp_path / "out", time_it=False)
    assert written.agreement >= 0.99
    table = json.loads((tmp_path / "out" / "quant.json").read_text())
    assert set(table["labels"]) == {"int4 weights"}
    assert 0 < len(done.details["sites"]) <= sum(n["in 4 bits"] for n in written.kinds.values())
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "encoder.onnx").graph.node}
    assert "MatMulNBits" in kinds
    assert "QuantizeLinear" not in kinds
