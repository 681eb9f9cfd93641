from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeperc.offline.nets.selective_scan import mamba_scan, selective_scan, sequential_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
SHAPES = [  # batch, groups, channels of each, states, steps
    (1, 1, 1, 1, 1),
    (2, 4, 6, 1, 130),
    (1, 2, 16, 16, 64),
    (3, 2, 20, 5, 65),
    (1, 1, 40, 3, 200),
]


def leaves(shape: tuple[int, ...], *, softplus: bool, seed: int = 0) -> list[Tensor]:
    batch, groups, each, states, length = shape
    random = torch.Generator().manual_seed(seed)
    channels = groups * each

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=random)

    tensors = [
        normal(batch, channels, length),
        normal(batch, channels, length)
        if softplus
        else 0.3 * normal(batch, channels, length).abs(),
        -normal(channels, states).exp(),
        normal(batch, groups, states, length),
        normal(batch, groups, states, length),
        normal(channels),
        normal(channels) if softplus else 0.3 * normal(channels).abs(),
    ]
    return [each.requires_grad_() for each in tensors]


def gradients(scan, tensors: list[Tensor], weights: Tensor, *, softplus: bool) -> list[np.ndarray]:
    y = scan(*tensors, softplus=softplus)
    return [each.numpy() for each in torch.autograd.grad((y * weights.to(y.dtype)).sum(), tensors)]


def agree(tensors: list[Tensor], *, softplus: bool, tolerance: float) -> None:
    """Each gradient is close to autograd's, in float64, of the reference."""
    weights = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    doubles = [each.detach().double().requires_grad_() for each in tensors]
    found = gradients(selective_scan, tensors, weights, softplus=softplus)
    expected = gradients(sequential_scan, doubles, weights, softplus=softplus)
    for name, one, other in zip(NAMES, found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max() + 1e-30, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("softplus", [False, True])
def test_gradients_are_those_of_the_reference(shape: tuple[int, ...], softplus: bool) -> None:
    agree(leaves(shape, softplus=softplus), softplus=softplus, tolerance=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(rng.integers(1, most)) for most in (4, 5, 40, 18, 200))
    softplus = bool(seed % 2)
    agree(leaves(shape, softplus=softplus, seed=seed), softplus=softplus, tolerance=1e-5)


@pytest.mark.parametrize("shift", [-17.0, -8.0, 8.0])
def test_tiny_and_large_steps(shift: float) -> None:
    tensors = leaves((1, 2, 10, 2, 2000), softplus=True)
    tensors[1] = (tensors[1].detach() + shift).requires_grad_()
    agree(tensors, softplus=True, tolerance=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("softplus", [False, True])
def test_the_gpu_kernel_is_the_same_scan(shape: tuple[int, ...], softplus: bool) -> None:
    if not torch.cuda.is_available() or mamba_scan() is None:
        pytest.skip("not here: a GPU and mamba_ssm: pip install 'edgeperc[mamba]'")
    tensors = [each.detach().cuda().requires_grad_() for each in leaves(shape, softplus=softplus)]
    agree(tensors, softplus=softplus, tolerance=1e-4)


def test_gradients_do_not_depend_on_threads() -> None:
    tensors = leaves((2, 3, 20, 4, 100), softplus=True)
    weights = torch.ones_like(tensors[0])
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(gradients(selective_scan, tensors, weights, softplus=True))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


def test_a_tensor_that_is_a_view_and_one_used_twice() -> None:
    u, delta, A, B, _, D, bias = leaves((2, 2, 6, 3, 30), softplus=True)  # noqa: N806
    twice = selective_scan(u.flip(-1), delta, A, B, B, D, bias, softplus=True).square().sum()
    slow = sequential_scan(u.flip(-1), delta, A, B, B, D, bias, softplus=True).square().sum()
    for one, other in zip(
        torch.autograd.grad(twice, (u, B)), torch.autograd.grad(slow, (u, B)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_doubles_take_the_reference() -> None:
    doubles = [each.detach().double() for each in leaves((1, 2, 3, 2, 9), softplus=True)]
    y = selective_scan(*doubles, softplus=True)
    assert torch.equal(y, sequential_scan(*doubles, softplus=True))


def test_without_skip_and_bias() -> None:
    tensors = leaves((1, 2, 3, 2, 9), softplus=False)[:5]
    torch.testing.assert_close(selective_scan(*tensors), sequential_scan(*tensors))


def test_shapes_that_do_not_fit() -> None:
    u, delta, *others = leaves((1, 2, 3, 2, 9), softplus=False)
    with pytest.raises(ValueError, match="delta is"):
        selective_scan(u, delta[..., 1:], *others)
