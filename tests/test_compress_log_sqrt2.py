"""Logarithmic grids: what a share of attention becomes, and what no grid takes."""

import pytest
import torch

from edgeperc.errors import ModelError
from edgeperc.offline.compress.quantizers.log_sqrt2 import Log2, LogSqrt2
from edgeperc.offline.compress.quantizers.uniform import Uniform

BITS = range(2, 9)
KINDS = (Log2, LogSqrt2)


def shares_of(spread, seed=0, heads=4, tokens=64):
    """Attention of random logits: the larger the spread, the more one share has of all."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(1, heads, tokens, tokens, generator=generator)
    return logits.softmax(-1)


def fitted(kind, bits, shares):
    quantizer = kind(bits)
    quantizer.fit(shares)
    quantizer.enabled = True
    return quantizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", BITS)
def test_more_stays_more_and_what_is_on_the_grid_stays(kind, bits):
    quantizer = fitted(kind, bits, shares_of(3.0))
    x = torch.linspace(0, 1.2, 4001)
    codes = quantizer.quantize(x)
    assert torch.equal(codes, codes.round())
    assert codes.min() == 0
    assert codes.max() == 2**bits - 1
    values = quantizer(x)
    assert (values.diff() >= 0).all()
    assert torch.equal(quantizer.quantize(values), codes)
    assert torch.equal(quantizer(values), values)


@pytest.mark.parametrize(("kind", "step"), [(Log2, 0.5), (LogSqrt2, 0.5**0.5)])
def test_the_grid_is_powers_down_from_the_scale_and_zero(kind, step):
    quantizer = kind(3)
    quantizer.scale.fill_(0.8)
    powers = [0.8 * step**code for code in range(7)]
    assert quantizer.dequantize(torch.arange(8.0)).tolist() == pytest.approx([*powers, 0])
    between = torch.tensor([0.8 * step**0.4, 0.8 * step**0.6])
    assert quantizer.quantize(between).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_and_next_to_nothing_become_nothing(kind):
    quantizer = fitted(kind, 4, shares_of(3.0))
    smallest = float(quantizer.dequantize(torch.tensor(14.0)))
    assert smallest > 0
    few = torch.tensor([0.0, 1e-45, 0.4 * smallest, smallest])
    assert quantizer(few).tolist() == [0, 0, 0, smallest]


@pytest.mark.parametrize("kind", KINDS)
def test_all_zero_stays_zero_and_more_than_the_scale_becomes_the_scale(kind):
    quantizer = fitted(kind, 4, torch.zeros(2, 3, 5, 5))
    assert not quantizer(torch.zeros(7)).any()
    assert quantizer(torch.tensor([9.0])).tolist() == [float(quantizer.scale)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -0.1])
def test_what_is_no_share_is_refused(kind, wrong):
    shares = shares_of(1.0)
    shares[0, 1, 2, 3] = wrong
    with pytest.raises(ModelError):
        kind(4).fit(shares)


def test_a_grid_that_was_not_fitted_says_so():
    quantizer = LogSqrt2(4)
    quantizer.enabled = True
    assert quantizer(torch.tensor([0.0, 0.5, 1.0])).isnan().all()


def test_the_gradient_passes_inside_the_grid_and_stops_above():
    quantizer = LogSqrt2(4)
    quantizer.scale.fill_(0.5)
    quantizer.enabled = True
    x = torch.tensor([0.0, 1e-6, 0.3, 0.9], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 0]


def test_flat_attention_likes_the_logarithm_and_peaked_attention_equal_steps():
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(1, 4, 196, 32, generator=generator)

    def error(kind, shares, **options):
        quantizer = kind(4, **options)
        quantizer.fit(shares)
        quantizer.enabled = True
        exact = shares @ v
        return float((quantizer(shares) @ v - exact).square().mean() / exact.square().mean())

    flat, peaked = shares_of(1.0, tokens=196), shares_of(12.0, tokens=196)
    assert error(LogSqrt2, flat) < 0.6 * error(Log2, flat)
    assert error(LogSqrt2, flat) < 0.6 * error(Uniform, flat, symmetric=False)
    assert error(Uniform, peaked, symmetric=False) < 0.5 * error(LogSqrt2, peaked)
    assert error(LogSqrt2, peaked) < 0.5 * error(Log2, peaked)


def test_a_state_dict_keeps_the_grid():
    first, second = fitted(LogSqrt2, 4, shares_of(3.0)), LogSqrt2(4)
    second.load_state_dict(first.state_dict())
    second.enabled = True
    assert torch.equal(second(shares_of(3.0, seed=1)), first(shares_of(3.0, seed=1)))
