"""The grid that each channel asks for, and the one that all are moved to."""

import pytest
import torch

from edgeperc.offline.compress.transforms.channel_grids import (
    Grid,
    channel_grids,
    common_grid,
    on_grid,
    scales_alone,
)


def outliers(seed=0, channels=24):
    """Rows behind a norm: three channels a hundred times as large, offsets of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(4000, channels, generator=generator, dtype=torch.float64)
    rows[:, ::8] *= 100
    return rows + torch.randn(channels, generator=generator, dtype=torch.float64)


def error(rows, grid, bits):
    return (on_grid(rows, grid, bits) - rows).square().mean(0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_grid_for_each_channel_serves_each_channel(bits):
    rows = outliers()
    grids = channel_grids(rows, bits)
    assert torch.equal(grids.zero, grids.zero.round())
    steps = 2**bits - 1
    whole = (rows.amax(0) - rows.amin(0)) / steps
    widest = Grid(whole, torch.round(-rows.amin(0) / whole))
    assert (error(rows, grids, bits) <= error(rows, widest, bits)).all()
    # Equal steps over a range err by a twelfth of a step's square; clipped ones by less than that.
    assert (error(rows, grids, bits) < 1.2 * whole**2 / 12).all()
    together = (rows.max() - rows.min()) / steps
    one = Grid(together, torch.round(-rows.min() / together))
    ordinary = torch.arange(24) % 8 != 0
    assert error(rows, grids, bits)[ordinary].mean() < 0.1 * error(rows, one, bits)[ordinary].mean()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("make", [channel_grids, scales_alone])
def test_channels_of_one_value_fit_exactly(bits, make):
    rows = outliers(channels=8)
    rows[:, 1], rows[:, 2], rows[:, 3] = 0.0, 7.25, -1e-3
    given = [rows, bits] if make is channel_grids else [rows, bits, torch.ones(8)]
    grids = make(*given)
    assert grids.scale[1] == 0
    torch.testing.assert_close(on_grid(rows, grids, bits)[:, 1:4], rows[:, 1:4], rtol=1e-12, atol=0)


def test_values_far_to_one_side_of_zero_get_all_codes():
    rows = 1000 + torch.rand(5000, 1, dtype=torch.float64)
    grids = channel_grids(rows, 4)
    assert grids.zero[0] < 0
    assert len(on_grid(rows, grids, 4).unique()) == 16


@pytest.mark.parametrize("bits", range(2, 9))
def test_one_zero_point_for_all_keeps_zero_in_all(bits):
    rows = outliers()
    grids = scales_alone(rows, bits, torch.ones(24))
    assert grids.zero.unique().numel() == 1
    assert not on_grid(torch.zeros_like(rows[:1]), grids, bits).any()
    # No other zero point serves the channels better, by the squares of their scales.
    steps = 2**bits - 1
    best = widths(rows, grids.zero[0], steps)
    others = [widths(rows, zero, steps) for zero in torch.arange(steps + 1)]
    assert best <= min(others) * (1 + 1e-12)


def widths(rows, zero, steps):
    up = rows.amax(0).clamp(min=0) / (steps - zero)
    down = -rows.amin(0).clamp(max=0) / zero
    return torch.maximum(up, down).nan_to_num(torch.inf).square().sum()


def test_the_zero_point_is_for_the_channels_that_are_read():
    rows = torch.rand(500, 2, dtype=torch.float64)
    rows[:, 1] -= 1
    assert scales_alone(rows, 4, torch.tensor([1.0, 0.0])).zero[0] < 4
    assert scales_alone(rows, 4, torch.tensor([0.0, 1.0])).zero[0] > 11


def test_the_common_grid_is_the_middle_of_those_there_are():
    grids = Grid(torch.tensor([0.0, 1.0, 2.0, 6.0]), torch.tensor([90.0, 3.0, 4.0, 4.0])).__class__(
        torch.tensor([0.0, 1.0, 2.0, 6.0], dtype=torch.float64),
        torch.tensor([90.0, 3.0, 4.0, 4.0], dtype=torch.float64),
    )
    assert [float(x) for x in common_grid(grids, 4)] == [3.0, 4.0]
    assert [float(x) for x in common_grid(grids, 4, "median")] == [2.0, 4.0]
    far = Grid(grids.scale, grids.zero - 1000)
    assert float(common_grid(far, 4).zero) == 0
    assert float(common_grid(far._replace(zero=far.zero + 2000), 4).zero) == 15
    nothing = common_grid(Grid(torch.zeros(3), torch.zeros(3)), 4)
    assert [float(x) for x in nothing] == [1.0, 0.0]
