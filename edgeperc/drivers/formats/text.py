"""Text of one event a line, `t x y p`, as the uzh-rpg data sets have it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import events
from edgeperc.errors import DataError
from edgeperc.packet import Packet

_BLOCK_LINES = 1 << 16


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Packets of a text file. Lines that start with # are comments.

    Times are in seconds if the first one has a decimal point and is below 1e11, else in µs. A
    polarity above 0 is brighter. A first line of two numbers is the sensor's width and height.
    Raises DataError at the first line that is not four numbers.
    """
    with path.open(encoding="ascii", errors="replace") as file:
        numbered: Iterator[tuple[int, str]]
        numbered = ((n, line) for n, line in enumerate(file, 1) if line[0] not in "#\r\n")
        first = next(numbered, None)
        in_file = None
        if first is not None and len(first[1].split()) == 2:
            in_file, first = _size(*first), next(numbered, None)
        if first is None:
            return
        size_px = options.sensor_px(in_file, usual=(240, 180))
        scale = _us_per_unit(first[1].split()[0])
        numbered = itertools.chain([first], numbered)
        while block := list(itertools.islice(numbered, _BLOCK_LINES)):
            table, bad = _parse(block)
            yield events(
                np.rint(table[:, 0] * scale).astype(np.int64),
                table[:, 1],
                table[:, 2],
                table[:, 3] > 0,
                size_px,
            )
            if bad:
                raise DataError(f"line {bad[0]:,} is not 't x y p': {bad[1].strip()[:60]!r}")


def _parse(block: list[tuple[int, str]]) -> tuple[NDArray[Any], tuple[int, str] | None]:
    """(N, 4) float64 up to the first line that does not parse, and that line."""
    try:
        return _table([line for _, line in block]), None
    except ValueError:
        good = next(n for n, (_, line) in enumerate(block) if not _is_event(line))
        return _table([line for _, line in block[:good]]), block[good]


def _table(lines: list[str]) -> NDArray[Any]:
    if not lines:
        return np.zeros((0, 4))
    return np.loadtxt(lines, ndmin=2, usecols=(0, 1, 2, 3), comments=None)


def _is_event(line: str) -> bool:
    try:
        _table([line])
    except ValueError:
        return False
    return True


def _us_per_unit(time: str) -> float:
    try:
        return 1e6 if "." in time and float(time) < 1e11 else 1.0
    except ValueError:
        return 1.0  # the table's parser will say which line this is


def _size(number: int, line: str) -> tuple[int, int]:
    try:
        width_px, height_px = (int(word) for word in line.split())
    except ValueError:
        raise DataError(f"line {number} is not 't x y p': {line.strip()[:60]!r}") from None
    return width_px, height_px
