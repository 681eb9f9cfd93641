"""Streams say what numpy says of the whole array."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc.offline.compress.calibrate.stats import InnerProducts, Percentiles, Some, Spread

cuts = settings(max_examples=40, deadline=None)


def pieces(seed: int, cut: int) -> tuple[np.ndarray, list[torch.Tensor]]:
    whole = np.random.default_rng(seed).normal(size=(64, 5)).astype(np.float32) ** 3
    return whole, list(torch.from_numpy(whole).split(cut))


@cuts
@given(st.integers(0, 99), st.integers(1, 64))
def test_spread(seed: int, cut: int) -> None:
    whole, parts = pieces(seed, cut)
    for axis, expected in ((None, (whole.min(), whole.max())), (1, (whole.min(0), whole.max(0)))):
        spread = Spread(axis)
        for part in parts:
            spread.add(part)
        assert spread.low is not None
        assert spread.high is not None
        np.testing.assert_array_equal(spread.low.numpy().squeeze(), expected[0])
        np.testing.assert_array_equal(spread.high.numpy().squeeze(), expected[1])


@cuts
@given(st.integers(0, 99), st.integers(1, 64))
def test_inner_products(seed: int, cut: int) -> None:
    whole, parts = pieces(seed, cut)
    inner = InnerProducts(5)
    for part in parts:
        inner.add(part[None])
    x = whole.astype(np.float64)
    np.testing.assert_allclose(inner.mean().numpy(), x.T @ x / len(x), rtol=1e-12)


@cuts
@given(st.integers(0, 99), st.integers(1, 64))
def test_percentiles(seed: int, cut: int) -> None:
    whole, parts = pieces(seed, cut)
    counted = Percentiles(float(whole.min()), float(whole.max()))
    for part in parts:
        counted.add(part)
    shares = [0.0, 0.25, 0.5, 0.99, 1.0]
    found = counted.at(shares)
    width = float(whole.max() - whole.min())
    # One place of the sorted values, and one count of the range.
    ordered = np.sort(whole.ravel())
    for share, value in zip(shares, found, strict=True):
        place = share * (whole.size - 1)
        low, high = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        assert low - width / 2**15 <= value <= high + width / 2**15
    assert (found[0], found[-1]) == (float(whole.min()), float(whole.max()))


@cuts
@given(st.integers(0, 99), st.integers(1, 64), st.sampled_from([None, 1]))
def test_all_values_are_kept_where_there_is_room(seed: int, cut: int, axis: int | None) -> None:
    whole, parts = pieces(seed, cut)
    some = Some(1000, pieces=1, axis=axis)
    for part in parts:
        some.add(part)
    kept = some.values().numpy()
    rows = whole.ravel()[None] if axis is None else whole.T
    for row, expected in zip(np.atleast_2d(kept), rows, strict=True):
        assert set(row.tolist()) == set(expected.tolist())


@pytest.mark.parametrize("axis", [None, 0])
def test_some_are_few_spread_over_all_pieces_with_the_extremes(axis: int | None) -> None:
    some = Some(400, pieces=4, axis=axis)
    for number in range(4):
        part = torch.full((3, 5000), float(number)) + torch.rand(3, 5000) / 2
        part[:, 77] += 50 if number == 2 else 0
        some.add(part)
    kept = some.values()
    assert kept.shape[-1] <= 402
    assert float(kept.max()) > 50
    for row in kept if axis == 0 else kept[None]:
        counts = torch.bincount(row[row < 10].long(), minlength=4)
        assert int(counts.min()) > 50
    more = Some(400, pieces=1)
    for number in range(9):
        more.add(torch.full((5000,), float(number)))
    assert len(more.values()) <= 402
    assert len(torch.unique(more.values())) > 3


def test_nothing_seen_is_nothing() -> None:
    assert Some(9, pieces=3).values().numel() == 0
    assert float(InnerProducts(2).mean().abs().sum()) == 0
