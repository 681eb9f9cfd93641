"""Quantizers in place; the two defects of published code that an evaluation must not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.snapshot import Snapshot
from edgeperc.offline.nets.taps import Attention


class Toy(nn.Module):
    """A block of three linear layers and an attention between them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.fc1 = nn.Linear(8, 24), nn.Linear(8, 16, bias=False)
        self.fc2, self.attn = nn.Linear(16, 8), Attention()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        out: Tensor = self.fc2(self.fc1(self.attn.attend(q, k, v)[:, 0]).relu())
        return out


LAYERS = ("qkv", "fc1", "fc2")


def quantized(bits: int = 4) -> tuple[Simulated, Tensor]:
    torch.manual_seed(0)
    sim, x = Simulated(Toy().eval()), torch.randn(3, 5, 8)
    for name in LAYERS:
        for kind, put in (("weight", sim.weight), ("act", sim.input)):
            q = make(f"uniform{bits}", use=kind)  # type: ignore[arg-type]
            q.fit(sim.original(name) if kind == "weight" else torch.randn(99))
            q.enabled = True
            put(name, q)
    q = make("uniform8", use="softmax")
    q.fit(torch.rand(99))
    q.enabled = True
    sim.tap("attn.tap_softmax", q)
    return sim, x


def test_the_network_is_as_it_was_when_all_is_off_or_taken_off() -> None:
    torch.manual_seed(0)
    plain = Toy().eval()
    sim, x = quantized()
    names = set(dict(plain.named_modules()))
    exact = plain(x)
    assert not torch.allclose(sim.net(x), exact, atol=1e-3)
    with sim.off():
        torch.testing.assert_close(sim.net(x), exact)
    assert not torch.allclose(sim.net(x), exact, atol=1e-3)
    assert names <= set(dict(sim.net.named_modules()))
    for name in LAYERS:
        sim.weight(name, None)
        sim.input(name, None)
    sim.tap("attn.tap_softmax", None)
    assert sim.quantizers == {}
    assert torch.equal(sim.net(x), exact)
    assert set(sim.net.state_dict()) == set(plain.state_dict())


def test_off_for_some_only_brings_the_rest_back_as_it_was() -> None:
    sim, _ = quantized()
    sim.quantizers["fc1:input"].enabled = False
    with sim.off(lambda key: key.endswith(":weight")):
        on = {key for key, q in sim.quantizers.items() if q.enabled}
        assert on == {"qkv:input", "fc2:input", "attn.tap_softmax"}
    assert not sim.quantizers["fc1:input"].enabled
    assert sim.quantizers["fc1:weight"].enabled


def test_folded_weights_are_integers_of_their_grid_and_check_agrees() -> None:
    sim, x = quantized()
    soft = sim.net(x)
    sim.fold()
    sim.check()
    assert torch.equal(sim.net(x), soft)
    for name in LAYERS:
        q: Any = sim.quantizers[f"{name}:weight"]
        codes = sim.original(name) / q.scale
        assert float((codes - codes.round()).abs().max()) < 1e-4


@pytest.mark.parametrize("key", ["qkv:input", "fc2:input", "fc1:weight", "attn.tap_softmax"])
def test_check_names_a_quantizer_that_is_off(key: str) -> None:
    sim, _ = quantized()
    sim.fold()
    sim.check()
    sim.quantizers[key].enabled = False
    with pytest.raises(ModelError, match=f"{key}: its quantizer is off"):
        sim.check()


class Soft(Uniform):
    """Rounds only half of the way, as a rounding does that is still being learned."""

    def forward(self, x: Tensor) -> Tensor:
        hard = super().forward(x)
        return (hard + x) / 2 if self.enabled else x


@pytest.mark.parametrize("name", LAYERS)
def test_check_names_a_soft_weight_wherever_it_is_in_the_block(name: str) -> None:
    sim, _ = quantized()
    q = Soft(4, symmetric=True)
    q.fit(sim.original(name))
    q.enabled = True
    sim.weight(name, q)
    with pytest.raises(ModelError, match=f"{name}:weight: a weight is .* steps off its grid"):
        sim.check()


def test_check_sees_a_weight_that_moved_after_it_was_folded() -> None:
    sim, _ = quantized()
    sim.fold()
    layer: Any = sim.sites["fc2"].module
    with torch.no_grad():
        layer.parametrizations["weight"][0].scale.mul_(1.01)
    sim.check()  # still on the grid that the quantizer has now: forward rounds
    layer.parametrizations["weight"][0].scale.fill_(torch.nan)
    with pytest.raises(ModelError, match="fc2:weight"):
        sim.check()


class Dropping(Uniform):
    """Lets half of what it takes through as it is, drawn anew each time."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.rand_like(x) < 0.5, x, super().forward(x))


class HalfOpen(Uniform):
    """Lets the same half through each time."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, super().forward(x))


@pytest.mark.parametrize(
    ("kind", "complaint"), [(Dropping, "not deterministic"), (HalfOpen, "lets values through")]
)
def test_check_names_activations_that_stay_in_full_precision(
    kind: type[Uniform], complaint: str
) -> None:
    sim, _ = quantized()
    q = kind(4, symmetric=False)
    q.fit(torch.randn(99))
    q.enabled = True
    sim.input("fc1", q)
    with pytest.raises(ModelError, match=f"fc1:input: .*{complaint}"):
        sim.check()


def test_check_names_what_is_not_fitted_not_hard_or_no_longer_there() -> None:
    sim, _ = quantized()
    q = Uniform(4, symmetric=False)
    q.enabled = True
    sim.input("fc2", q)
    with pytest.raises(ModelError, match="fc2:input: .*not fitted"):
        sim.check()
    sim, _ = quantized()
    sim.quantizers["qkv:weight"].hard = False  # type: ignore[misc]
    with pytest.raises(ModelError, match="qkv:weight: .*soft"):
        sim.check()
    sim, _ = quantized()
    sim.net.attn.tap_softmax.work = None  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="tap_softmax: .*no longer"):
        sim.check()
    sim, _ = quantized()
    sim.hooks["qkv"].remove()
    with pytest.raises(ModelError, match="qkv:input: .*no longer"):
        sim.check()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_a_probe_fits_a_quantizer_of_channels(axis: int) -> None:
    q = Uniform(4, symmetric=False, axis=axis)
    q.fit(torch.randn(6, 6, 6))
    assert bool(torch.isfinite(q.quantize(q.probe())).all())
    assert len(torch.unique(q.quantize(q.probe()))) == 16


def test_sites_that_are_not_there_are_named() -> None:
    sim, _ = quantized()
    for put in (sim.weight, sim.input):
        with pytest.raises(ModelError, match=r"attn\.tap_q"):
            put("attn.tap_q", None)
    with pytest.raises(ModelError, match="fc9"):
        sim.original("fc9")


def test_a_snapshot_brings_back_weights_biases_quantizers_and_hooks() -> None:
    sim, x = quantized()
    answer, keys = sim.net(x), set(sim.net.state_dict())
    before = Snapshot(sim)
    net: Any = sim.net
    with torch.no_grad():
        net.fc2.bias.add_(1)
        sim.original("fc2").mul_(2)
    sim.weight("fc1", None)
    net.fc1.bias = nn.Parameter(torch.ones(16))
    net.fc1.register_forward_hook(lambda module, args, out: out + 1)
    sim.input("qkv", None)
    sim.tap("attn.tap_softmax", None)
    sim.tap("attn.tap_q", Quantizer(4))
    assert not torch.allclose(sim.net(x), answer)
    before.restore()
    assert torch.equal(sim.net(x), answer)
    assert set(sim.net.state_dict()) == keys
    assert net.fc1.bias is None
    sim.check()
