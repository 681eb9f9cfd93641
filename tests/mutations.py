"""Damage done by chance: what parsers must survive. `for data in mutations(seeds): parse(data)`.

EDGEPERC_FUZZ_S=600 goes on for so many seconds of processor time (`make fuzz`) and then prints how
many tries there were; without it a test makes a few hundred, the same each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

TRIES = 300
BORDERS = (0, 1, 0x7F, 0x80, 0xFF)
MAX_BYTES = 1 << 16


def mutations(seeds: Sequence[bytes], *, words: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Pieces of `seeds` cut, doubled, moved and overwritten. words: that mean something there."""
    for rng in tries(TRIES):
        yield damaged(seeds[int(rng.integers(len(seeds)))], rng, seeds, words)


def tries(count: int) -> Iterator[np.random.Generator]:
    """Dice, `count` times, or for as long as EDGEPERC_FUZZ_S says."""
    seconds = float(os.environ.get("EDGEPERC_FUZZ_S", "0"))
    rng = np.random.default_rng(time.time_ns() if seconds else 0)
    done, began_s = 0, time.process_time()
    while done < count or time.process_time() < began_s + seconds:
        yield rng
        done += 1
    if seconds:
        name = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        print(f"{name}: {done:,} tries in {time.process_time() - began_s:.0f} s")


def damaged(
    whole: bytes, rng: np.random.Generator, seeds: Sequence[bytes] = (), words: Sequence[bytes] = ()
) -> bytes:
    """A copy of `whole` with one to five changes."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 6))):
        _damage(data, rng, seeds or (whole,), words)
    return bytes(data[:MAX_BYTES])


def _damage(
    data: bytearray, rng: np.random.Generator, seeds: Sequence[bytes], words: Sequence[bytes]
) -> None:
    """One change in place."""
    at = int(rng.integers(len(data) + 1))
    length = int(rng.integers(1, 17))
    how = int(rng.integers(8 if words else 7))
    if how == 0:
        del data[at : at + length]
    elif how == 1:
        data[at:at] = data[at : at + length]
    elif how == 2:
        data[at:at] = rng.bytes(length)
    elif how == 3:
        del data[at:]
    elif how == 4 and data:
        at = min(at, len(data) - 1)
        data[at] ^= 1 << int(rng.integers(8))
    elif how == 5 and data:
        data[min(at, len(data) - 1)] = BORDERS[int(rng.integers(len(BORDERS)))]
    elif how == 6:
        other = seeds[int(rng.integers(len(seeds)))]
        start = int(rng.integers(len(other) + 1))
        data[at : at + length] = other[start : start + int(rng.integers(1, 65))]
    elif words:
        data[at : at + length] = words[int(rng.integers(len(words)))]
