from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgeperc import places
from edgeperc.calibration.file import load_calibration
from edgeperc.errors import ConfigError
from edgeperc.plan import Plan, check_names, own_time
from edgeperc.steering.build import panorama_of, scheduler_of
from edgeperc.steering.calibrated import calibrated_size, calibrations

PIPELINES = """
[[pipelines]]
name = "wide"
input = "wide"
model = "finder-twin"
[[pipelines]]
name = "gaze"
input = "search"
model = "finder-twin"
"""
SECOND = """
[[pipelines]]
name = "more"
input = "search"
model = "regions-twin"
"""
MIRROR = '[mirror]\ndriver = "twin-mirror"\n'
SENSORS = """
[sensors.wide]
driver = "twin-wide"
[sensors.search]
driver = "twin-search"
"""


def plan(
    folder: Path, search: str, *, rig: str = SENSORS + MIRROR, pipelines: str = PIPELINES
) -> Plan:
    (folder / "rig.toml").write_text(rig)
    (folder / "app.toml").write_text(f'rig = "./rig.toml"\n{pipelines}[search]\n{search}\n')
    return Plan.load(str(folder / "app.toml"))


GOOD = 'gaze = "gaze"\nhints = ["wide"]'


def test_a_search_whose_names_stand_for_something_is_right(tmp_path: Path) -> None:
    check_names(plan(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("search", "changes", "words"),
    [
        ('gaze = "gaz"', {}, r"\[search\] gaze: 'gaz' is no pipeline"),
        ('gaze = "gaze"\nhints = ["wid"]', {}, r"\[search\] hints: 'wid' is no pipeline"),
        (GOOD, {"rig": SENSORS}, "has no mirror to steer"),
        (GOOD, {"pipelines": PIPELINES + SECOND}, "is the search's alone"),
    ],
)
def test_a_search_that_names_nothing_is_a_mistake_in_its_file(
    search: str, changes: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_names(plan(tmp_path, search, **changes))


def test_the_twin_has_a_time_of_its_own_and_a_camera_has_the_hosts(tmp_path: Path) -> None:
    assert own_time(plan(tmp_path, GOOD))
    rig = SENSORS.replace('"twin-search"', '"basler"') + MIRROR
    assert not own_time(plan(tmp_path, GOOD, rig=rig))


def test_the_grid_and_what_a_look_sees_are_those_of_the_rig(tmp_path: Path) -> None:
    rig = SENSORS + MIRROR + "[field]\nwidth_deg = 40.0\nheight_deg = 30.0\nsearch_deg = 2.0\n"
    wanted = plan(tmp_path, GOOD + '\nscheduler = "raster"', rig=rig)
    panorama = panorama_of(wanted)
    assert panorama.grid.shape == (192, 256)
    assert panorama.grid.cell_rad == pytest.approx(math.radians(40) / 256)
    x, y = scheduler_of(wanted, panorama, 8_333_333).step(0.0)
    assert (x, y) == pytest.approx((6.4, 6.4))  # half of what 2° are in cells


def test_an_unknown_option_of_a_scheduler_is_named(tmp_path: Path) -> None:
    wanted = plan(tmp_path, GOOD + "\noptions = { expects = 3.0 }")
    with pytest.raises(ConfigError, match="unknown key 'expects'; did you mean 'expected'"):
        scheduler_of(wanted, panorama_of(wanted), 8_333_333)


def with_calibration(folder: Path, text: str) -> Plan:
    (folder / "c.toml").write_text(text)
    rig = 'calibration = "c.toml"\n' + SENSORS + MIRROR
    return plan(folder, GOOD, rig=rig)


def test_the_rigs_calibration_is_used_for_its_size_of_picture_only(tmp_path: Path) -> None:
    path = places.share() / "devices" / "twin-search.calibration.toml"
    wanted = with_calibration(
        tmp_path, path.read_text().replace("twin-search rig=0", "twin-search")
    )
    assert calibrated_size(wanted) == (960, 448)
    of_size = calibrations(wanted)
    assert of_size((960, 448)).model.name == load_calibration(path).model.name
    with pytest.raises(ConfigError, match=r"960 × 448 px, these are 640 × 480"):
        of_size((640, 480))


def test_a_calibration_of_another_rig_is_refused(tmp_path: Path) -> None:
    path = places.share() / "devices" / "twin-search.calibration.toml"
    text = path.read_text().replace('mirror = "twin-mirror"', 'mirror = "optotune"')
    with pytest.raises(ConfigError, match=r"\[rig\] (mirror|search): calibrated for"):
        calibrations(with_calibration(tmp_path, text))


def test_without_a_calibration_a_wide_pixel_is_a_gaze_by_a_guess(tmp_path: Path) -> None:
    of_size = calibrations(plan(tmp_path, GOOD))
    (gaze,) = of_size((640, 480)).gaze([[640.0, 240.0]])
    assert gaze == pytest.approx((math.radians(30), 0.0), abs=1e-9)
    assert of_size((640, 480)).errors is None
