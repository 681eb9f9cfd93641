"""Files for TensorRT: codes around zero, standard operators, and what was simulated."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress import artifact, command
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.graph.tensorrt import OPSET, PRODUCTS, for_tensorrt
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.recipe import load_recipe, read_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.onnx_part import Part, traced

from .tiny_promptable import tiny_sam2

STEPS = 0.02
"""Of the spread of what is answered: a few values round the other way."""
RECIPE = 'version = 1\n[export]\n{}[[passes]]\nkind = "quantize"\nact = "centred8"\n{}'


class Layers(nn.Module):
    """A convolution, a transposed one and a product, and a layer that stays in float."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.lin = nn.Linear(6, 5)
        self.last = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2 H, 2 W, 4)."""
        out: Tensor = self.last(self.lin(self.up(self.conv(x).relu()).permute(0, 2, 3, 1)).relu())
        return out


def simulated(net: nn.Module, x: Tensor, act: str) -> Simulated:
    sim = Simulated(net.eval())
    held: dict[str, Tensor] = {}
    names = ("conv", "up", "lin")
    for name in names:
        sim.sites[name].module.register_forward_pre_hook(
            lambda _, args, name=name: held.__setitem__(name, args[0])
        )
    with torch.no_grad():
        net(x)
    for name in names:
        w = make("uniform8c", use="weight", axis=1 if name == "up" else 0)
        w.fit(sim.original(name).detach())
        q = make(act, use="act")
        q.fit(held[name])
        sim.weight(name, w)
        sim.input(name, q)
    sim.switch(True)
    sim.fold()
    return sim


def graph_of(sim: Simulated, x: Tensor, folder: Path) -> tuple[onnx.ModelProto, Any, np.ndarray]:
    with prepared(sim.net) as (copied, rows), torch.no_grad():
        wanted: np.ndarray = copied(x).numpy()
        part = Part(role="part", net=copied, inputs={"x": x}, outputs=("y",))
        return traced(part, folder, opset=OPSET)[0], rows, wanted


def check(model: onnx.ModelProto) -> int:
    """That TensorRT would take a file; how many layers run on codes."""
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    on_codes = 0
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        for index, name in enumerate(node.input):
            if name in makers and makers[name].op_type == "DequantizeLinear":
                assert node.op_type in PRODUCTS, node.op_type
                other = makers.get(node.input[1 - index])
                assert other is not None
                assert other.op_type == "DequantizeLinear"
                on_codes += index
    return on_codes


def test_codes_have_a_sign_and_answers_are_those_of_the_simulation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 6) + 0.5
    model, rows, wanted = graph_of(simulated(Layers(), x, "centred8"), x, tmp_path)
    model, counts = for_tensorrt(model, rows)
    assert check(model) == 3
    assert counts == {"products": 4, "in integers": 3, "in 4 bits": 0}
    found = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})[0]
    assert np.sqrt(np.square(found - wanted).mean()) < STEPS * wanted.std()


def test_a_grid_that_is_not_around_zero_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 6) + 0.5
    model, rows, _ = graph_of(simulated(Layers(), x, "uniform8"), x, tmp_path)
    with pytest.raises(ModelError, match="TensorRT takes no others") as caught:
        for_tensorrt(model, rows)
    assert "centred8" in caught.value.hint


def made(*at: str, **options: str) -> tuple[Context, Ledger]:
    torch.manual_seed(0)
    subject = subject_for(tiny_sam2())
    samples = subject.noise(2)
    sim = Simulated(subject.net)
    ctx = Context(subject=subject, sim=sim, samples=samples, held_out=samples, target="tensorrt")
    step = load_recipe("w8a8-tensorrt").passes[0]
    sites = choose(sim.sites, at or ("image_encoder.*", "sam_mask_decoder.transformer"))
    quantize(ctx, sites, **{**step.options, **options})
    sim.fold()
    return ctx, Ledger("tiny", "w8a8-tensorrt", "0" * 64, 0, "noise", 2, 2)


def test_the_preset_writes_an_artifact_that_tensorrt_would_take(tmp_path: Path) -> None:
    ctx, ledger = made()
    out = tmp_path / "out"
    random = 0.9  # random weights: masks hang on little
    written = artifact.write(ctx, ledger, out, opset=OPSET, time_it=False, min_agreement=random)
    for role in ("encoder", "decoder"):
        counts = written.kinds[role]
        assert check(onnx.load(out / f"{role}.onnx")) == counts["in integers"] > 0
    assert json.loads((out / "quant.json").read_text())["opset"] == OPSET


def test_attention_on_codes_is_refused(tmp_path: Path) -> None:
    ctx, ledger = made("image_encoder.trunk.blocks.1", matmul="centred8")
    with pytest.raises(ModelError, match="takes what is rounded") as caught:
        artifact.write(ctx, ledger, tmp_path / "out", opset=OPSET, time_it=False)
    assert 'matmul = "none"' in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("table", "more"),
    [
        ('target = "tensorrt"\n', ""),
        ('target = "tensorrt"\nopset = 17\nweights = "int4"\n', 'weight = "blocks32x4"\n'),
    ],
)
def test_a_recipe_for_tensorrt_takes_opset_17_and_int8(
    tmp_path: Path, table: str, more: str
) -> None:
    path = tmp_path / "mine.recipe.toml"
    path.write_text(RECIPE.format(table, more))
    with pytest.raises(ConfigError, match=r"\[export\] target"):
        read_recipe(path)


def test_a_network_that_is_not_promptable_is_refused() -> None:
    other: Any = SimpleNamespace(name="sltnet", net=nn.Linear(2, 2))
    with pytest.raises(ModelError, match="only promptable networks"):
        command.refuse_target(other, load_recipe("w8a8-tensorrt"))
    command.refuse_target(other, load_recipe("w8a8"))
