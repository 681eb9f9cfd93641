"""Our LIF against spikingjelly's LIFNode: `make setup-peers` installs it, absent it is skipped."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc.offline.nets.lif import LIF, sigmoid_surrogate

neuron = pytest.importorskip(
    "spikingjelly.activation_based.neuron", reason="spikingjelly is absent: make setup-peers"
)
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

STEPS = 12


def peers(
    tau: float, threshold: float, reset: float, decay_input: bool, detach_reset: bool
) -> tuple[LIF, torch.nn.Module]:
    ours = LIF(
        time_steps=STEPS,
        decay=1 - 1 / tau,
        gain=1 / tau if decay_input else 1.0,
        threshold=threshold,
        reset=reset,
        inclusive=True,
        detach_reset=detach_reset,
        surrogate=sigmoid_surrogate,
    )
    theirs = neuron.LIFNode(
        tau=tau,
        decay_input=decay_input,
        v_threshold=threshold,
        v_reset=reset,
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
        detach_reset=detach_reset,
        step_mode="m",
    )
    return ours, theirs


@settings(max_examples=60, deadline=None)
@given(
    tau=st.floats(1.25, 20),
    threshold=st.floats(0.2, 2),
    reset=st.floats(-0.5, 0.1),
    decay_input=st.booleans(),
    detach_reset=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_spikes_and_gradients_are_spikingjellys(
    tau: float, threshold: float, reset: float, decay_input: bool, detach_reset: bool, seed: int
) -> None:
    torch.set_num_threads(1)
    ours, theirs = peers(tau, threshold, reset, decay_input, detach_reset)
    generator = torch.Generator().manual_seed(seed)
    shape = (STEPS, 3, 2, 4, 5)
    # Strong enough to fire at every tau; float64, so that rounding cannot flip a spike.
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = (x + 0.7) * (threshold - reset) * (tau if decay_input else 1)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()

    mine = ours(a.flatten(0, 1)).unflatten(0, shape[:2])
    peer = theirs(b)
    assert 0 < peer.mean() < 1
    assert torch.equal(mine, peer)

    (mine * weight).sum().backward()
    (peer * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_a_potential_at_the_threshold_fires_like_spikingjellys() -> None:
    ours, theirs = peers(2.0, 1.0, 0.0, False, False)
    x = torch.full((STEPS, 1), 0.5, dtype=torch.float64)
    x[0] = 1.0
    assert torch.equal(ours(x), theirs(x))
    assert ours(x)[0] == 1
