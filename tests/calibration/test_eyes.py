from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeperc.calibration.eyes import opened
from edgeperc.config import Rig
from edgeperc.errors import DeviceError
from edgeperc.packet import Gaze

PAIR = Path(__file__).with_name("pair.py")


def rig_of(wide: str, search: str, **more: Any) -> Rig:
    return Rig(
        sensors={
            "wide": {"driver": f"{PAIR}:{wide}"},
            "search": {"driver": f"{PAIR}:{search}", **more},
        },
        mirror={"driver": f"{PAIR}:PairMirror"},
    )


def test_a_rig_with_its_own_time_is_stepped_through_it(pair: ModuleType) -> None:
    with opened(rig_of("PairWide", "PairSearch"), Path("rig.toml")) as eyes:
        eyes.mirror.aim(Gaze(pan_rad=0.1, tilt_rad=0.0))
        settled_ns = eyes.mirror.settled_ns()
        assert eyes.wait_until(settled_ns)
        assert eyes.mirror.measured().pan_rad == pytest.approx(0.12)
        assert eyes.search().shape == (pair.SEARCH_PX, pair.SEARCH_PX)
        assert eyes.wide().shape == pair.WIDE_PX[::-1]
        assert eyes.search_rad == pytest.approx(0.049, abs=1e-3)


def test_a_live_camera_is_waited_for_until_it_has_seen_the_mirror_at_rest() -> None:
    with opened(rig_of("LiveWide", "LiveSearch"), Path("rig.toml")) as eyes:
        first = int(eyes.search()[0, 0])
        eyes.mirror.aim(Gaze(pan_rad=0.1, tilt_rad=0.0))
        eyes.wait_until(eyes.mirror.settled_ns())
        # Frames come each 5 ms and 12 ms late: those that are older than the rest are passed over.
        assert int(eyes.search()[0, 0]) >= first + 2
        assert eyes.wide().shape == (20, 30)


def test_a_camera_whose_clock_is_another_is_a_clear_error() -> None:
    rig = rig_of("LiveWide", "LiveSearch", late_ms=3_600_000)
    with opened(rig, Path("rig.toml")) as eyes:
        eyes.mirror.aim(Gaze(pan_rad=0.1, tilt_rad=0.0))
        with pytest.raises(DeviceError, match="older than the mirror's last move"):
            eyes.search()


PARTS = """
from pathlib import Path
from edgeperc.errors import DeviceError

class Part:
    def __init__(self, *, name: str) -> None:
        self.name = name
    def close(self) -> None:
        Path(__file__).with_name(self.name).touch()

def gone(*, name: str):
    raise DeviceError("search: unplugged")
"""


def test_what_was_opened_is_closed_where_another_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    rig = Rig(
        sensors={"wide": {"driver": "./parts.py:Part"}, "search": {"driver": "./parts.py:gone"}},
        mirror={"driver": "./parts.py:Part"},
    )
    with (
        pytest.raises(DeviceError, match="unplugged"),
        opened(rig, tmp_path / "rig.toml"),
    ):
        pass
    assert (tmp_path / "mirror").exists()
    assert (tmp_path / "wide").exists()
