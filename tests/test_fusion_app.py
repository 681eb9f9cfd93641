"""An app whose network fuses frames with events, from its files to results, pictures and video."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edgeperc.assemble import assemble
from edgeperc.errors import ConfigError
from edgeperc.packet import Events, Frame, Pair, Stamp
from edgeperc.plan import Plan
from edgeperc.render import pairs as render_pairs
from edgeperc.replay import Replayed, replay, replay_plan, rig_plan
from edgeperc.result import LabelMap, ModelRef

from .tiny_fusion import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny network that nobody trained."""
    return write_model(tmp_path_factory.mktemp("tiny-fusion"))


def app_file(folder: Path, model: Path, *, more: str = "", rig: str = "twin") -> Path:
    path = folder / "fuse.toml"
    path.write_text(
        f'rig = "{rig}"\n[[pipelines]]\nname = "fusion"\ninput = "dvs"\nmodel = "{model}"\n{more}'
    )
    return path


def play(plan: Plan, *, out: Path, render: Path | None = None) -> Replayed:
    console = Console(file=io.StringIO())
    return replay(plan, speed=None, out=out, console=console, render=render)


def results(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_the_twin_is_fused_the_same_each_time(tmp_path: Path, model: Path) -> None:
    app = app_file(tmp_path, model)
    maps = []
    for name in ("a", "b"):
        out = tmp_path / name
        played = play(rig_plan(str(app), duration_s=0.3, out=out, listen=None), out=out)
        assert played.error is None
        (pipeline,) = played.summary["pipelines"]
        assert pipeline["pairs"]["pairs"] == pipeline["meter"]["results"] == 7
        maps.append([path.read_bytes() for path in sorted(out.rglob("*.png"))])
    assert len(maps[0]) == 7
    assert maps[0] == maps[1]


def test_a_recording_of_frames_and_events_is_fused_and_drawn(
    tmp_path: Path, model: Path, real: Callable[[str], Path]
) -> None:
    recording, video = real("events/davis346.aedat4"), tmp_path / "davis.mp4"
    plan = replay_plan(
        recording,
        model=None,
        app=str(app_file(tmp_path, model)),
        out=tmp_path / "out",
        listen=None,
        max_gap_s=None,
        sensor={"duration_s": 0.5},
    )
    played = play(plan, out=tmp_path / "out", render=video)
    assert played.error is None
    (pipeline,) = played.summary["pipelines"]
    assert pipeline["pairs"]["pairs"] == played.summary["sensors"][0]["frames"] > 10
    assert pipeline["pairs"]["without_events"] == 0
    reader = cv2.VideoCapture(str(video))
    ok, picture = reader.read()
    assert ok
    assert picture.shape == (260, 692, 3)
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == pipeline["pairs"]["pairs"]


def test_mistakes_in_the_files_are_named(tmp_path: Path, model: Path) -> None:
    for more, message in (
        ('frames = "camera"\n', "frames: 'camera' is no sensor"),
        ("window_events = 1000\n", "by time, not by their number"),
        ("[pipelines.pair]\nsilent_s = 1\n", "unknown key 'silent_s'"),
    ):
        with pytest.raises(ConfigError, match=message):
            assemble(Plan.load(str(app_file(tmp_path, model, more=more))))
    path = tmp_path / "single.toml"
    path.write_text(
        'rig = "twin"\n[[pipelines]]\nname = "e"\ninput = "dvs"\nframes = "dvs"\n'
        'model = "sltnet-twin"\n'
    )
    with pytest.raises(ConfigError, match="'sltnet-twin' does not fuse frames with events"):
        assemble(Plan.load(str(path)))


def test_windows_and_limits_come_from_card_and_app(tmp_path: Path, model: Path) -> None:
    more = '[pipelines.pair]\nsilent_ms = 300\nsingle = "skip"\n'
    run = assemble(Plan.load(str(app_file(tmp_path, model, more=more))))
    rules = run._pipelines[0].pairs
    run.stop()
    assert rules is not None
    assert (rules.before_us, rules.after_us) == (25_000, 25_000)
    assert (rules.silent_us, rules.skew_us, rules.skip_single) == (300_000, 100_000, True)


def test_events_are_drawn_in_the_colour_of_the_last_one_beside_the_frame() -> None:
    stamp = Stamp(source="dvs", seq=0, start_ns=0, end_ns=0)
    events = Events(
        stamp=stamp,
        t=np.array([1, 2, 3], np.int64),
        x=np.array([0, 0, 2], np.uint16),
        y=np.array([1, 1, 0], np.uint16),
        p=np.array([True, False, True]),
        width_px=4,
        height_px=3,
    )
    dark = np.full((3, 4, 3), render_pairs.NO_EVENT, np.uint8)
    picture = render_pairs.draw_events(events, dark)
    assert tuple(picture[1, 0]) == render_pairs.DARKER
    assert tuple(picture[0, 2]) == render_pairs.BRIGHTER
    assert (picture[2] == render_pairs.NO_EVENT).all()
    frame = Frame(stamp=stamp, image=np.full((3, 4), 200, np.uint8))
    unknown = LabelMap(
        stamp=stamp,
        labels=np.full((3, 4), 255, np.uint8),
        classes=("a",),
        model=ModelRef(name="m"),
    )
    whole = render_pairs.side_by_side(Pair(stamp=stamp, frame=frame, events=events), unknown)
    assert (whole[:, :4] == 200).all()
    assert (whole[:, 4:] == picture).all()
    assert (dark == render_pairs.NO_EVENT).all()
    alone = render_pairs.side_by_side(Pair(stamp=stamp, frame=None, events=events), unknown)
    assert (alone[:, :4] == render_pairs.NO_FRAME).all()
