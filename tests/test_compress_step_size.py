"""Learned steps, and what passes a grid unquantized while they learn."""

from __future__ import annotations

import pytest
import torch

from edgeperc.offline.compress.quantizers.log_sqrt2 import LogSqrt2
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.solve.step_size import LearnedStep, dropped, slowed


def stand_in(drop: float = 0.0) -> tuple[LearnedStep, torch.Tensor]:
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    grid = Uniform(4, symmetric=False, search="minmax")
    grid.fit(x)
    grid.enabled = True
    return LearnedStep(grid, drop=drop, generator=torch.Generator().manual_seed(0)), x


def test_without_drop_it_is_the_grid() -> None:
    step, x = stand_in()
    torch.testing.assert_close(step(x), step.grid(x))
    step.enabled = False
    assert torch.equal(step(x), x)


def test_drop_passes_its_share_of_values() -> None:
    step, x = stand_in(drop=0.5)
    passed = (step(x) == x).float().mean()
    assert 0.45 < float(passed) < 0.55
    assert not torch.equal(step(x), step(x))
    assert not step.hard


def test_a_step_learns_to_clip_what_costs_less_clipped() -> None:
    step, x = stand_in()
    first = float(((step.grid(x) - x) ** 2).mean())
    optimiser = torch.optim.Adam(step.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        ((step(x) - x) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(step.ratio.detach()) < 1  # min-max limits are too wide for a normal distribution
    grid = step.settled()
    assert grid is step.grid
    assert float(((grid(x) - x) ** 2).mean()) < first
    assert torch.equal(grid(x), grid(x))


def test_the_gradient_of_a_step_is_as_lsq_has_it() -> None:
    step, x = stand_in()
    (grid, x) = (step.grid, x[:1, :8])
    step(x).sum().backward()  # type: ignore[no-untyped-call]
    scale, zero = grid.scale, grid.zero
    scaled = x / scale
    codes = (scaled.round() + zero).clamp(0, 15)
    inside = (scaled.round() + zero == codes).float()
    expected = (inside * (scaled.round() - scaled) + (1 - inside) * (codes - zero)).sum()
    expected = expected * scale / (x.numel() * 15) ** 0.5
    assert float(step.ratio.grad) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


def test_other_grids_keep_their_step_but_drop_too() -> None:
    grid = LogSqrt2(4)
    x = torch.rand(2, 2, 16, 16).softmax(-1)
    grid.fit(x)
    step = LearnedStep(grid, drop=0.5, generator=torch.Generator().manual_seed(0))
    step.enabled = grid.enabled = True
    assert not list(step.parameters())
    assert 0.4 < float((step(x) == x).float().mean()) < 0.65
    assert step.settled() is grid


def test_parts() -> None:
    x = torch.ones(3, requires_grad=True)
    slowed(x, 0.25).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(x.grad, torch.full((3,), 0.25))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(dropped(torch.zeros(9), torch.ones(9), 0.0, generator), torch.zeros(9))
    assert torch.equal(dropped(torch.zeros(9), torch.ones(9), 1.0, generator), torch.ones(9))
