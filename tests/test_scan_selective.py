from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgeperc.offline.nets.selective_scan import sequential_scan
from edgeperc.scan.selective import selective_scan

SHAPES = [  # batch, groups, channels of each, states, steps
    (1, 1, 1, 1, 1),
    (1, 4, 96, 1, 70),
    (2, 2, 16, 16, 64),
    (1, 4, 24, 3, 129),
    (3, 1, 37, 2, 15),
    (1, 2, 50, 16, 16),
    (2, 3, 5, 7, 200),
]


def case(shape: tuple[int, ...], seed: int = 0, step: float = 0.05) -> list[np.ndarray]:
    """Arguments of a scan, with step sizes around `step` as they are after softplus."""
    batch, groups, each, states, length = shape
    rng = np.random.default_rng(seed)
    channels = groups * each
    arrays = (
        rng.standard_normal((batch, channels, length)),
        step * rng.uniform(0.2, 1.8, (batch, channels, length)),
        -rng.uniform(0.1, 16, (channels, states)),
        rng.standard_normal((batch, groups, states, length)),
        rng.standard_normal((batch, groups, states, length)),
        rng.standard_normal(channels),
        step * rng.uniform(0, 1, channels),
    )
    return [array.astype(np.float32) for array in arrays]


def exact(arrays: list[np.ndarray], **how: Any) -> np.ndarray:
    with torch.inference_mode():
        return sequential_scan(*(torch.from_numpy(each).double() for each in arrays), **how).numpy()


def worst(y: np.ndarray, expected: np.ndarray) -> float:
    """Largest error, relative to the largest output of its channel."""
    size = np.abs(expected).max(axis=-1, keepdims=True)
    return float((np.abs(y - expected) / np.maximum(size, 1e-30)).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("softplus", [False, True])
def test_it_agrees_with_the_reference(shape: tuple[int, ...], softplus: bool) -> None:
    arrays = case(shape)
    if softplus:
        arrays[1] = 8 * np.random.default_rng(1).standard_normal(arrays[1].shape, np.float32)
    y = selective_scan(*arrays, softplus=softplus)
    assert y.dtype == np.float32
    assert worst(y, exact(arrays, softplus=softplus)) < 2e-6


@pytest.mark.parametrize("seed", range(25))
def test_random_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(rng.integers(1, most)) for most in (3, 5, 40, 18, 300))
    arrays = case(shape, seed, step=10 ** rng.uniform(-5, 1))
    assert worst(selective_scan(*arrays), exact(arrays)) < 5e-6


@pytest.mark.parametrize("step", [1e-8, 1e-4, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize("noise", [False, True])
def test_long_sequences_of_extreme_steps(step: float, noise: bool) -> None:
    """Of one sign, rounding adds up: plain float32 is off by 6e-4 there."""
    arrays = case((1, 1, 2, 2, 50_000 if step == 1e-8 and not noise else 4_000), step=step)
    if not noise:
        arrays = [np.abs(each) for each in arrays]
        arrays[0][:], arrays[1][:], arrays[3][:], arrays[5][:] = 1, step, 0.7, 0
        arrays[2] = -arrays[2]
    assert worst(selective_scan(*arrays), exact(arrays)) < 1e-5


def test_steps_of_all_sizes_in_one_sequence() -> None:
    arrays = case((1, 2, 20, 4, 2000))
    arrays[1] = 10 ** np.random.default_rng(3).uniform(-8, 3, arrays[1].shape).astype(np.float32)
    assert worst(selective_scan(*arrays), exact(arrays)) < 1e-5
    logits = np.random.default_rng(4).uniform(-80, 80, arrays[1].shape).astype(np.float32)
    arrays[1] = logits
    assert worst(selective_scan(*arrays, softplus=True), exact(arrays, softplus=True)) < 1e-5


def test_small_step_sizes_keep_their_relative_precision() -> None:
    """softplus(-80) is 1.8e-35, which log(1 + exp(x)) would make zero."""
    arrays = case((1, 1, 16, 1, 16))
    arrays[1] = np.linspace(-60, 20, 256, dtype=np.float32).reshape(1, 16, 16)
    arrays[5][:] = arrays[6][:] = 0
    arrays[0][:] = arrays[3][:] = arrays[4][:] = 1
    arrays[2][:] = -1e4  # no memory: y is softplus(delta) where the step is not tiny
    y, expected = selective_scan(*arrays, softplus=True), exact(arrays, softplus=True)
    np.testing.assert_allclose(y[0, :, 0], expected[0, :, 0], rtol=5e-6)


def test_threads_do_not_change_a_bit() -> None:
    arrays = case((2, 3, 40, 16, 100))
    one = selective_scan(*arrays, softplus=True)
    assert np.array_equal(selective_scan(*arrays, softplus=True, threads=3), one)
    assert np.array_equal(selective_scan(*arrays, softplus=True, threads=100), one)


def test_inputs_stay_and_may_be_views() -> None:
    arrays = case((2, 2, 20, 3, 50))
    expected = selective_scan(*arrays)
    before = [each.copy() for each in arrays]
    views = [np.asfortranarray(each) for each in arrays]
    out = np.full(arrays[0].shape, np.nan, np.float32)
    assert selective_scan(*views, out=out) is out
    assert np.array_equal(out, expected)
    assert all(np.array_equal(*pair) for pair in zip(arrays, before, strict=True))


def test_without_skip_and_bias() -> None:
    arrays = case((1, 2, 8, 2, 30))
    zeros = [*arrays[:5], np.zeros_like(arrays[5]), np.zeros_like(arrays[6])]
    assert np.array_equal(selective_scan(*arrays[:5]), selective_scan(*zeros))


@pytest.mark.parametrize("which", [0, 1, 3, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(which: int, bad: float) -> None:
    """A scan has no way back from it, and neither hides it nor spreads it to other channels."""
    arrays = case((1, 2, 20, 3, 200))
    place = (0, 1) if which in (3, 4) else (0, 25)
    arrays[which][(*place, *([1] if which in (3, 4) else []), 150)] = bad
    with np.errstate(all="ignore"):
        y, expected = selective_scan(*arrays), exact(arrays)
    assert np.array_equal(np.isfinite(y), np.isfinite(expected))
    assert not np.isfinite(y).all()
    assert np.isfinite(y[:, :20]).all()


def test_a_fading_state_ends_at_zero() -> None:
    """And not among numbers that are too small for a processor's fast path."""
    arrays = case((1, 1, 16, 2, 5000), step=0.2)
    arrays[0][:, :, 1:] = 0
    arrays[2] = -np.random.default_rng(5).uniform(0.1, 0.3, (16, 2)).astype(np.float32)
    y = selective_scan(*arrays)
    assert not y[:, :, -1].any()
    assert np.all((y == 0) | (np.abs(y) > 1e-36))


def test_a_growing_state_grows() -> None:
    arrays = case((1, 1, 4, 2, 40))
    arrays[2] = np.abs(arrays[2])
    assert worst(selective_scan(*arrays), exact(arrays)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: (1, 4, 9)}, "delta is"),
        ({2: (3, 2)}, "a is"),
        ({3: (1, 2, 3, 10)}, "b is"),
        ({4: (1, 1, 2, 10)}, "c is"),
        ({5: (3,)}, "d is"),
        ({6: (1,)}, "delta_bias is"),
        ({3: (1, 3, 2, 10), 4: (1, 3, 2, 10)}, "4 channels cannot be shared among 3 groups"),
    ],
)
def test_shapes_that_do_not_fit(change: dict[int, tuple[int, ...]], message: str) -> None:
    arrays = case((1, 2, 2, 2, 10))
    for which, shape in change.items():
        arrays[which] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=message):
        selective_scan(*arrays)


def test_an_output_that_does_not_fit() -> None:
    arrays = case((1, 2, 2, 2, 10))
    with pytest.raises(ValueError, match="out is float64"):
        selective_scan(*arrays, out=np.zeros(arrays[0].shape))


@pytest.mark.parametrize("empty", [(0, 1, 4, 2, 10), (1, 1, 4, 2, 0)])
def test_nothing_gives_nothing(empty: tuple[int, ...]) -> None:
    arrays = case(empty)
    assert selective_scan(*arrays).shape == arrays[0].shape
