"""The selective scan of Mamba on the CPU: sixteen channels at a time, in numba.

    y = selective_scan(u, delta, a, b, c, d, delta_bias, softplus=True, threads=2)

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
arXiv 2312.00752, algorithm 2; in groups, one for each direction of a 2-D scan, as in VMamba,
arXiv 2401.10166.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.scan.lanes import (
    LANES,
    load,
    power_of_two,
    spread,
    store,
    transpose,
    within,
    zero_below,
)

Floats: TypeAlias = NDArray[np.float32]

STEPS = 64
"""Time steps that are brought into the cache at a time; a multiple of LANES."""
NOTHING = np.float32(1e-25)
"""A state smaller than this becomes zero, before it is so small that processors slow down."""
LOG2_E = np.float32(1.44269504)
_ROUND = np.float32(1.5 * 2**23)
"""Added to a small number and taken off again, it leaves the nearest whole number."""
_WORTH_WAKING = 100_000
"""States × steps that one thread scans in about 0.1 ms."""


def selective_scan(
    u: Floats,
    delta: Floats,
    a: Floats,
    b: Floats,
    c: Floats,
    d: Floats | None = None,
    delta_bias: Floats | None = None,
    *,
    softplus: bool = False,
    threads: int = 1,
    out: Floats | None = None,
) -> Floats:
    """Scan each channel's sequence with a state of N numbers that forgets at a chosen pace.

        step    = softplus(delta + delta_bias), or without softplus
        state_n = exp(step * a_n) * state_n + step * b_n * u       from zero
        y       = sum over n of c_n * state_n, + d * u

    u, delta: (batch, channels, L). a: (channels, N), not above 0 in a trained network. b, c:
    (batch, groups, N, L), of which channel i reads group i * groups // channels. d, delta_bias:
    (channels,), None is zero. All float32; out: (batch, channels, L) to fill. Returns (batch,
    channels, L).

    threads: cores; channels are shared out among them. Results do not depend on it.

    The state is kept to about twice float32's precision, so that neither 50,000 steps of 1e-8 nor
    one of 1e3 costs more than rounding. A state below 1e-25 counts as zero, and one step multiplies
    a state by e**88 at most. What is infinite or NaN in a channel stays so from that step on.

    Raises ValueError if shapes do not fit.
    """
    batch, channels, length = u.shape
    d = np.zeros(channels, np.float32) if d is None else d
    delta_bias = np.zeros(channels, np.float32) if delta_bias is None else delta_bias
    check_shapes(u, delta, a, b, c, d, delta_bias)
    y = np.empty(u.shape, np.float32) if out is None else out
    if y.shape != u.shape or y.dtype != np.float32 or not y.flags.c_contiguous:
        raise ValueError(f"out is {y.dtype} {y.shape}, expected contiguous float32 {u.shape}")
    arrays = tuple(plain(each) for each in (u, delta, a, b, c, d, delta_bias))
    work = batch * channels * length * a.shape[1]
    share(
        lambda first, last: _scan(arrays, softplus, (first, last), y),
        tiles_of(batch, channels, b.shape[1]),
        threads if work > _WORTH_WAKING else 1,
    )
    return y


def check_shapes(u: Any, delta: Any, a: Any, b: Any, c: Any, d: Any, delta_bias: Any) -> None:
    """Raise ValueError unless these are shapes of one selective scan; see `selective_scan`."""
    batch, channels, length = u.shape
    groups, states = b.shape[1], a.shape[-1]
    expected = {
        "delta": (delta, (batch, channels, length)),
        "a": (a, (channels, states)),
        "b": (b, (batch, groups, states, length)),
        "c": (c, (batch, groups, states, length)),
        "d": (d, (channels,)),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (array, shape) in expected.items():
        if tuple(array.shape) != shape:
            raise ValueError(f"{name} is {tuple(array.shape)}, expected {shape} for u {u.shape}")
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be shared among {groups} groups")


def tiles_of(batch: int, channels: int, groups: int) -> int:
    """Number of tiles: each LANES channels of one group, the last of a group with fewer."""
    return batch * groups * -(-(channels // groups) // LANES)


def share(work: Callable[[int, int], None], parts: int, threads: int) -> None:
    """Call `work(first, last)` on equal ranges of parts, one of them in the calling thread."""
    threads = max(1, min(threads, parts))
    cuts = [parts * i // threads for i in range(threads + 1)]
    own, *others = itertools.pairwise(cuts)
    running = [_pool().submit(work, *cut) for cut in others]
    work(*own)
    for each in running:
        each.result()


@lru_cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="scan")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent


def plain(array: Floats) -> Floats:
    """One layout for the kernel, so that it is compiled once."""
    same: Floats = np.ascontiguousarray(array, np.float32).view()
    same.flags.writeable = False
    return same


@kernel()
def _scan(arrays: tuple[Floats, ...], softplus: bool, tiles: tuple[int, int], y: Floats) -> None:
    """Fill tiles [first, last) of y."""
    u, delta, a, b, c, d, delta_bias = arrays
    states, group_size, length = a.shape[1], u.shape[1] // b.shape[1], u.shape[2]
    tiles_each = -(-group_size // LANES)
    pace = np.zeros((states, LANES), np.float32)
    memory = np.zeros((2, states, LANES), np.float32)
    coming = np.zeros((STEPS, LANES), np.float32)
    going = np.zeros((STEPS, LANES), np.float32)
    steps = np.zeros((STEPS, LANES), np.float32)
    gates = np.zeros((2, STEPS, states), np.float32)
    skip = np.zeros((2, LANES), np.float32)
    for tile in range(tiles[0], tiles[1]):
        item, in_item = divmod(tile, b.shape[1] * tiles_each)
        group, in_group = divmod(in_item, tiles_each)
        first = group * group_size + in_group * LANES
        lanes = min(LANES, (group + 1) * group_size - first)
        memory[:] = np.float32(0)
        for lane in range(lanes):
            skip[0, lane], skip[1, lane] = d[first + lane], delta_bias[first + lane]
            for n in range(states):
                pace[n, lane] = a[first + lane, n] * LOG2_E
        for start in range(0, length, STEPS):
            now = min(STEPS, length - start)
            take(u, (item, first, lanes), start, now, coming)
            take(delta, (item, first, lanes), start, now, steps)
            take_gates(b, (item, group), start, now, gates[0])
            take_gates(c, (item, group), start, now, gates[1])
            find_steps(steps, skip, now, softplus)
            advance(coming, steps, pace, gates, skip, memory, now, going)
            give(going, (item, first, lanes), start, now, y)


@kernel()
def advance(
    coming: Floats,
    steps: Floats,
    pace: Floats,
    gates: Floats,
    skip: Floats,
    memory: Floats,
    now: int,
    going: Floats,
) -> None:
    """Take `now` steps of one tile.

    coming, steps, going: (STEPS, LANES), u, the step size and y. pace: (N, LANES), a. gates: (2,
    STEPS, N), b and c. memory: (2, N, LANES), the state and what it lost to rounding (Kahan).
    """
    states = pace.shape[0]
    lost = states * LANES
    for t in range(now):
        size = load(steps, t * LANES)
        value = load(coming, t * LANES)
        given = load(skip, 0) * value
        value = value * size
        for n in range(states):
            at = n * LANES
            scale, rest = power(size * load(pace, at))
            old = load(memory, at)
            kept = scale * old
            change = value * spread(gates[0, t, n]) + scale * load(memory, lost + at)
            change = rest * old + change
            new = kept + change
            store(memory, at, new)
            store(memory, lost + at, change - (new - kept))
            given = given + spread(gates[1, t, n]) * new
        store(going, t * LANES, given)
    for at in range(0, lost, LANES):
        state = load(memory, at)
        store(memory, at, zero_below(state, state, NOTHING))
        store(memory, lost + at, zero_below(load(memory, lost + at), state, NOTHING))


@kernel()
def power(x: Any) -> Any:
    """2**x = scale + rest, for LANES numbers; scale is a power of two, or 0 from -126.5 down.

    The sum is exact to 2e-7 of itself, and rest alone to 2e-7 of 2**x - 1 where |x| < 0.05: so
    that a state can lose a millionth of itself without rounding it away. Above 127 it is 2**127.
    """
    x = within(x, np.float32(-127), np.float32(127))
    whole = x + spread(_ROUND)
    r = x - (whole - spread(_ROUND))
    scale = power_of_two(whole)
    # Least largest error of 2**r on |r| <= 1/2 with the first factor fixed: 1.1e-7 of 2**r.
    p = spread(np.float32(0.0013299504)) * r + spread(np.float32(0.0096707214))
    p = p * r + spread(np.float32(0.055505663))
    p = p * r + spread(np.float32(0.24022268))
    p = p * r + spread(np.float32(0.69314718))
    return scale, scale * r * p


@kernel()
def find_steps(steps: Floats, skip: Floats, now: int, softplus: bool) -> None:
    """Turn delta into step sizes, in place. skip: (2, LANES), d and the bias of delta."""
    for at in range(0, now * LANES, LANES):
        x = load(steps, at) + load(skip, LANES)
        if softplus:
            above = within(x, np.float32(0), np.float32(np.inf))
            scale, rest = power((x - above - above) * spread(LOG2_E))
            small = scale + rest
            # log(1 + small) = 2 artanh(s); the odd series to s**9 with its factors adjusted, 5e-9.
            s = small / (spread(np.float32(2)) + small)
            z = s * s
            p = spread(np.float32(0.28031274)) * z + spread(np.float32(0.27997864))
            p = p * z + spread(np.float32(0.4002177))
            p = p * z + spread(np.float32(0.66666412))
            x = above + (p * z * s + (s + s))
        store(steps, at, x)


@kernel()
def take(source: Floats, place: tuple[int, int, int], start: int, now: int, target: Floats) -> None:
    """Copy steps [start, start + now) of up to LANES channels to (STEPS, LANES).

    source: (batch, channels, L). place: item, first channel, channels.
    """
    item, first, lanes = place
    length = source.shape[2]
    whole = now - now % LANES if lanes == LANES else 0
    for t in range(0, whole, LANES):
        at = (item * source.shape[1] + first) * length + start + t
        transpose(source, at, length, target, t * LANES, LANES)
    for lane in range(lanes):
        for t in range(whole, now):
            target[t, lane] = source[item, first + lane, start + t]


@kernel()
def give(source: Floats, place: tuple[int, int, int], start: int, now: int, target: Floats) -> None:
    """Undo `take`: from (STEPS, LANES) to (batch, channels, L)."""
    item, first, lanes = place
    length = target.shape[2]
    whole = now - now % LANES if lanes == LANES else 0
    for t in range(0, whole, LANES):
        at = (item * target.shape[1] + first) * length + start + t
        transpose(source, t * LANES, LANES, target, at, length)
    for lane in range(lanes):
        for t in range(whole, now):
            target[item, first + lane, start + t] = source[t, lane]


@kernel()
def take_gates(
    source: Floats, place: tuple[int, int], start: int, now: int, target: Floats
) -> None:
    """Copy steps of (batch, groups, N, L) to (STEPS, N). place: item, group."""
    for n in range(target.shape[1]):
        for t in range(now):
            target[t, n] = source[place[0], place[1], n, start + t]
