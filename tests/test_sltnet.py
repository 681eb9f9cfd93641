"""SLTNet and its neurons: the equations, the published outputs, and that it can be trained."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.nets.lif import LIF
from edgeperc.offline.nets.sltnet import RepConv, SLTNet
from edgeperc.offline.nets.sltnet_keys import load_sltnet

DATA = Path(__file__).parents[2] / "shared" / "data"
GOLDEN = DATA / "golden" / "sltnet_ddd17_davis346.npz"
OFFICIAL = DATA / "models" / "sltnet_ddd17_official.pth"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(**changes: object) -> SLTNet:
    """A network in which neurons fire: its running statistics are those of some noise."""
    net = SLTNet(3, **{"width": 8, "blocks": (1, 1, 1), **changes})  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(4, 5, 32, 32))
    return net


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_the_published_neuron_compares_strictly_with_a_half(values: list[float]) -> None:
    x = torch.tensor([*values, 0.5])
    assert torch.equal(LIF()(x), (x > 0.5).float())


@settings(deadline=None)
@given(
    drive=st.lists(st.integers(-64, 128).map(lambda n: n / 64), min_size=1, max_size=12),
    decay=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    reset=st.sampled_from([0.0, -0.25, 0.125]),
)
def test_several_steps_follow_the_equations_one_neuron_at_a_time(
    drive: list[float], decay: float, reset: float
) -> None:
    expected, potential = [], reset
    for x in drive:
        potential = reset + decay * (potential - reset) + x
        expected.append(float(potential > 0.5))
        if potential > 0.5:
            potential = reset
    # Dyadic numbers: float64 is exact here.
    lif = LIF(time_steps=len(drive), decay=decay, reset=reset)
    spikes = lif(torch.tensor(drive, dtype=torch.float64))
    assert spikes.tolist() == expected


def test_gradient_of_a_spike_is_the_slope_of_the_published_soft_step() -> None:
    u = torch.linspace(-0.995, 1.995, 300, dtype=torch.float64, requires_grad=True)
    LIF()(u).sum().backward()
    v = u.detach().clone().requires_grad_()
    soft = (torch.tanh(3 * (v.clamp(0, 1) - 0.5)) + math.tanh(1.5)) / (2 * math.tanh(1.5))
    soft.sum().backward()
    torch.testing.assert_close(u.grad, v.grad)
    assert u.grad is not None
    assert u.grad[(u < 0) | (u > 1)].abs().sum() == 0


def test_gradient_flows_back_through_time_unless_a_spike_resets_it() -> None:
    x = torch.tensor([0.4, 0.2], requires_grad=True)
    LIF(time_steps=2, detach_reset=True)(x)[1].backward()
    assert x.grad is not None
    assert x.grad[0] == pytest.approx(0.25 * x.grad[1])
    fired = torch.tensor([0.9, 0.2], requires_grad=True)
    LIF(time_steps=2, detach_reset=True)(fired)[1].backward()
    assert fired.grad is not None
    assert fired.grad[0] == 0


def test_potentials_that_do_not_make_whole_time_steps_are_refused() -> None:
    with pytest.raises(ModelError, match="5 potentials do not make 3 time steps"):
        LIF(time_steps=3)(torch.zeros(5, 2))


def test_repconv_is_the_published_padding_by_what_bn_makes_of_zero() -> None:
    rep = RepConv(6)
    for layer in rep:
        if isinstance(layer, nn.BatchNorm2d):
            randomise(layer)
    _, pointwise, bn, depthwise, mix, bn2, bn3 = rep.eval()
    x = torch.randn(2, 6, 5, 7)

    inner = bn(pointwise(x))
    border = bn(torch.zeros(1, 6, 1, 1)).expand(2, 6, 7, 9).clone()
    border[:, :, 1:-1, 1:-1] = inner
    torch.testing.assert_close(rep(x), bn3(bn2(mix(depthwise(border)))))


def randomise(bn: nn.BatchNorm2d) -> None:
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    nn.init.normal_(bn.running_mean)
    nn.init.uniform_(bn.running_var, 0.5, 2)


@pytest.mark.parametrize("height", [8, 24, 40])
@pytest.mark.parametrize("blocks", [(0, 0, 0), (1, 2, 3)])
def test_logits_have_the_inputs_size_and_samples_do_not_mix(
    height: int, blocks: tuple[int, int, int]
) -> None:
    net = small(blocks=blocks).eval()
    x = torch.randn(2, 5, height, 32)
    with torch.no_grad():
        both = net(x)
        assert both.shape == (2, 3, height, 32)
        assert both.std() > 0
        torch.testing.assert_close(both[:1], net(x[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(200, 346), (20, 32), (4, 8)])
def test_a_size_that_cannot_be_halved_three_times_is_refused(height: int, width: int) -> None:
    with pytest.raises(ModelError, match=f"height {height} and width {width}"):
        small()(torch.zeros(1, 5, height, width))


def test_a_grid_repeated_in_time_is_the_default_for_several_steps() -> None:
    net = small(time_steps=3).eval()
    x = torch.randn(2, 5, 16, 16)
    with torch.no_grad():
        assert torch.equal(net(x), net(torch.stack([x, x, x])))
        assert not torch.equal(net(x), net(torch.stack([x, x, -x])))


def test_every_parameter_learns_and_the_loss_falls() -> None:
    net = small()
    x = torch.randn(4, 5, 32, 32)
    labels = (F.avg_pool2d(x.abs().mean(1), 5, 1, 2) * 4).long().clamp(0, 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        final, early = net.forward_with_early(x)
        loss = F.cross_entropy(final, labels) + 0.4 * F.cross_entropy(early, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN.name} is not here")
def test_labels_are_the_official_networks() -> None:
    golden = np.load(GOLDEN)
    net = load_sltnet(read_checkpoint(OFFICIAL))
    with torch.no_grad():
        labels: Tensor = net(torch.from_numpy(golden["voxel"])).argmax(1)
    agreement = (labels.numpy() == golden["labels"]).mean((1, 2))
    assert (agreement >= 0.999).all(), agreement
