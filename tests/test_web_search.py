"""A search's map, gazes and tracks in pixels of the wide picture."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from edgeperc.calibration.file import RigIdentity, uncalibrated
from edgeperc.packet import Frame, Gaze, Stamp
from edgeperc.plan import Plan
from edgeperc.result import Detections, ModelRef, SearchMap
from edgeperc.sinks.web_search import COLUMNS, SearchView, view_of
from edgeperc.sinks.web_wire import unpack

SIZE_PX = (640, 320)
MODEL = ModelRef(name="bayes")


def stamp(source: str, end_ns: int) -> Stamp:
    return Stamp(source=source, seq=1, start_ns=end_ns - 1, end_ns=end_ns)


def look(pan_rad: float, tilt_rad: float, end_ns: int) -> Detections:
    return Detections(
        stamp=stamp("search", end_ns),
        boxes=np.empty((0, 4), np.float32),
        scores=np.empty(0, np.float32),
        class_ids=np.empty(0, np.int64),
        classes=(),
        model=MODEL,
        gaze=Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad),
    )


def beliefs(row: int, column: int, *tracks: tuple[float, float, float, float]) -> SearchMap:
    """A map of 32 × 64 cells with one that glows."""
    intensity = np.zeros((32, 64), np.float32)
    intensity[row : row + 4, column : column + 8] = 1.0
    return SearchMap(
        stamp=stamp("search", 5),
        intensity=intensity,
        cell_rad=math.radians(1.0),
        tracks=np.array(tracks, np.float32).reshape(-1, 4),
        trail=np.empty((0, 2), np.float32),
        model=MODEL,
    )


@pytest.fixture
def view() -> SearchView:
    rig = RigIdentity(wide="w", search="s", mirror="m", width_px=640, height_px=320)
    calibration = uncalibrated(rig, math.radians(60.0))
    return SearchView(lambda _: calibration, wide="wide", search_rad=math.radians(3.0))


def test_nothing_is_drawn_before_the_first_wide_picture(view: SearchView) -> None:
    assert view.message(beliefs(0, 0)) is None
    view.see(Frame(stamp=stamp("search", 1), image=np.zeros((9, 9), np.uint8)))
    assert view.message(beliefs(0, 0)) is None


def test_places_are_those_of_the_calibration(view: SearchView) -> None:
    view.see(Frame(stamp=stamp("wide", 1), image=np.zeros(SIZE_PX[::-1], np.uint8)))
    view.look(look(0.3, -0.1, 10**9))
    view.look(look(0.0, 0.1, 3 * 10**9))  # the first one is long ago
    header, payload = unpack(view.message(beliefs(14, 40, (0.0, 0.0, 0.8, 1.5))) or b"")
    assert (header["source"], header["width"], header["height"]) == ("wide", 640, 320)
    assert header["tracks"] == [[320.0, 160.0, 0.8, 1.5]]
    ((x, y),) = header["trail"]
    assert x == pytest.approx(320, abs=0.5)
    assert y < 155  # up is up
    assert header["gaze_deg"] == [0.0, 5.73]
    corners = np.array(header["look"])
    np.testing.assert_allclose(corners.mean(axis=0), (x, y), atol=1.0)
    heat = np.frombuffer(zlib.decompress(payload), np.uint8)
    heat = heat.reshape(header["rows"], header["columns"])
    assert heat.shape == (160, COLUMNS)
    rows, columns = np.nonzero(heat > 128)
    assert columns.mean() > COLUMNS / 2 + 20  # right of the middle, as the cells are
    assert abs(rows.mean() - 80) < 4
    assert heat.max() == 255


def test_apps_without_a_search_have_no_view() -> None:
    assert view_of(None) is None
    assert view_of(Plan.load("events")) is None
    found = view_of(Plan.load("search"))
    assert found
    assert found.wide == "wide"
