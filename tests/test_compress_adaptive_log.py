"""Adaptive granularity: the grid that the product of shares and values asks for."""

import pytest
import torch

from edgeperc.errors import ModelError
from edgeperc.offline.compress.quantizers.adaptive_log import (
    FINENESS,
    POWER,
    AdaptiveLog,
    fewer_queries,
)
from edgeperc.offline.compress.quantizers.log_sqrt2 import Log2, LogSqrt2


def attention(spread, seed=0, tokens=64):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, 4, tokens, tokens, generator=generator)
    return logits.softmax(-1), torch.randn(2, 4, tokens, 16, generator=generator)


def fitted(bits, *given):
    quantizer = AdaptiveLog(bits)
    quantizer.fit(*given)
    quantizer.enabled = True
    return quantizer


def error(quantizer, shares, v):
    quantizer.enabled = True
    return float((quantizer(shares) @ v - shares @ v).abs().pow(POWER).sum())


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("fineness", FINENESS)
def test_more_stays_more_and_what_is_on_the_grid_stays(bits, fineness):
    quantizer = AdaptiveLog(bits)
    quantizer.scale.fill_(0.7)
    quantizer.per_octave.fill_(fineness)
    quantizer.enabled = True
    x = torch.linspace(0, 1, 4001)
    codes = quantizer.quantize(x)
    values = quantizer(x)
    assert (values.diff() >= 0).all()
    assert values[0] == 0
    assert codes[0] == 2**bits - 1
    assert torch.equal(quantizer.quantize(values), codes)
    assert float(quantizer.dequantize(torch.tensor(1.0))) == pytest.approx(
        0.7 * 2 ** (-1 / fineness)
    )


@pytest.mark.parametrize("spread", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_the_product_errs_no_more_than_with_either_fixed_grid(spread, bits):
    shares, v = attention(spread)
    adaptive = error(fitted(bits, shares, v), shares, v)
    for kind in (Log2, LogSqrt2):
        fixed = kind(bits)
        fixed.fit(shares)
        # Scales lie on a coarse line, so that an equal grid may be missed by a little.
        assert adaptive <= 1.02 * error(fixed, shares, v)


def test_fineness_follows_the_attention():
    assert float(fitted(4, *attention(1.0)).per_octave) < float(
        fitted(4, *attention(12.0)).per_octave
    )


def test_the_values_decide_where_they_are_given():
    """Small shares count where only they carry something."""
    shares = torch.tensor([0.5, 0.4, 0.06, 0.04]).repeat(1, 1, 8, 1)
    v = torch.tensor([0.0, 0.0, 5.0, -4.0]).reshape(1, 1, 4, 1)
    alone, together = fitted(2, shares), fitted(2, shares, v)
    assert error(together, shares, v) < 0.5 * error(alone, shares, v)


def test_the_published_line_of_scales_is_searched_down_to_a_hundredth():
    """One odd share of 1 beside many of 0.05: with few bits the many decide."""
    shares = torch.full((1, 1, 40, 40), 0.05)
    shares[0, 0, 0, 0] = 1.0
    v = torch.ones(1, 1, 40, 1)
    v[0, 0, 0] = 0.0
    assert float(fitted(2, shares, v).scale) < 0.2


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -0.1])
def test_what_is_no_share_is_refused(wrong):
    shares, v = attention(1.0)
    shares[0, 1, 2, 3] = wrong
    with pytest.raises(ModelError):
        AdaptiveLog(4).fit(shares, v)


def test_all_zero_stays_zero():
    quantizer = fitted(4, torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 2))
    assert not quantizer(torch.zeros(5)).any()


def test_of_many_shares_whole_queries_are_looked_at():
    shares, v = attention(1.0)
    fewer = fewer_queries(shares, v, most=shares.numel() // 8)
    assert fewer.shape == (2, 4, 8, 64)
    assert torch.equal(fewer, shares[..., ::8, :])
    assert fewer_queries(shares, None, most=1000).numel() <= 1000
