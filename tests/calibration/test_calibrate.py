"""The verb, on a made-up rig whose cameras and mirror are plug-ins, and on the twin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc import cli
from edgeperc.calibration import Calibration, identify, load_calibration, read_points, write_points
from edgeperc.config import Rig, load

PAIR = Path(__file__).with_name("pair.py")
RIG = """
[sensors.wide]
driver = "{pair}:PairWide"
{seen}
[sensors.search]
driver = "{pair}:PairSearch"
{seen}
[mirror]
driver = "{pair}:PairMirror"
[field]
wide_deg = 90.6
search_deg = 5.0
"""


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["edgeperc", "calibrate", *args])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pair.toml"
    path.write_text(RIG.format(pair=PAIR, seen=""))
    return path


def error_px(kept: Calibration, truth: Any, px_per_rad: float) -> float:
    """Search px, rms, over gazes of the whole range."""
    gaze = np.random.default_rng(0).uniform(-0.28, 0.28, (500, 2))
    miss = kept.gaze(truth(gaze)) - gaze
    return float(np.sqrt(np.mean(np.sum(miss**2, axis=1)))) * px_per_rad


def test_a_rig_is_calibrated_to_a_pixel(
    rig: Path,
    pair: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, str(rig), "--grid", "7") == 0
    told = capsys.readouterr().out
    assert "looks were found" in told
    assert "chosen" in told
    assert f'put into {rig}: calibration = "{rig.with_name("pair.calibration.toml")}"' in told
    identity = identify(load(rig, Rig), "wide", "search", pair.WIDE_PX)
    kept = load_calibration(rig.with_name("pair.calibration.toml"), identity)
    assert error_px(kept, pair.wide_px_of, pair.SEARCH_PX / pair.SEARCH_RAD) < 1.0
    assert rig.with_name("pair.calibration.png").stat().st_size > 10_000
    assert len(read_points(rig.with_name("pair.calibration.points.csv"))) == kept.points


def test_a_fit_can_be_repeated_from_its_points(
    rig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, str(rig), "--grid", "6", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert run(monkeypatch, str(rig), "--points", first["points_file"], "--out", "b.toml") == 0
    one, other = (load_calibration(Path(name)) for name in (first["file"], "b.toml"))
    wide_px = [[400.0, 250.0], [520.0, 300.0]]
    assert one.gaze(wide_px) == pytest.approx(other.gaze(wide_px), abs=1e-6)
    assert Path("b.points.csv").exists()
    assert Path("b.png").exists()


def test_the_file_that_a_rig_names_is_written_and_found(
    rig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.write_text('calibration = "kept/pair.toml"\n' + rig.read_text())
    monkeypatch.chdir("/")
    assert run(monkeypatch, str(rig), "--grid", "6") == 0
    assert "put into" not in capsys.readouterr().out
    assert load_calibration(rig.with_name("kept") / "pair.toml").points > 20


def test_a_depth_makes_all_three_models_possible(
    rig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, str(rig), "--grid", "7", "--depth-m", "30", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["models"]) == {"cubic", "cubic-1z", "physical"}
    assert told["models"]["physical"]["rms_px"] < 2.0
    assert read_points(Path(told["points_file"])).depth_m == pytest.approx(30.0)


def test_a_poor_fit_is_not_kept_but_can_be_looked_at(
    rig: Path, truth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    near = truth.points(0, 60, (1.0, 6.0))
    sizes = {"wide_px": (3840, 2160), "search_px": (224, 224)}
    write_points(Path("near.csv"), type(near)(near.wide_px, near.gaze), sizes)
    Path("old.toml").write_text("old")
    narrow = rig.read_text().replace("search_deg = 5.0", "search_deg = 1.8")
    rig.write_text(narrow)
    assert run(monkeypatch, str(rig), "--points", "near.csv", "--out", "old.toml") == 1
    told = capsys.readouterr()
    assert "misses by" in told.err
    assert "old.png" in told.out
    assert Path("old.toml").read_text() == "old"
    assert Path("old.png").exists()


@pytest.mark.parametrize(
    ("rig_file", "args", "code", "complaint"),
    [
        ('[sensors.a]\ndriver = "video"\nsource = 0\n', [], 2, "has no [mirror]"),
        (RIG + 'wide = "roof"\n', [], 2, "[field] wide: 'roof' is no sensor"),
        (RIG + 'search = "eye"\n', [], 2, "[field] search: 'eye' is no sensor"),
        (RIG, ["--depth-m", "3", "--height-m", "2"], 2, "give one of them"),
        (RIG, ["--points", "gone.csv"], 1, "gone.csv: no such file"),
        (RIG, ["--grid", "3"], 2, "grid"),
        (RIG.replace("{seen}", 'kind = "blank"'), [], 1, "0 looks were found"),
        (RIG.replace("{seen}", "kind = 3"), [], 2, "[sensors.wide] kind"),
    ],
)
def test_what_is_wrong_is_said(
    rig_file: str,
    args: list[str],
    code: int,
    complaint: str,
    rig: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rig.write_text(rig_file.format(pair=PAIR, seen=""))
    assert run(monkeypatch, str(rig), *args) == code
    assert complaint in capsys.readouterr().err
    assert not Path("pair.calibration.toml").exists()


def test_points_without_sizes_need_a_rig_that_has_them(
    rig: Path, truth: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_points(Path("bare.csv"), truth.points(0, 60, (30.0, 30.0)), {})
    assert run(monkeypatch, str(rig), "--points", "bare.csv") == 2
    assert "does not say how large the pictures are" in capsys.readouterr().err


def test_a_camera_that_is_lost_ends_it(
    rig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = rig.read_text().replace('PairSearch"', 'PairSearch"\ndies_after = 30')
    rig.write_text(text)
    assert run(monkeypatch, str(rig)) == 1
    assert "unplugged" in capsys.readouterr().err


@pytest.mark.slow
def test_the_twin_is_calibrated_to_two_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeperc.twin.avenue import Avenue
    from edgeperc.twin.rig import Mount
    from edgeperc.twin.views import UprightView

    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "twin-search", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"] >= 45
    kept = load_calibration(Path(told["file"]))
    errors = []
    view = UprightView(Avenue(2026), mount=Mount.drawn(0))
    for time_s in range(0, 60, 4):
        truth = view.truth(float(time_s))
        boxes = truth.boxes
        whole = (boxes[:, 0] > 1) & (boxes[:, 2] < 959) & (boxes[:, 3] < 447)
        middle = (boxes[whole, :2] + boxes[whole, 2:]) / 2
        errors.append(kept.gaze(middle) - truth.gaze_rad[whole])
    miss = np.linalg.norm(np.concatenate(errors), axis=1) * 224 / np.radians(2.81)
    assert len(miss) > 100
    assert np.sqrt(np.mean(miss**2)) <= 2.0
