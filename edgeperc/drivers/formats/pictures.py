"""Picture files: one alone, and a folder of them as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats import PICTURES, Options
from edgeperc.drivers.formats.packets import frame
from edgeperc.errors import DataError
from edgeperc.packet import Packet

RATE_HZ = 24.0
"""Of a folder, which says nothing about time."""
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How a file that begins so has to end; what comes behind it is nobody's business."""
_TAIL_BYTES = 4096


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Pictures of a folder in the order of their names, RGB, `RATE_HZ` or as asked for.

    Raises DataError for the first one that cannot be read.
    """
    rate_hz = options.rate_hz or RATE_HZ
    for number, name in enumerate(picture_files(path)):
        time_ns = round(number * 1e9 / rate_hz)
        yield frame(read_picture(name), time_ns, time_ns)


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) RGB uint8, upright as its EXIF says. Raises DataError with the reason.

    A file that is cut off is an error, too, where its format shows it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if not content:
        raise DataError(f"{path}: the file is empty")
    for begins, ends in _ENDS.items():
        if content.startswith(begins) and ends not in content[-_TAIL_BYTES:]:
            raise DataError(f"{path}: the picture is cut off", hint="copy it again")
    try:
        image: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # larger than OpenCV takes, for one
        raise DataError(f"{path}: {error.err}") from error
    if image is None:
        raise DataError(
            f"{path}: not a picture that OpenCV can read", hint="JPEG, PNG, BMP, TIFF and WebP are"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
