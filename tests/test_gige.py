"""GigE Vision cameras, as Aravis fakes one on the loopback interface."""

from __future__ import annotations

import subprocess
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc.drivers import gige
from edgeperc.drivers.formats import aravis as child
from edgeperc.drivers.gige import Gige, list_cameras
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame
from edgeperc.plugin import prepare

MS = 10**6
SIZE = {"width_px": 256, "height_px": 200}  # one period of the pattern that moves over it


def take(camera: Gige, count: int) -> list[Frame]:
    frames = list(islice(camera.packets(), count))
    camera.close()
    assert all(isinstance(frame, Frame) for frame in frames)
    return frames  # type: ignore[return-value]


def test_frames_of_a_camera_on_the_wire(fake_gige: Any) -> None:
    fake_gige.start()
    before_ns = time.monotonic_ns()
    camera = Gige(name="wide", camera=fake_gige.id, rate_hz=120, exposure_us=8000.0, **SIZE)
    frames = take(camera, 150)  # GigE Vision's count of 16 bits, from 65,400 at the start, wraps
    assert {frame.stamp.source for frame in frames} == {"wide"}
    assert all(frame.image.shape == (200, 256) for frame in frames)
    assert not frames[0].image.flags.writeable
    assert 80 < frames[0].image.mean() < 180
    steps = [later.stamp.seq - sooner.stamp.seq for sooner, later in pairwise(frames)]
    assert min(steps) == 1
    assert max(steps) < 50  # what a busy machine does not fetch in time
    starts_ns = [frame.stamp.start_ns for frame in frames]
    assert starts_ns == sorted(starts_ns)
    assert all(frame.stamp.end_ns - frame.stamp.start_ns == 8 * MS for frame in frames)
    assert before_ns < starts_ns[0]
    assert frames[-1].stamp.end_ns < time.monotonic_ns()
    period_ns = (starts_ns[-1] - starts_ns[0]) / (frames[-1].stamp.seq - frames[0].stamp.seq)
    assert period_ns == pytest.approx(1e9 / 120, rel=0.15)


def test_longer_exposures_are_brighter_and_colours_are_rgb(fake_gige: Any) -> None:
    def image(**keys: Any) -> Any:
        fake_gige.pull()  # a new one, for one that was left serves nobody for three seconds
        fake_gige.start()
        return take(Gige(**SIZE, **keys), 1)[0].image

    bright, dark = image(exposure_us=20_000.0), image(exposure_us=5000.0)
    assert bright.mean() > dark.mean() + 20
    light = {"exposure_us": 20_000.0}
    rgb, bayer = image(pixel_format="RGB8", **light), image(pixel_format="BayerGB8", **light)
    assert rgb.shape == bayer.shape == (200, 256, 3)
    colour = rgb.mean(axis=(0, 1))
    assert colour[0] > colour[2] + 20
    assert np.abs(colour - bayer.mean(axis=(0, 1))).max() < 5


def test_pictures_that_lack_packets_leave_gaps(fake_gige: Any) -> None:
    fake_gige.start(lost_per_thousand=20)
    frames = take(Gige(rate_hz=100, exposure_us=8000.0, **SIZE), 20)
    assert all(frame.image.mean() > 80 for frame in frames)
    assert frames[-1].stamp.seq > 20


def test_a_camera_that_goes_away_is_a_lost_device(fake_gige: Any) -> None:
    fake_gige.start()
    packets = Gige(deadline_s=0.5, **SIZE).packets()
    next(packets)
    fake_gige.pull()
    with pytest.raises(DeviceError, match="GigE camera: (no picture came|the camera is gone)"):
        list(islice(packets, 500))


def test_a_missing_camera_is_told_which_are_there(fake_gige: Any) -> None:
    with pytest.raises(DeviceError, match="GigE camera: no GigE Vision camera answers"):
        next(Gige().packets())
    fake_gige.start()
    with pytest.raises(DeviceError, match="GigE camera Nobody: the camera does not open") as caught:
        next(Gige(camera="Nobody").packets())
    assert caught.value.hint == f"there is {fake_gige.id}"
    assert list_cameras() == [f"aravis: {fake_gige.id}"]


@pytest.mark.slow
def test_a_camera_that_is_held_or_was_left(fake_gige: Any) -> None:
    fake_gige.start()
    holder = Gige(**SIZE)
    packets = holder.packets()
    next(packets)
    with pytest.raises(DeviceError, match="another program holds the camera"):
        next(Gige(**SIZE).packets())
    next(packets)
    holder.close()  # ends its process, which has no time to tell the camera
    assert len(take(Gige(**SIZE), 3)) == 3


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"width_px": 4000}, "takes no 4000 × .* it has 2048 × 2048 px"),
        ({"width_px": 512, "offset_x_px": 2000}, r"takes no 512 × \d+ px at \(2000, 0\)"),
        ({"gain": 90.0}, "gain is 90, the camera takes 0 to 10"),
    ],
)
def test_settings_that_it_does_not_take(
    fake_gige: Any, keys: dict[str, Any], complaint: str
) -> None:
    fake_gige.start()
    with pytest.raises(ConfigError, match=complaint):
        next(made(keys).packets())


def test_settings_that_no_camera_takes() -> None:
    with pytest.raises(ConfigError, match=r"\[sensors.wide\] pixel_format: invalid enum value"):
        made({"pixel_format": "Mono77"})
    with pytest.raises(ConfigError, match="unknown key 'shutter'"):
        made({"shutter": 3})


def made(keys: dict[str, Any]) -> Any:
    injected = {"name": "wide", "clock": None}
    where, table = "rig.toml [sensors.wide]", {"driver": "gige", **keys}
    return prepare(table, kind="driver", where=where, folder=Path(), injected=injected)()


def test_without_aravis_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gi.py").write_text("raise ImportError('no gi here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs Aravis: no gi here") as caught:
        list(Gige().packets())
    assert caught.value.hint == child.PACKAGES_HINT
    assert list_cameras() == [f"aravis: not installed; {child.PACKAGES_HINT}"]


def test_a_look_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("look", 10)

    monkeypatch.setattr(gige.subprocess, "run", hang)
    assert list_cameras() == ["aravis: cannot look for cameras: it does not answer"]
