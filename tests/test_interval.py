"""Interval arithmetic: nothing within the inputs' bounds may leave the outputs' bounds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeperc.offline.interval import Interval, cat, through

CHANNELS = 4


def inside(values: Tensor, bounds: Interval) -> bool:
    low, high = (b[None, :, None, None] for b in (bounds.low, bounds.high))
    return bool(((values >= low) & (values <= high)).all())


def sample(generator: torch.Generator, bounds: Interval, size: int = 9) -> Tensor:
    """Random maps within bounds, their corners more often than not."""
    where = torch.rand(3, CHANNELS, size, size, generator=generator).mul(3).sub(1).clamp(0, 1)
    low, high = (b[None, :, None, None].float() for b in (bounds.low, bounds.high))
    return torch.minimum(torch.maximum(low + where * (high - low), low), high)


def random_bounds(generator: torch.Generator) -> Interval:
    a, b = torch.randn(2, CHANNELS, generator=generator)
    return Interval(torch.minimum(a, b).double(), torch.maximum(a, b).double())


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    transposed=st.booleans(),
    kernel=st.sampled_from([(1, 1), (3, 1), (1, 3), (3, 3)]),
    groups=st.sampled_from([1, 2, CHANNELS]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    bias=st.booleans(),
)
def test_convolutions_stay_within_their_bounds(
    seed: int,
    transposed: bool,
    kernel: tuple[int, int],
    groups: int,
    stride: int,
    dilation: int,
    bias: bool,
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    layer: nn.Conv2d | nn.ConvTranspose2d
    if transposed:
        layer = nn.ConvTranspose2d(CHANNELS, 6, kernel, stride, padding, stride - 1, bias=bias)
    else:
        layer = nn.Conv2d(CHANNELS, 8, kernel, stride, padding, dilation, groups, bias)
    x = random_bounds(generator)
    with torch.no_grad():
        assert inside(layer(sample(generator, x)), through(layer, x))


@settings(deadline=None)
@given(seed=st.integers(0, 2**31))
def test_sums_and_scalings_stay_within_their_bounds(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = random_bounds(generator), random_bounds(generator)
    a, b = sample(generator, x), sample(generator, y)
    assert inside(a + b, x + y)
    assert inside(torch.cat([a, b], 1), cat([x, y]))


def test_bounds_are_reached_so_that_they_prove_something() -> None:
    layer = nn.Conv2d(2, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -3.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 3))
        layer.get_parameter("bias").fill_(0.25)
    potential = through(layer, Interval.of(0, 1, 2))
    assert torch.allclose(potential.high, torch.tensor([18.25], dtype=torch.float64))
    assert torch.allclose(potential.low, torch.tensor([-26.75], dtype=torch.float64))


def test_what_never_rises_above_zero_is_silent() -> None:
    x = Interval(torch.tensor([-1.0, -1.0, 0.5]), torch.tensor([0.0, 0.5, 1.0]))
    assert x.fired().silent.tolist() == [True, False, False]
    assert x.fired().low.tolist() == [0, 0, 1]
