"""Learned rounding: all of a layer's weights end on whole codes, and serve the output better."""

from __future__ import annotations

from itertools import pairwise

import torch

from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.solve.adaround import (
    AdaRound,
    Rounded,
    rounding_cost,
    steepness,
)


def learned(bits: int = 4, *, symmetric: bool = True) -> tuple[AdaRound, torch.Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(6, 20)
    grid = Uniform(bits, symmetric=symmetric, axis=0)
    grid.fit(weight)
    grid.enabled = True
    return AdaRound(grid, weight), weight


@torch.no_grad()
def test_it_begins_with_the_weight_itself_within_the_grid() -> None:
    rounding, weight = learned(8)
    inside = rounding.grid.inside(weight)
    scale, _ = rounding.grid._along(weight)
    away = ((rounding(weight) - weight) / scale).abs()[inside]
    assert float(away.max()) < 0.02  # NEAR keeps h off 0 and 1
    assert 0 < float(rounding.up().min()) < float(rounding.up().max()) < 1


def test_settled_are_whole_codes_next_to_the_weight_and_stay_so() -> None:
    for symmetric in (True, False):
        rounding, weight = learned(3, symmetric=symmetric)
        with torch.no_grad():
            rounding.v.add_(torch.randn_like(rounding.v))
        rounded = rounding.settled()
        assert isinstance(rounded, Rounded)
        codes = rounded.quantize(weight)
        assert torch.equal(codes, codes.round())
        assert float(codes.min()) >= rounded.grid.codes[0]
        assert float(codes.max()) <= rounded.grid.codes[1]
        values = rounded(weight)
        assert rounded.grid.off_grid(values) < 1e-4
        scale, _ = rounded.grid._along(weight)
        inside = rounded.grid.inside(weight)
        assert float(((values - weight) / scale).abs()[inside].max()) <= 1 + 1e-4
        assert not torch.equal(values, rounded.grid(weight))  # not what the nearest would be
        assert torch.equal(rounded(torch.zeros_like(weight)), values)
        rounded.enabled = False
        assert torch.equal(rounded(weight), weight)


def test_codes_come_back_from_a_state() -> None:
    rounding, weight = learned()
    rounded = rounding.settled()
    rounded.enabled = True
    other = Rounded(Uniform(4, symmetric=True, axis=0), torch.zeros(6, 20))
    other.load_state_dict(rounded.state_dict())
    other.enabled = True
    assert torch.equal(other(weight), rounded(weight))


def test_the_cost_drives_every_h_to_an_end() -> None:
    rounding, _ = learned()
    assert rounding.decided() < 0.2
    optimiser = torch.optim.Adam([rounding.v], lr=0.1)
    for _ in range(120):
        optimiser.zero_grad()
        rounding_cost(rounding.up(), 2.0).backward()
        optimiser.step()
    assert rounding.decided() > 0.95
    assert float(rounding_cost(rounding.up().detach(), 2.0)) < 0.05 * rounding.v.numel()


def test_the_cost_waits_then_its_exponent_falls() -> None:
    assert steepness(19, 100) is None
    exponents = [steepness(step, 100) for step in range(20, 100)]
    assert exponents[0] == 20
    assert all(a > b for a, b in pairwise(exponents))  # type: ignore[operator]
    assert 2 <= exponents[-1] < 2.5  # type: ignore[operator]
    h = torch.tensor([0.0, 0.5, 1.0])
    assert float(rounding_cost(h, 20.0)) == 1.0


def test_rounding_for_the_output_beats_rounding_to_the_nearest() -> None:
    rounding, weight = learned(3)
    x = torch.randn(256, 4) @ torch.randn(4, 20)  # correlated inputs: errors can cancel
    wanted = x @ weight.T
    nearest = float(((x @ rounding.grid(weight).T - wanted) ** 2).mean())
    optimiser = torch.optim.Adam([rounding.v], lr=0.03)
    for step in range(300):
        optimiser.zero_grad()
        loss = ((x @ rounding(weight).T - wanted) ** 2).mean() / nearest
        exponent = steepness(step, 300)
        if exponent is not None:
            loss = loss + 10 * rounding_cost(rounding.up(), exponent) / weight.numel()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(((x @ rounding.settled()(weight).T - wanted) ** 2).mean()) < 0.5 * nearest
