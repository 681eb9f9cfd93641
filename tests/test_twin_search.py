from __future__ import annotations

import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc import places, plugin
from edgeperc.clock import ReplayClock, SteppedClock
from edgeperc.drivers.galvo.twin import TwinMirror
from edgeperc.drivers.twin_search import TwinSearch
from edgeperc.drivers.twin_wide import TwinWide
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame, Gaze
from edgeperc.validate import Validator


class Rig:
    """A search camera, its mirror and their clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = SteppedClock(ReplayClock(None))
        self.mirror = TwinMirror(now_ns=self.clock.now_ns)
        injected = {"name": "search", "clock": self.clock, "mirror": self.mirror}
        self.camera = TwinSearch(**{"seed": 4, **injected, **options})

    def look(self, gaze: Gaze) -> Frame:
        """Aim, wait and expose."""
        self.mirror.aim(gaze)
        self.clock.wait_until(self.mirror.settled_ns())
        return self.camera.expose()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def steepness(image: Any) -> float:
    """How much neighbouring columns differ; rows are averaged against the noise."""
    rows = image.astype(float).reshape(28, 8, 224).mean(1)
    return float(np.abs(np.diff(rows, axis=1)).mean())


def test_a_picture_is_taken_now_and_says_where_the_mirror_was(rig: Rig) -> None:
    rig.clock.wait_until(123_456_789)
    frame = rig.camera.expose()
    assert frame.stamp.start_ns == 123_456_789
    assert frame.stamp.end_ns == rig.clock.now_ns() == 124_456_789
    assert frame.gaze == Gaze(pan_rad=0.0, tilt_rad=0.0)
    assert frame.image.shape == (224, 224)
    rig.mirror.aim(Gaze(pan_rad=0.2, tilt_rad=-0.1))
    rig.clock.wait_until(125_500_000)
    flying = rig.camera.expose()
    assert flying.gaze == rig.mirror.measured(126_000_000)
    assert flying.stamp.seq == 1


def test_a_mirror_in_flight_blurs_and_one_at_rest_does_not(rig: Rig) -> None:
    gaze = Gaze(pan_rad=0.15, tilt_rad=-0.12)
    at_rest = rig.look(gaze)
    aside = Gaze(pan_rad=0.15 + math.radians(3), tilt_rad=-0.12)
    rig.look(aside)
    rig.mirror.aim(gaze)
    rig.clock.wait_until(rig.clock.now_ns() + 1_000_000)
    flying = rig.camera.expose()
    again = rig.look(gaze)
    assert at_rest.gaze
    assert again.gaze
    assert at_rest.gaze.pan_rad == pytest.approx(again.gaze.pan_rad, abs=1e-4)
    assert steepness(flying.image) < 0.7 * steepness(again.image)
    middle_s = (again.stamp.start_ns + again.stamp.end_ns) * 0.5e-9
    sharp = rig.camera.view.image(middle_s, again.gaze, noise=again.stamp.seq)
    assert np.array_equal(sharp, again.image)


def test_frames_come_at_the_rate() -> None:
    camera = Rig(rate_hz=120.0, duration_s=0.1).camera
    frames = list(camera.packets())
    assert [frame.stamp.start_ns for frame in frames] == [round(k * 1e9 / 120) for k in range(12)]
    assert [frame.stamp.seq for frame in frames] == list(range(12))
    assert len(list(Validator(policy="raise", max_gap_us=100_000).stream(frames))) == 12


def test_the_same_course_gives_the_same_pictures() -> None:
    courses = []
    for _ in range(2):
        rig, rng = Rig(), np.random.default_rng(1)
        gazes = rng.uniform((-0.5, -0.25), (0.5, 0.25), (5, 2)).tolist()
        courses.append([rig.look(Gaze(pan_rad=pan, tilt_rad=tilt)) for pan, tilt in gazes])
    for a, b in zip(*courses, strict=True):
        assert a.stamp == b.stamp
        assert a.gaze == b.gaze
        assert np.array_equal(a.image, b.image)


def test_another_mount_shows_another_part_of_the_same_world() -> None:
    gaze = Gaze(pan_rad=0.3, tilt_rad=-0.1)
    rigs = [Rig(rig=number) for number in (0, 1)]
    frames = [rig.look(gaze) for rig in rigs]
    assert not np.array_equal(frames[0].image, frames[1].image)
    whole = [{*rig.camera.view.avenue.movers(3.0)["identity"].tolist()} for rig in rigs]
    assert whole[0] == whole[1]


def test_both_cameras_see_one_world_at_one_time() -> None:
    """Whom the wide frame shows, the search camera finds there at that time."""
    wide = TwinWide(name="wide", clock=ReplayClock(None), seed=4)
    frame = next(islice(wide.packets(), 5, None))
    truth = wide.truth(frame)
    middle_ns = (frame.stamp.start_ns + frame.stamp.end_ns) // 2
    checked = 0
    for row in np.flatnonzero(truth.visible > 0.9):
        pan_rad, tilt_rad = truth.gaze_rad[row].tolist()
        own = Rig()
        own.mirror.aim(Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad))
        own.clock.wait_until(middle_ns - 500_000)
        seen = own.camera.expose()
        assert (seen.stamp.start_ns + seen.stamp.end_ns) // 2 == middle_ns
        there = own.camera.truth(seen)
        assert truth.identities[row] in there.identities
        box = there.boxes[there.identities == truth.identities[row]][0]
        assert np.abs((box[:2] + box[2:]) / 2 - 112).max() < 25
        checked += 1
    assert checked > 5


def test_a_closed_camera_takes_no_picture(rig: Rig) -> None:
    rig.camera.close()
    rig.camera.close()
    with pytest.raises(DeviceError, match="search"):
        rig.camera.expose()
    assert list(rig.camera.packets()) == []


def test_the_bundled_rig_opens() -> None:
    rig, path = places.find_rig("twin-search")
    clock = SteppedClock(ReplayClock(None))
    injected: dict[str, Any] = {"clock": clock, "now_ns": clock.now_ns}
    assert rig.mirror is not None
    make = plugin.prepare(
        rig.mirror, kind="mirror", where=str(path), folder=path.parent, injected=injected
    )
    injected["mirror"] = make()
    for name, table in rig.sensors.items():
        make = plugin.prepare(
            table,
            kind="driver",
            where=str(path),
            folder=path.parent,
            injected={**injected, "name": name},
        )
        packets = list(islice(make().packets(), 4))
        assert len(packets) == 4
        for before, after in pairwise(packets):
            assert before.stamp.end_ns <= after.stamp.end_ns
    assert set(rig.sensors) == {"wide", "search", "dvs"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("rate_hz", -1.0), ("width_px", 4096), ("rig", -1), ("exposure_us", 1e6), ("gain", 3.0)],
)
def test_a_bad_key_is_named(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=key):
        plugin.prepare(
            {"driver": "twin-search", key: value},
            kind="driver",
            where="rig.toml [sensors.search]",
            folder=tmp_path,
            injected={"name": "search", "clock": ReplayClock(None), "mirror": None},
        )
