"""What every quantizer promises; each one there is stands in FACTORIES."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.quantizers import FACTORIES, make, with_bits
from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform

FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
BITS = st.integers(2, 8)
SEARCH = st.sampled_from(["minmax", "percentile", "mse"])
SHARES = sorted(name for name in FACTORIES if not name.startswith("blocks"))
"""Blocks are of weights, see `test_compress_int4`."""
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def values(elements: st.SearchStrategy[float] = FINITE) -> st.SearchStrategy[Tensor]:
    return arrays(np.float32, st.integers(1, 60), elements=elements).map(torch.from_numpy)


def fitted(q: Quantizer, x: Tensor) -> Quantizer:
    q.fit(x)
    q.enabled = True
    return q


@few
@given(values(), values(), BITS, st.booleans(), SEARCH)
def test_uniform_is_monotone_idempotent_and_keeps_zero(
    seen: Tensor, x: Tensor, bits: int, symmetric: bool, search: str
) -> None:
    q = fitted(Uniform(bits, symmetric=symmetric, search=search), seen)  # type: ignore[arg-type]
    low, high = q.codes  # type: ignore[attr-defined]
    ordered = x.sort().values
    codes = q.quantize(ordered)
    assert torch.equal(codes, codes.round())
    assert low <= float(codes.min())
    assert float(codes.max()) <= high
    assert bool((codes.diff() >= 0).all())
    once = q(ordered)
    assert torch.equal(q.quantize(once), codes)
    assert torch.equal(q(once), once)
    assert float(q(torch.zeros(1))) == 0
    assert q.off_grid(once) < 1e-3


@few
@given(values(st.floats(0, 1, width=32)), BITS, st.sampled_from(SHARES))
def test_every_quantizer_of_shares_is_monotone_and_idempotent(
    seen: Tensor, bits: int, name: str
) -> None:
    seen[0] = 1.0
    q = fitted(make(name, use="softmax", bits=bits), seen)
    ordered = seen.sort().values
    once = q(ordered)
    assert bool((once.diff() >= -1e-7).all())
    assert torch.allclose(q(once), once, rtol=1e-6, atol=0)
    assert float(q(torch.zeros(1))) == 0


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    x = torch.rand(20)
    x[7] = bad
    with pytest.raises(ModelError):
        make(name, use="softmax", bits=4).fit(x)
    with pytest.raises(ModelError):
        make(name, use="softmax", bits=4).fit(torch.zeros(0))


@pytest.mark.parametrize("name", SHARES)
def test_off_is_off_and_not_fitted_is_seen(name: str) -> None:
    q, x = make(name, use="softmax", bits=4), torch.rand(20)
    assert q(x) is x
    q.enabled = True
    assert not bool(torch.isfinite(q(x)).all())


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_a_grid_per_channel_is_one_grid_for_each_channel(axis: int) -> None:
    x = torch.randn(5, 6, 7) * torch.logspace(-2, 2, 7)
    whole = fitted(Uniform(4, symmetric=False, axis=axis), x)(x)
    for index in range(x.shape[axis]):
        part = x.select(axis, index)
        alone = fitted(Uniform(4, symmetric=False), part)(part)
        torch.testing.assert_close(whole.select(axis, index), alone)


def test_least_squared_error_is_no_more_than_that_of_the_whole_range() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, generator=generator)
    x[0] = 15.0
    errors = {}
    for search in ("minmax", "percentile", "mse"):
        q = fitted(Uniform(4, symmetric=False, search=search), x)  # type: ignore[arg-type]
        errors[search] = float((q(x) - x).square().mean())
    assert errors["mse"] < 0.6 * errors["minmax"]
    assert errors["mse"] < errors["percentile"]
    assert errors["percentile"] <= errors["minmax"]


def test_the_range_of_least_and_largest_is_exact_at_its_ends() -> None:
    x = torch.tensor([-1.0, 0.3, 3.0])
    q = fitted(Uniform(8, symmetric=False, search="minmax"), x)
    assert q.scale.item() == pytest.approx(4 / 255)  # type: ignore[union-attr, operator]
    assert q.quantize(x)[[0, 2]].tolist() == [0, 255]
    s = fitted(Uniform(8, symmetric=True, search="minmax"), x)
    assert s.quantize(torch.tensor([-3.0, 3.0, 9.0])).tolist() == [-127, 127, 127]


def test_gradients_go_straight_through_inside_the_range_only() -> None:
    q = fitted(Uniform(4, symmetric=True, search="minmax"), torch.tensor([-1.0, 1.0]))
    x = torch.tensor([-5.0, -0.4, 0.0, 0.7, 5.0], requires_grad=True)
    (q(x) * torch.arange(1.0, 6.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 0]


def test_the_input_is_unchanged_and_a_state_dict_brings_the_grid_back() -> None:
    x = torch.randn(8, 3)
    before = x.clone()
    q = fitted(Uniform(4, symmetric=True, axis=0), x)
    other = Uniform(4, symmetric=True, axis=0)
    other.load_state_dict(q.state_dict())
    other.enabled = True
    assert torch.equal(q(x), other(x))
    assert torch.equal(x, before)


def test_names_say_bits_channels_and_search() -> None:
    q = make("uniform6c-minmax", use="weight", axis=1)
    assert isinstance(q, Uniform)
    assert (q.bits, q.axis, q.search, q.symmetric) == (6, 1, "minmax", True)
    plain = make("uniform", use="act", bits=5)
    assert isinstance(plain, Uniform)
    assert (plain.bits, plain.axis, plain.symmetric) == (5, None, False)
    assert with_bits("uniform8c-minmax", 4) == "uniform4c-minmax"
    assert with_bits("none", 4) == "none"


@pytest.mark.parametrize("name", ["unifrom8", "uniform", "uniform1", "uniform8x", "uniform8-max"])
def test_a_name_that_says_nothing_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        make(name, use="act")


def test_export_labels_say_what_runs() -> None:
    labels = {b: make(f"uniform{b}", use="act").export for b in (8, 6, 9)}
    assert labels == {8: "int8", 6: "int8 storage", 9: "accuracy only"}


@few
@given(values(), BITS, SEARCH)
def test_a_centred_grid_has_zero_in_the_middle_and_reaches_both_ends(
    seen: Tensor, bits: int, search: str
) -> None:
    q = fitted(make(f"centred{bits}-{search}", use="act"), seen)
    assert float(q.zero) == 2 ** (bits - 1)  # type: ignore[arg-type]
    assert float(q(torch.zeros(1))) == 0
    if search == "minmax":
        step = float(q.scale)  # type: ignore[arg-type]
        assert float((q(seen) - seen).abs().max()) <= 0.501 * step
