"""Prophesee's EVT3: a stream of 16-bit words that set a time, a row or a base, or are events.

Source: the EVT 3.0 page of docs.prophesee.ai. Why not a library: faery 0.7.1 holds a time that goes
back at its last value without a word (on damaged files, and by up to 11 µs on a sound one), leaves
out the whole block around a bad word, and reads files only, not the payload of ROS messages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats.packets import Columns
from edgeperc.jit import kernel

_ADDR_Y, _ADDR_X, _VECT_BASE_X, _VECT_12, _VECT_8, _TIME_LOW, _TIME_HIGH = 0, 2, 3, 4, 5, 6, 8
_HIGH, _TIME, _ROW, _BASE_X, _BASE_ON = range(5)
_UNKNOWN = -1


class Evt3:
    """Decodes EVT3 words, any number at a time. Times are unwrapped over their 24 bits (16.8 s)."""

    dtype = np.dtype("<u2")

    def __init__(self) -> None:
        self._state = np.array([_UNKNOWN, _UNKNOWN, _UNKNOWN, 0, 0], np.int64)

    def lost(self) -> None:
        """Words are missing here: leave out events until time and row are known again."""
        self._state[[_TIME, _ROW]] = _UNKNOWN

    def decode(self, words: NDArray[Any]) -> Columns:
        """Events of the next words, (N,) uint16; those before a first time and row are left out."""
        words = words.view()
        words.flags.writeable = False  # the kernel is compiled for each kind of array
        kind = words >> 12
        room = sum(
            most * np.count_nonzero(kind == one)
            for one, most in ((_ADDR_X, 1), (_VECT_12, 12), (_VECT_8, 8))
        )
        t, p = np.empty(room, np.int64), np.empty(room, np.bool_)
        x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
        count = _decode(words, self._state, t, x, y, p)
        return Columns(t[:count], x[:count], y[:count], p[:count])


@kernel()
def _decode(
    words: NDArray[np.uint16],
    state: NDArray[np.int64],
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.bool_],
) -> int:
    """Write the events of the words, update the state, return how many events there are.

    A new high part of the time starts with low part 0, as in Prophesee's own decoder. A high part
    that falls by over half its range has wrapped; a smaller fall stands, for the validator to see.
    """
    high, time_us, row, base_x, base_on = state
    count = 0
    for word in words:
        kind = word >> 12
        value = np.int64(word & 0xFFF)
        if kind == _ADDR_X:
            if time_us >= 0 and row >= 0:
                t[count], x[count], y[count], p[count] = time_us, value & 0x7FF, row, value >> 11
                count += 1
        elif kind == _ADDR_Y:
            row = value & 0x7FF
        elif kind == _TIME_LOW:
            if high >= 0:
                time_us = (high << 12) | value
        elif kind == _TIME_HIGH:
            wraps = 0 if high < 0 else (high >> 12) + ((high & 0xFFF) - value > 0x800)
            if high != (wraps << 12) | value:
                high = (wraps << 12) | value
                time_us = high << 12
        elif kind == _VECT_BASE_X:
            base_x, base_on = value & 0x7FF, value >> 11
        elif kind in (_VECT_12, _VECT_8):
            width = 12 if kind == _VECT_12 else 8
            for bit in range(width):
                if value >> bit & 1 and time_us >= 0 and row >= 0:
                    t[count], x[count], y[count], p[count] = time_us, base_x + bit, row, base_on
                    count += 1
            base_x = min(base_x + width, 0xFFF)
    state[:] = high, time_us, row, base_x, base_on
    return count
