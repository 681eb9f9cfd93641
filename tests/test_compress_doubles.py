"""Files with sums in double precision: what the simulated network answers, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgeperc.config import ModelCard, load
from edgeperc.offline.compress import artifact, artifact_promptable
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.doubles import Doubles
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.graph.doubles import in_doubles
from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.weights import Rows
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.nets.taps import Tap
from edgeperc.offline.prompt_parts import written_out
from edgeperc.places import ModelFolder
from edgeperc.prompting.golden import agreement

from .test_compress_int8_graph import Small, blocks, graph_of, quantized, run
from .tiny_promptable import tiny_sam2

AT = ("image_encoder.*", "!*.patch_embed", "!*.neck", "sam_mask_decoder.transformer")
MANY = 200_000


class Strided(nn.Module):
    """Convolutions of floats and of codes, all channels together, with strides and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(12, 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.silu(self.first(x)))


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    more: dict[str, tuple[nn.Module, Tensor]] = {
        "pyramid": (Small(), torch.randn(1, 8, 16, 24)),
        "strided": (Strided(), torch.randn(1, 8, 16, 24)),
    }
    return {**{name: each for name, each in blocks().items() if name != "conv"}, **more}


def shares() -> Tensor:
    torch.manual_seed(0)
    return torch.softmax(4 * torch.randn(MANY // 100, 100), -1)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("uniform", lambda: 3 * torch.randn(MANY) + 1),
        ("centred", lambda: 3 * torch.randn(MANY) + 1),
        ("uniform-minmax", shares),
        ("log2", shares),
        ("log_sqrt2", shares),
        ("agq", shares),
    ],
)
def test_one_site_gives_the_same_codes_in_the_file(
    name: str, values: Callable[[], Tensor], bits: int, tmp_path: Path
) -> None:
    x = values()
    family, _, search = name.partition("-")
    named = f"{family}{bits}-{search}" if search else f"{family}{bits}"
    q = make(named, use="softmax" if values is shares else "act")
    q.fit(x)
    q.enabled = True
    net = nn.Sequential(Tap())
    sim = Simulated(net.eval())
    sim.tap("0", q)
    # Ties, too, and what lies just beside them.
    grid = q.dequantize(torch.arange(2.0**bits))
    middle = (grid[1:] + grid[:-1]) / 2
    near = torch.cat([middle * (1 + by) for by in (-1e-6, -1e-7, 0.0, 1e-7, 1e-6)])
    x = torch.cat([x.flatten(), near, torch.zeros(3)]).reshape(1, 1, -1)
    with prepared(sim.net, whole_biases=False) as (copied, rows):
        graph = Graph(graph_of(copied, x, tmp_path))
        in_doubles(graph, rows)
        model = graph.close()
    with Doubles(), torch.no_grad():
        wanted = sim.net(x).numpy()
    assert np.array_equal(run(model, x), wanted)
    assert len(np.unique(wanted)) > 2 ** (bits - 1)


@pytest.mark.parametrize("name", ["hiera", "vit", "pyramid", "strided"])
def test_a_file_in_doubles_answers_as_the_network_to_the_bit(name: str, tmp_path: Path) -> None:
    net, x = networks()[name]
    sim = quantized(net, x, 4)
    with prepared(sim.net, whole_biases=False) as (copied, rows):
        draft = graph_of(copied, x, tmp_path)
        plain = run(draft, x)
        graph = Graph(draft)
        assert in_doubles(graph, rows) >= 2
        model = graph.close()
    with Doubles(), torch.no_grad(), written_out(sim.net):
        wanted = sim.net(x).numpy()
    assert np.array_equal(run(model, x), wanted)
    assert not np.array_equal(plain, wanted)  # in single precision sums are rounded otherwise
    stored = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8]
    assert stored
    left = {"Conv", "Gemm"} & {node.op_type for node in model.graph.node}
    assert not left


class Alone(nn.Module):
    """One function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: nn.functional.layer_norm(x, (256,), x[0, 0], x[0, 1]),
        lambda x: torch.softmax(x, -1),
        torch.sigmoid,
        nn.functional.silu,
        lambda x: x.mean(-1),
        torch.exp,
        lambda x: torch.log(x.abs() + 1),
        lambda x: x @ x.transpose(-2, -1),
    ],
    ids=["norm", "softmax", "sigmoid", "silu", "mean", "exp", "log", "product"],
)
def test_one_operator_gives_the_same_to_the_bit(
    function: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x = Alone(function), 3 * torch.randn(1, 400, 256) + 2
    graph = Graph(graph_of(net, x, tmp_path))
    assert in_doubles(graph, Rows()) == 1
    with Doubles():
        wanted = net(x).numpy()
    assert np.array_equal(run(graph.close(), x), wanted)


def test_bias_units_of_few_bits_are_too_coarse_for_a_file_in_doubles() -> None:
    net, x = networks()["hiera"]
    sim = quantized(net, x, 4)
    with Doubles(), torch.no_grad(), written_out(sim.net):
        wanted = sim.net(x)
        with prepared(sim.net, whole_biases=False) as (copied, _), written_out(copied):
            assert torch.equal(copied(x), wanted)
        with prepared(sim.net) as (copied, _), written_out(copied):
            assert not torch.equal(copied(x), wanted)


def test_doubles_are_written_where_integers_do_not_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    subject = subject_for(tiny_sam2())
    samples = subject.noise(1)
    sim = Simulated(subject.net)
    ctx = Context(subject=subject, sim=sim, samples=samples, held_out=samples)
    grids = {"weight": "uniform4c", "act": "uniform4-minmax"}
    quantize(ctx, choose(sim.sites, AT), **grids, softmax=["log_sqrt2", "log2"])
    sim.fold()
    ledger = Ledger("tiny", "w4a4", "0" * 64, 0, "noise", 2, 2)
    of_files = artifact_promptable.agreement

    def bad_in_integers(subject: Any, net: Any, *rest: Any) -> float:
        return of_files(subject, net, *rest) if net is sim.net else 0.98

    monkeypatch.setattr(artifact_promptable, "agreement", bad_in_integers)
    written = artifact.write(ctx, ledger, tmp_path / "out", time_it=False)
    assert written.in_doubles
    assert written.agreement == 1
    table = json.loads((tmp_path / "out" / "quant.json").read_text())
    assert table["sums"] == "double precision"
    assert "double precision" in (tmp_path / "out" / "report.md").read_text()
    card = load(tmp_path / "out" / "model.toml", ModelCard)
    assert min(agreement(ModelFolder(card, tmp_path / "out"))) > 0.999
    monkeypatch.setattr(artifact, "MOVED", 0.1)
    assert artifact.steadiness(ctx) < 1
