"""The selective scan of a plane in four directions, on the CPU: channels last, nothing permuted.

    y = cross_scan(u, projected, step, a, skip, step_bias, threads=2)

The walks differ only in the order in which pixels are visited, so the kernel visits them in that
order where they lie. Source: SS2D of VMamba, arXiv 2401.10166; the steps are those of
`edgeperc.selective_scan`.
"""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.lanes import LANES, load, spread, store
from edgeperc.selective_scan import LOG2_E, STEPS, advance, find_steps, plain, share

Floats: TypeAlias = NDArray[np.float32]

DIRECTIONS = 4
"""By rows, by columns, and both backwards."""


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
    `edgeperc.selective_scan.selective_scan`. threads: cores that share the channels out.

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
    y = np.zeros(u.shape, np.float32)
    for plane, given, out in zip(u, projected, y, strict=True):
        share(partial(_walk, (plain(plane), plain(given), *tables), out), len(tables[0]), threads)
    return y


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
def _walk(arrays: tuple[Floats, ...], y: Floats, first: int, last: int) -> None:
    """Add all directions to the channels of tiles [first, last) of y, (H, W, D)."""
    u, projected, step, a, skip, step_bias = arrays
    height, width, features = u.shape
    cells, rank, states = height * width, step.shape[2], a.shape[2]
    memory = np.zeros((2, states, LANES), np.float32)
    coming = np.zeros((STEPS, LANES), np.float32)
    going = np.zeros((STEPS, LANES), np.float32)
    steps = np.zeros((STEPS, LANES), np.float32)
    gates = np.zeros((2, STEPS, states), np.float32)
    offsets = np.zeros((2, LANES), np.float32)
    pixels = np.zeros(STEPS, np.int64)
    given = projected.reshape(cells, projected.shape[2])
    for tile in range(first, last):
        lanes = min(LANES, features - tile * LANES)
        for direction in range(DIRECTIONS):
            memory[:] = np.float32(0)
            offsets[0] = skip[tile, direction, 0]
            offsets[1] = step_bias[tile, direction, 0]
            for start in range(0, cells, STEPS):
                now = min(STEPS, cells - start)
                for t in range(now):
                    pixels[t] = pixel_at(start + t, direction, height, width)
                _take(u, pixels, tile * LANES, lanes, now, coming)
                _lift(given, pixels, direction * rank, step[tile, direction], now, steps)
                _gates(given, pixels, direction, rank, now, gates)
                find_steps(steps, offsets, now, True)
                advance(coming, steps, a[tile, direction], gates, offsets, memory, now, going)
                _add(going, pixels, tile * LANES, lanes, now, y)


@kernel()
def pixel_at(i: int, direction: int, height: int, width: int) -> int:
    """The pixel, counted by rows, that a walk visits i-th."""
    if direction >= 2:
        i = height * width - 1 - i
    return i if direction % 2 == 0 else (i % height) * width + i // height


@kernel()
def _take(
    plane: Floats, pixels: NDArray[np.int64], first: int, lanes: int, now: int, target: Floats
) -> None:
    features = plane.shape[2]
    flat = plane.reshape(-1)
    for t in range(now):
        at = pixels[t] * features + first
        if lanes == LANES:
            store(target, t * LANES, load(flat, at))
        else:
            for lane in range(lanes):
                target[t, lane] = flat[at + lane]


@kernel()
def _lift(
    given: Floats, pixels: NDArray[np.int64], first: int, step: Floats, now: int, steps: Floats
) -> None:
    """Steps of a tile from those of rank R. step: (R, LANES)."""
    for t in range(now):
        total = spread(np.float32(0))
        for r in range(step.shape[0]):
            total = total + spread(given[pixels[t], first + r]) * load(step, r * LANES)
        store(steps, t * LANES, total)


@kernel()
def _gates(
    given: Floats, pixels: NDArray[np.int64], direction: int, rank: int, now: int, gates: Floats
) -> None:
    states = gates.shape[2]
    b = DIRECTIONS * rank + direction * states
    c = b + DIRECTIONS * states
    for t in range(now):
        for n in range(states):
            gates[0, t, n] = given[pixels[t], b + n]
            gates[1, t, n] = given[pixels[t], c + n]


@kernel()
def _add(
    source: Floats, pixels: NDArray[np.int64], first: int, lanes: int, now: int, y: Floats
) -> None:
    features = y.shape[2]
    flat = y.reshape(-1)
    for t in range(now):
        at = pixels[t] * features + first
        if lanes == LANES:
            store(flat, at, load(flat, at) + load(source, t * LANES))
        else:
            for lane in range(lanes):
                flat[at + lane] += source[t, lane]
