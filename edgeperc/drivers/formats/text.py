"""Text of one event a line, `t x y p`, as the uzh-rpg data sets have it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
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
    """Packets of a text file; what follows a # is a comment.

    Times are in seconds if the first one has a decimal point and is below 1e11, else in µs. A
    polarity above 0 is brighter. A first line of two numbers is the sensor's width and height.
    Raises DataError at the first line that is not four numbers.
    """
    with path.open(encoding="ascii", errors="replace") as file:
        number, words = _first_line(file)
        in_file = None
        if len(words) == 2 and all(word.isdigit() for word in words):
            in_file = (int(words[0]), int(words[1]))
        else:
            number, _ = 0, file.seek(0)
        size_px = options.sensor_px(in_file, usual=(240, 180))
        us_per_unit = None
        while lines := list(islice(file, _BLOCK_LINES)):
            us_per_unit = us_per_unit or _us_per_unit(lines)
            table, bad = _parsed(lines)
            yield events(
                np.rint(table[:, 0] * us_per_unit),
                table[:, 1],
                table[:, 2],
                table[:, 3] > 0,
                size_px,
            )
            if bad is not None:
                what = lines[bad].strip()[:60]
                raise DataError(f"line {number + bad + 1:,} is not 't x y p': {what!r}")
            number += len(lines)


def _first_line(file: Any) -> tuple[int, list[str]]:
    """Number and words of the first line that is not empty or a comment."""
    number = 0
    for number, line in enumerate(iter(file.readline, ""), start=1):
        if words := line.partition("#")[0].split():
            return number, words
    return number, []


def _us_per_unit(lines: list[str]) -> float:
    first = next((words for line in lines if (words := line.partition("#")[0].split())), ["0"])
    try:
        return 1e6 if "." in first[0] and float(first[0]) < 1e11 else 1.0
    except ValueError:
        return 1.0  # the table's parser will say which line this is


def _parsed(lines: list[str]) -> tuple[NDArray[Any], int | None]:
    """(N, 4) float64 up to the first line that does not parse, and that line's index."""
    try:
        return _table(lines), None
    except ValueError:
        bad = next(index for index, line in enumerate(lines) if not _is_sound(line))
        return _table(lines[:bad]), bad


def _table(lines: list[str]) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a block may hold comments only
        return np.loadtxt(lines, ndmin=2, usecols=(0, 1, 2, 3)).reshape(-1, 4)


def _is_sound(line: str) -> bool:
    try:
        _table([line])
    except ValueError:
        return False
    return True
