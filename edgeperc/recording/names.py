"""Where recordings go, and their names: plain ones, so that nobody writes where he should not."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

from edgeperc import places
from edgeperc.control import ControlError

SUFFIX = ".mcap"
_LONGEST_BYTES = 200


def recordings_home() -> Path:
    """The folder that recordings go into, if none is named."""
    return places.data_home() / "recordings"


def file_name(name: str) -> str:
    """The file's name for a recording's, by default the time of day; ends with `.mcap`.

    Raises ControlError for what is no plain name.
    """
    if not name:
        return time.strftime("%Y-%m-%d_%H-%M-%S") + SUFFIX
    stem = name.removesuffix(SUFFIX)
    odd = any(each in "/\\" or unicodedata.category(each)[0] == "C" for each in name)
    if odd or not stem.strip() or stem[0] in ".- " or len(stem.encode()) > _LONGEST_BYTES:
        raise ControlError(
            f"'{_shown(name)}' is no plain file name",
            why="range",
            hint="letters, digits, '-' and '_', without a folder",
        )
    return stem + SUFFIX


def _shown(name: str) -> str:
    text = name.encode("unicode_escape").decode()
    return text if len(text) <= 60 else text[:57] + "..."
