"""The way back through a selective scan: `edgeperc.scan.selective`, by hand, for training.

With x = step * a, one step is h' = exp(x) h + step * b * u and y = sum of c h'. Going back in time
with g, the gradient of a state: g += c * gy gives those of b, c, u and step, and that of x is
g * exp(x) * h; then g *= exp(x). States are not kept on the way there. They are found again, first
those at every STEPS-th step, then, from each, those in between.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.scan.lanes import LANES, load, spread, store, total
from edgeperc.scan.selective import (
    LOG2_E,
    STEPS,
    advance,
    find_steps,
    give,
    plain,
    power,
    share,
    take,
    take_gates,
)

Floats: TypeAlias = NDArray[np.float32]


def scan_gradient(
    arrays: tuple[Floats, ...], grad_y: Floats, *, softplus: bool, threads: int = 1
) -> tuple[Floats, ...]:
    """Gradients of u, delta, a, b, c, d and delta_bias, in their shapes.

    arrays: those seven, as in `selective_scan`. grad_y: (batch, channels, L) float32. Groups and
    batch items are shared out among threads; results do not depend on how many there are.
    """
    u, delta, a, b, c, _, _ = arrays
    batch, channels, _ = u.shape
    grads = (
        np.empty(u.shape, np.float32),
        np.empty(delta.shape, np.float32),
        np.empty((batch, *a.shape), np.float32),
        np.zeros(b.shape, np.float32),
        np.zeros(c.shape, np.float32),
        np.empty((batch, channels), np.float32),
        np.empty((batch, channels), np.float32),
    )
    given = (*(plain(each) for each in arrays), plain(grad_y))
    share(
        lambda first, last: _backward(given, softplus, (first, last), grads),
        batch * b.shape[1],
        threads,
    )
    grad_u, grad_delta, grad_a, grad_b, grad_c, grad_d, grad_bias = grads
    return (
        grad_u,
        grad_delta,
        grad_a.sum(axis=0),
        grad_b,
        grad_c,
        grad_d.sum(axis=0),
        grad_bias.sum(axis=0),
    )


@kernel()
def _backward(
    given: tuple[Floats, ...],
    softplus: bool,
    items: tuple[int, int],
    grads: tuple[Floats, ...],
) -> None:
    """Groups [first, last) of all batch items."""
    u, delta, a, b, c, d, delta_bias, grad_y = given
    grad_u, grad_delta, grad_a, grad_b, grad_c, grad_d, grad_bias = grads
    states, each, length = a.shape[1], u.shape[1] // b.shape[1], u.shape[2]
    block = np.zeros((5, STEPS, LANES), np.float32)
    coming, steps, arriving, out, out_steps = block[0], block[1], block[2], block[3], block[4]
    gates = np.zeros((2, STEPS, states), np.float32)
    gate_grads = np.zeros((2, STEPS, states), np.float32)
    skip = np.zeros((2, LANES), np.float32)
    pace = np.zeros((states, LANES), np.float32)
    pace_grad = np.zeros((states, LANES), np.float32)
    flow = np.zeros((states, LANES), np.float32)
    sums = np.zeros((2, LANES), np.float32)
    memory = np.zeros((2, states, LANES), np.float32)
    begins = np.zeros((-(-length // STEPS), states, LANES), np.float32)
    past = np.zeros((STEPS + 1, states, LANES), np.float32)
    fades = np.zeros((STEPS, states, LANES), np.float32)
    for index in range(items[0], items[1]):
        item, group = divmod(index, b.shape[1])
        for first in range(group * each, (group + 1) * each, LANES):
            lanes = min(LANES, (group + 1) * each - first)
            place = (item, first, lanes)
            for scratch in (skip, pace, sums, pace_grad, flow):
                scratch[:] = np.float32(0)
            memory[:] = np.float32(0)
            block[:] = np.float32(0)  # lanes without a channel add nothing to sums over lanes
            for lane in range(lanes):
                skip[0, lane], skip[1, lane] = d[first + lane], delta_bias[first + lane]
                for n in range(states):
                    pace[n, lane] = a[first + lane, n] * LOG2_E
            for start in range(0, length, STEPS):
                now = min(STEPS, length - start)
                begins[start // STEPS] = memory[0]
                _enter((u, delta, b), (*place, group), (start, now), block, gates, skip, softplus)
                advance(coming, steps, pace, gates, skip, memory, now, out)
            for k in range(begins.shape[0] - 1, -1, -1):
                start = k * STEPS
                now = min(STEPS, length - start)
                _enter((u, delta, b), (*place, group), (start, now), block, gates, skip, softplus)
                take(grad_y, place, start, now, arriving)
                take_gates(c, (item, group), start, now, gates[1])
                past[0] = begins[k]
                _replay(coming, steps, pace, gates[0], now, past, fades)
                _go_back(block, pace, gates, skip, now, past, fades, flow, pace_grad, gate_grads)
                _through_steps(block, sums, now, softplus)
                give(out, place, start, now, grad_u)
                give(out_steps, place, start, now, grad_delta)
                for n in range(states):
                    for t in range(now):
                        grad_b[item, group, n, start + t] += gate_grads[0, t, n]
                        grad_c[item, group, n, start + t] += gate_grads[1, t, n]
            for lane in range(lanes):
                grad_d[item, first + lane] = sums[0, lane]
                grad_bias[item, first + lane] = sums[1, lane]
                for n in range(states):
                    grad_a[item, first + lane, n] = pace_grad[n, lane]


@kernel()
def _enter(
    source: tuple[Floats, Floats, Floats],
    place: tuple[int, int, int, int],
    span: tuple[int, int],
    block: Floats,
    gates: Floats,
    skip: Floats,
    softplus: bool,
) -> None:
    """Bring u, delta and b of some steps into the cache, delta as step sizes.

    source: those. place: item, first channel, channels, group. span: first step, steps.
    """
    u, delta, b = source
    item, first, lanes, group = place
    start, now = span
    take(u, (item, first, lanes), start, now, block[0])
    take(delta, (item, first, lanes), start, now, block[1])
    take_gates(b, (item, group), start, now, gates[0])
    find_steps(block[1], skip, now, softplus)


@kernel()
def _replay(
    coming: Floats,
    steps: Floats,
    pace: Floats,
    gate_in: Floats,
    now: int,
    past: Floats,
    fades: Floats,
) -> None:
    """Fill past[1 : now + 1] with the states after each step, and fades with what they kept."""
    width = pace.size
    for t in range(now):
        size = load(steps, t * LANES)
        value = size * load(coming, t * LANES)
        for n in range(pace.shape[0]):
            at = n * LANES
            scale, rest = power(size * load(pace, at))
            old = load(past, t * width + at)
            new = scale * old + (rest * old + value * spread(gate_in[t, n]))
            store(past, (t + 1) * width + at, new)
            store(fades, t * width + at, scale + rest)


@kernel()
def _go_back(
    block: Floats,
    pace: Floats,
    gates: Floats,
    skip: Floats,
    now: int,
    past: Floats,
    fades: Floats,
    flow: Floats,
    pace_grad: Floats,
    gate_grads: Floats,
) -> None:
    """From the last step to the first: gradients of u, of the step sizes, of gates and of pace.

    block: u, step sizes and the gradient of y; that of u and of the step sizes go to its last two.
    flow: (N, LANES), the gradient of the state after the last step, in and out.
    """
    width, tall = pace.size, STEPS * LANES
    natural = spread(np.float32(1) / LOG2_E)
    for t in range(now - 1, -1, -1):
        u, size = load(block, t * LANES), load(block, tall + t * LANES)
        arriving = load(block, 2 * tall + t * LANES)
        value = size * u
        from_value = from_pace = spread(np.float32(0))
        for n in range(pace.shape[0]):
            at = n * LANES
            g = load(flow, at) + spread(gates[1, t, n]) * arriving
            gate_grads[1, t, n] = total(arriving * load(past, (t + 1) * width + at))
            gate_grads[0, t, n] = total(g * value)
            from_value = from_value + g * spread(gates[0, t, n])
            faded = g * load(fades, t * width + at)
            store(flow, at, faded)
            of_exponent = faded * load(past, t * width + at)
            from_pace = from_pace + of_exponent * load(pace, at)
            store(pace_grad, at, load(pace_grad, at) + of_exponent * size)
        store(block, 3 * tall + t * LANES, load(skip, 0) * arriving + from_value * size)
        store(block, 4 * tall + t * LANES, from_pace * natural + from_value * u)


@kernel()
def _through_steps(block: Floats, sums: Floats, now: int, softplus: bool) -> None:
    """Turn gradients of step sizes into those of delta, and add up those of d and the bias."""
    tall = STEPS * LANES
    for at in range(0, now * LANES, LANES):
        grad = load(block, 4 * tall + at)
        if softplus:  # whose slope is 1 - exp(-softplus)
            scale, rest = power(load(block, tall + at) * spread(-LOG2_E))
            grad = grad * (spread(np.float32(1)) - scale - rest)
            store(block, 4 * tall + at, grad)
        store(sums, 0, load(sums, 0) + load(block, 2 * tall + at) * load(block, at))
        store(sums, LANES, load(sums, LANES) + grad)
