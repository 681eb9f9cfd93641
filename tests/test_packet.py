from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeperc import Events, Frame, Stamp

STAMP = Stamp(source="dvs", seq=0, start_ns=0, end_ns=1)


def columns(count: int = 3) -> dict[str, Any]:
    return {
        "t": np.arange(count, dtype=np.int64),
        "x": np.zeros(count, np.uint16),
        "y": np.zeros(count, np.uint16),
        "p": np.zeros(count, np.bool_),
    }


def test_arrays_are_read_only_views_and_the_owner_keeps_writing() -> None:
    owned = columns()
    events = Events(stamp=STAMP, **owned, width_px=4, height_px=4)
    with pytest.raises(ValueError, match="read-only"):
        events.t[0] = 5
    owned["t"][0] = 0


@pytest.mark.parametrize(("name", "dtype"), [("t", np.int32), ("x", np.int16), ("p", np.uint8)])
def test_another_dtype_is_refused(name: str, dtype: type) -> None:
    wrong = columns()
    wrong[name] = wrong[name].astype(dtype)
    with pytest.raises(TypeError, match=name):
        Events(stamp=STAMP, **wrong, width_px=4, height_px=4)


def test_unequal_lengths_are_refused() -> None:
    wrong = columns()
    wrong["x"] = wrong["x"][:2]
    with pytest.raises(TypeError, match="one length"):
        Events(stamp=STAMP, **wrong, width_px=4, height_px=4)


def test_a_frame_is_grey_or_rgb() -> None:
    Frame(stamp=STAMP, image=np.zeros((4, 5), np.uint8))
    Frame(stamp=STAMP, image=np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(TypeError, match="image"):
        Frame(stamp=STAMP, image=np.zeros((4, 5, 2), np.uint8))
