"""Folding and pruning change nothing that can be seen; what goes is proven dead."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.fold import fold
from edgeperc.offline.nets.lif import LIF
from edgeperc.offline.nets.sltnet import LMSB, SLTNet
from edgeperc.offline.nets.sltnet_keys import load_sltnet
from edgeperc.offline.prune import never_fired, prune

DATA = Path(__file__).parents[2] / "shared" / "data"
GOLDEN = DATA / "golden" / "sltnet_ddd17_davis346.npz"
OFFICIAL = {n: DATA / "models" / f"sltnet_{n}_official.pth" for n in ("ddd17", "dsec")}
needs_data = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN.name} is not here")

SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(seed: int, blocks: tuple[int, int, int] = (1, 1, 1), width: int = 8) -> SLTNet:
    """A random network whose batch norms have seen data, some with negative scales."""
    torch.manual_seed(seed)
    net = SLTNet(3, width=width, blocks=blocks)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for bn in norms:
            bn.momentum = 1.0
            bn.weight.uniform_(0.5, 1.5).mul_((torch.rand_like(bn.weight) < 0.8) * 2 - 1.0)
            bn.bias.uniform_(-0.3, 0.6)
        net(torch.randn(4, 5, 32, 32))
    return net.eval()


def grids(size: tuple[int, int] = (24, 40)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(2, 5, *size, generator=generator)
    sparse = dense * (torch.rand(2, 5, *size, generator=generator) < 0.1)
    return torch.cat([dense, sparse, torch.zeros(1, 5, *size)]).double()


@torch.no_grad()
def difference(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    """Largest difference of the outputs in float64, where rounding all but never flips a spike."""
    one, two = copy.deepcopy(a).double()(x), copy.deepcopy(b).double()(x)
    assert one.std() > 0
    return float((one - two).abs().max())


@pytest.mark.parametrize("blocks", [(0, 0, 0), (1, 1, 1), (2, 0, 3)])
@pytest.mark.parametrize("size", [(24, 40), (8, 72)])
def test_folding_keeps_the_function(blocks: tuple[int, int, int], size: tuple[int, int]) -> None:
    net = trained(0, blocks)
    # Weights are rounded to float32 after folding: 1e-7 of each potential, 1e-5 of a logit.
    assert difference(net, fold(net), grids(size)) < 1e-4


def test_a_folded_network_shares_nothing_with_its_source() -> None:
    net = trained(0)
    before = copy.deepcopy(net.state_dict())
    for parameter in fold(net).parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    "neuron",
    [lambda: LIF(time_steps=2), lambda: LIF(reset=-0.5), lambda: LIF(gain=0.5)],
)
def test_neurons_that_are_no_plain_comparison_are_refused(neuron: Callable[[], LIF]) -> None:
    with pytest.raises(ModelError, match="one time step and plain neurons"):
        fold(SLTNet(3, width=8, neuron=neuron))


def test_another_threshold_is_folded_too() -> None:
    net = trained(0)
    for module in net.modules():
        if isinstance(module, LIF):
            module.threshold = 0.3
    assert difference(net, fold(net), grids()) < 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_pruning_keeps_the_function_of_a_live_network(seed: int) -> None:
    folded = fold(trained(seed))
    pruned, removed = prune(folded)
    assert all(r.what != "block" for r in removed)
    assert difference(folded, pruned, grids()) < 1e-9


@torch.no_grad()
def kill(bn: nn.Module, channels: slice | list[int] = slice(None)) -> None:
    """Collapse a batch norm as the published ones are: its neurons never reach 0.5."""
    assert isinstance(bn, nn.BatchNorm2d)
    bn.weight[channels] = 1e-40
    bn.bias[channels] = 1e-40


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_dead_is_found_removed_and_not_missed(seed: int) -> None:
    net = trained(seed, (2, 1, 1))
    lmsbs = {name: m for name, m in net.named_modules() if isinstance(m, LMSB)}
    kill(lmsbs["stage1.1"].expand[0].bn)  # type: ignore[union-attr, arg-type, index]
    kill(lmsbs["up2.block"].expand[0].bn)  # type: ignore[union-attr, arg-type, index]
    kill(lmsbs["stage3.1"].near[1].bn)  # type: ignore[union-attr, arg-type, index]
    kill(net.stem[0].bn, [1, 5])  # type: ignore[union-attr, arg-type]
    kill(net.skip2[0].bn, [0, 2, 3])  # type: ignore[union-attr, arg-type]
    kill(net.skip3[2].channel_gate[1].bn)  # type: ignore[union-attr, arg-type, index]
    folded = fold(net)
    pruned, removed = prune(folded)
    found = {(r.place, r.what): r.neurons for r in removed}
    assert ("stage1.blocks.0", "block") in found
    assert ("up2.block", "block") in found
    assert ("stage3.blocks.0.near", "branch") in found
    assert ("skip3.2.channel", "gate") in found
    assert found["stem.0", "neurons"] >= 2
    assert found["skip2.0", "neurons"] >= 3
    assert all(r.ceiling <= 0 for r in removed)
    assert size(pruned) < size(folded)
    assert difference(folded, pruned, grids()) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_dead_channels_between_stages_are_removed_with_what_reads_them(seed: int) -> None:
    net = trained(seed, (0, 0, 0))
    kill(net.get_submodule("stage1.1.bn"), [3, 8, 9, 12])
    # The second stage pools the first one's channels as its own 16 and up: all but channel 12 are
    # dead there too, so that nothing needs them.
    kill(net.get_submodule("stage2.1.bn"), [0, 16 + 3, 16 + 8, 16 + 9])
    with torch.no_grad():
        net.get_submodule("stage2.1.bn").get_parameter("bias")[16 + 12] = 0.9
    folded = fold(net)
    pruned, removed = prune(folded)
    assert difference(folded, pruned, grids()) < 1e-9
    count = {r.place: r.neurons for r in removed if r.what == "channels"}
    assert count["stage1"] >= 3
    assert count["stage2"] >= 4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_silent_channel_that_makes_the_next_stage_fire_stays(seed: int) -> None:
    net = trained(seed, (0, 0, 0))
    kill(net.get_submodule("stage1.1.bn"), [8])
    with torch.no_grad():
        net.get_submodule("stage2.1.bn").get_parameter("bias")[16 + 8] = 5.0
    folded = fold(net)
    assert difference(folded, prune(folded)[0], grids()) < 1e-9


def test_a_dead_block_leaves_every_bit_as_it_was() -> None:
    net = trained(0)
    for module in net.modules():
        if isinstance(module, LMSB):
            kill(module.expand[0].bn)  # type: ignore[union-attr, arg-type]
    folded = fold(net)
    pruned, removed = prune(folded)
    assert sum(r.what == "block" for r in removed) == 6
    x = grids().float()
    with torch.no_grad():
        agreement = (folded(x).argmax(1) == pruned(x).argmax(1)).double().mean()
    assert agreement >= 0.999


def test_neurons_that_only_happen_to_be_silent_stay() -> None:
    net = trained(0)
    quiet = net.get_submodule("skip1.0.bn")
    assert isinstance(quiet, nn.BatchNorm2d)
    with torch.no_grad():  # needs almost every input spike at once, and no other
        quiet.weight[0] = 1.0
        quiet.bias[0] = 0.0
        weight = net.get_submodule("skip1.0.conv").get_parameter("weight")
        quiet.get_buffer("running_mean")[0] = weight[0].clamp(min=0).sum() - 0.51
        quiet.get_buffer("running_var")[0] = 1.0
    pruned, _ = prune(fold(net))
    tall = pruned.skip1[0]
    assert tall.out_channels == 8  # type: ignore[comparison-overlap]
    assert "skip1.0" in never_fired(pruned, [grids().float()])


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# The published weights.


@pytest.fixture(scope="module", params=["ddd17", "dsec"])
def published(request: pytest.FixtureRequest) -> tuple[str, SLTNet]:
    torch.set_num_threads(1)
    path = OFFICIAL[request.param]
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    return request.param, load_sltnet(read_checkpoint(path))


def test_published_networks_fold_and_prune_without_a_change(published: tuple[str, SLTNet]) -> None:
    name, net = published
    folded = fold(net)
    pruned, removed = prune(folded)
    blocks = [r.place for r in removed if r.what == "block"]
    assert len(blocks) == (12 if name == "ddd17" else 11)
    assert ("up3.block" in blocks) == (name == "ddd17")
    assert size(pruned) < 215_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 64, 96, generator=generator)
    x[1] *= torch.rand(5, 64, 96, generator=generator) < 0.1
    with torch.no_grad():
        assert torch.equal(folded(x), pruned(x))
        agreement = (net(x).argmax(1) == pruned(x).argmax(1)).double().mean()
    assert agreement >= 0.999


@needs_data
def test_labels_are_the_official_networks_after_folding_and_pruning() -> None:
    golden = np.load(GOLDEN)
    folded = fold(load_sltnet(read_checkpoint(OFFICIAL["ddd17"])))
    pruned, _ = prune(folded)
    with torch.no_grad():
        for net in (folded, pruned):
            labels = net(torch.from_numpy(golden["voxel"])).argmax(1).numpy()
            agreement = (labels == golden["labels"]).mean((1, 2))
            assert (agreement >= 0.999).all(), agreement
