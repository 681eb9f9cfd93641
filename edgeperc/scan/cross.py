"""The selective scan of a plane in four directions, on the CPU: channels last, nothing permuted.

    y = cross_scan(u, projected, step, a, skip, step_bias, threads=2)

The walks differ only in the order in which pixels are visited, so the kernel visits them in that
order where they lie. Source: SS2D of VMamba, arXiv 2401.10166; the steps are those of
`edgeperc.scan.selective`.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.scan.lanes import LANES, load, spread, store, zero_below
from edgeperc.scan.selective import LOG2_E, NOTHING, STEPS, advance, find_steps, plain, power, share

Floats: TypeAlias = NDArray[np.float32]

DIRECTIONS = 4
"""By rows, by columns, and both backwards."""
FORGOTTEN = np.float32(3e-4)
"""Of a state, in a step on average: from here on, plain float32 keeps it to 1e-5 of itself."""


def cross_scan(
    u: Floats,
    projected: Floats,
    step: Floats,
    a: Floats,
    skip: Floats,
    step_bias: Floats,
    *,
    threads: int = 1,
) -> Floats:
    """Walk a plane in four directions and add up what each says of a pixel.

    u: (B, H, W, D). projected: (B, H, W, 4 * (R + 2 * N)), of each pixel the steps of rank R of the
    four directions, then their b, then their c. step: (4, D, R), brings a rank to the channels. a:
    (4 * D, N); skip: (4 * D,); step_bias: (4, D). All float32. Returns (B, H, W, D).

    In each direction, step sizes are softplus(step @ low + step_bias), and y is as in
    `edgeperc.scan.selective.selective_scan`. threads: cores that share the channels out.

    Raises ValueError if shapes do not fit.
    """
    _check(u, projected, step, a, skip, step_bias)
    return walk(u, projected, tables_of(step, a, skip, step_bias), threads=threads)


def tables_of(step: Floats, a: Floats, skip: Floats, step_bias: Floats) -> tuple[Floats, ...]:
    """What the kernel reads of a network's weights; made once, it serves every picture."""
    features = step.shape[1]
    tiles = -(-features // LANES)
    pace = a * LOG2_E  # the kernel's exponentials are powers of two
    return tuple(_of_tiles(each, features, tiles) for each in (step, pace, skip, step_bias))


def walk(u: Floats, projected: Floats, tables: tuple[Floats, ...], *, threads: int) -> Floats:
    """As `cross_scan`, with the tables of `tables_of`; shapes are not checked."""
    y = np.empty(u.shape, np.float32)
    rank, states = tables[0].shape[2], tables[1].shape[2]
    order = walks(u.shape[1], u.shape[2])
    for plane, given, out in zip(u, projected, y, strict=True):
        low, gates = _in_order(plain(given), order, rank, states)
        arrays = plain(plane), low, gates, *tables
        share(partial(_walk, arrays, order, out), len(tables[0]), threads)
    return y


@lru_cache
def walks(height: int, width: int) -> NDArray[np.int64]:
    """(4, H * W) pixels, counted by rows, in the order in which each direction visits them."""
    rows = np.arange(height * width)
    columns = rows.reshape(height, width).T.reshape(-1)
    order = np.stack([rows, columns, rows[::-1], columns[::-1]])
    order.flags.writeable = False
    return order


def _check(
    u: Floats, projected: Floats, step: Floats, a: Floats, skip: Floats, step_bias: Floats
) -> None:
    features, rank, states = u.shape[3], step.shape[-1], a.shape[-1]
    rows = DIRECTIONS * features
    expected = {
        "projected": (projected, (*u.shape[:3], DIRECTIONS * (rank + 2 * states))),
        "step": (step, (DIRECTIONS, features, rank)),
        "a": (a, (rows, states)),
        "skip": (skip, (rows,)),
        "step_bias": (step_bias, (DIRECTIONS, features)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} is {array.shape}, expected {shape} for u {u.shape}")


def _of_tiles(table: Floats, features: int, tiles: int) -> Floats:
    """(4 * D or 4, D, n) to (tiles, 4, n, LANES), zeros where there is no channel."""
    rows = np.zeros((DIRECTIONS, tiles * LANES, table.size // (DIRECTIONS * features)), np.float32)
    rows[:, :features] = table.reshape(DIRECTIONS, features, -1)
    split = rows.reshape(DIRECTIONS, tiles, LANES, -1)
    return plain(split.transpose(1, 0, 3, 2))


@kernel()
def _in_order(
    given: Floats, order: NDArray[np.int64], rank: int, states: int
) -> tuple[Floats, Floats]:
    """What was projected, in the order of each walk, so that every tile reads it line by line.

    given: (H, W, 4 * (R + 2 * N)). Returns steps of rank R, (4, H * W, R), and b and c of STEPS
    pixels at a time, (4, n, 2, STEPS, N).
    """
    height, width, channels = given.shape
    cells = height * width
    low = np.empty((DIRECTIONS, cells, rank), np.float32)
    gates = np.empty((DIRECTIONS, -(-cells // STEPS), 2, STEPS, states), np.float32)
    flat = given.reshape(cells, channels)
    for direction in range(DIRECTIONS):
        b = DIRECTIONS * rank + direction * states
        c = b + DIRECTIONS * states
        for i in range(cells):
            row = flat[order[direction, i]]
            for r in range(rank):
                low[direction, i, r] = row[direction * rank + r]
            block, t = divmod(i, STEPS)
            for n in range(states):
                gates[direction, block, 0, t, n] = row[b + n]
                gates[direction, block, 1, t, n] = row[c + n]
    return low, gates


@kernel()
def _walk(
    arrays: tuple[Floats, ...], order: NDArray[np.int64], y: Floats, first: int, last: int
) -> None:
    """Fill the channels of tiles [first, last) of y, (H, W, D), with the sum of all directions.

    A tile is copied to where its pixels lie together: there is room for it in the cache.
    """
    u, low, gates, step, a, skip, step_bias = arrays
    height, width, features = u.shape
    cells = height * width
    memory = np.zeros((2, a.shape[2], LANES), np.float32)
    coming = np.zeros((STEPS, LANES), np.float32)
    going = np.zeros((STEPS, LANES), np.float32)
    steps = np.zeros((STEPS, LANES), np.float32)
    offsets = np.zeros((2, LANES), np.float32)
    plane = np.zeros((cells, LANES), np.float32)
    total = np.zeros((cells, LANES), np.float32)
    for tile in range(first, last):
        lanes = min(LANES, features - tile * LANES)
        _take(u, tile * LANES, lanes, plane)
        total[:] = np.float32(0)
        for direction in range(DIRECTIONS):
            memory[:] = np.float32(0)
            offsets[0] = skip[tile, direction, 0]
            offsets[1] = step_bias[tile, direction, 0]
            pace = a[tile, direction]
            for start in range(0, cells, STEPS):
                now = min(STEPS, cells - start)
                here = gates[direction, start // STEPS]
                for t in range(now):
                    store(coming, t * LANES, load(plane, order[direction, start + t] * LANES))
                _lift(low[direction], start, step[tile, direction], now, steps)
                find_steps(steps, offsets, now, True)
                if forgets(steps, pace, lanes, now):
                    _advance(coming, steps, pace, here, offsets, memory, now, going)
                else:
                    advance(coming, steps, pace, here, offsets, memory, now, going)
                for t in range(now):
                    at = order[direction, start + t] * LANES
                    store(total, at, load(total, at) + load(going, t * LANES))
        _give(total, tile * LANES, lanes, y)


@kernel()
def forgets(steps: Floats, pace: Floats, lanes: int, now: int) -> bool:
    """Whether each state loses enough in these steps that its rounding errors are lost, too.

    steps: (STEPS, LANES); pace: (N, LANES), a in powers of two.
    """
    total = spread(np.float32(0))
    for t in range(now):
        total = total + load(steps, t * LANES)
    sums = np.empty(LANES, np.float32)
    store(sums, 0, total)
    least = np.float32(FORGOTTEN * LOG2_E) * np.float32(now)
    for n in range(pace.shape[0]):
        for lane in range(lanes):
            if not -pace[n, lane] * sums[lane] >= least:
                return False
    return True


@kernel()
def _advance(
    coming: Floats,
    steps: Floats,
    pace: Floats,
    gates: Floats,
    skip: Floats,
    memory: Floats,
    now: int,
    going: Floats,
) -> None:
    """As `edgeperc.scan.selective.advance`, without the memory of what rounding took."""
    states = pace.shape[0]
    for t in range(now):
        size = load(steps, t * LANES)
        value = load(coming, t * LANES)
        given = load(skip, 0) * value
        value = value * size
        for n in range(states):
            scale, rest = power(size * load(pace, n * LANES))
            state = (scale + rest) * load(memory, n * LANES) + value * spread(gates[0, t, n])
            store(memory, n * LANES, state)
            given = given + spread(gates[1, t, n]) * state
        store(going, t * LANES, given)
    for at in range(0, states * LANES, LANES):
        state = load(memory, at)
        store(memory, at, zero_below(state, state, NOTHING))
        store(memory, states * LANES + at, spread(np.float32(0)))


@kernel()
def _lift(low: Floats, start: int, step: Floats, now: int, steps: Floats) -> None:
    """Steps of a tile from those of rank R. low: (cells, R) in order; step: (R, LANES)."""
    for t in range(now):
        total = spread(np.float32(0))
        for r in range(step.shape[0]):
            total = total + spread(low[start + t, r]) * load(step, r * LANES)
        store(steps, t * LANES, total)


@kernel()
def _take(source: Floats, first: int, lanes: int, target: Floats) -> None:
    """Copy channels of (H, W, D) to (cells, LANES)."""
    features = source.shape[2]
    flat = source.reshape(-1)
    for pixel in range(target.shape[0]):
        at = pixel * features + first
        if lanes == LANES:
            store(target, pixel * LANES, load(flat, at))
        else:
            for lane in range(lanes):
                target[pixel, lane] = flat[at + lane]


@kernel()
def _give(source: Floats, first: int, lanes: int, target: Floats) -> None:
    """Undo `_take`."""
    features = target.shape[2]
    flat = target.reshape(-1)
    for pixel in range(source.shape[0]):
        at = pixel * features + first
        if lanes == LANES:
            store(flat, at, load(source, pixel * LANES))
        else:
            for lane in range(lanes):
                flat[at + lane] = source[pixel, lane]
