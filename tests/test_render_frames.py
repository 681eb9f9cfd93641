"""Frames come into the video in order, each with what was found in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from edgeperc import masks
from edgeperc.packet import Frame, Stamp
from edgeperc.render.frames import HELD, RenderFrames
from edgeperc.replay import replay, replay_plan
from edgeperc.result import Instances, ModelRef


def frame(seq: int, source: str = "cam") -> Frame:
    stamp = Stamp(source=source, seq=seq, start_ns=0, end_ns=seq * 40_000_000)
    return Frame(stamp=stamp, image=np.full((120, 160), 100, np.uint8))


def found(seq: int, left: int, model: str = "m") -> Instances:
    mask = np.zeros((120, 160), np.bool_)
    mask[40:80, left : left + 30] = True
    rle = masks.encode(mask)
    return Instances(
        stamp=frame(seq).stamp,
        ids=np.array([1]),
        masks=(rle,),
        boxes=masks.box(rle)[None],
        scores=np.ones(1, np.float32),
        visible=np.ones(1, np.float32),
        picture_px=(160, 120),
        model=ModelRef(name=model),
    )


def columns(path: Path) -> list[float | None]:
    """Where the middle of the object is in each picture of a video."""
    video, found = cv2.VideoCapture(str(path)), []
    while (step := video.read())[0]:
        row: NDArray[np.int64] = np.asarray(step[1], np.int64)[60]
        coloured = np.flatnonzero(np.ptp(row, axis=1) > 30)
        found.append(float(coloured.mean()) if coloured.size else None)
    return found


def test_each_frame_shows_what_was_found_in_it(tmp_path: Path) -> None:
    render = RenderFrames(tmp_path / "x.mp4", source="cam")
    for seq in range(8):
        render.see(frame(seq))
        render.see(frame(seq, "other"))
        render.write(found(seq, 10 * seq))
    render.close()
    render.close()
    assert columns(tmp_path / "x.mp4") == pytest.approx([10 * k + 14.5 for k in range(8)], abs=3)


def test_frames_without_a_result_are_there_in_their_place(tmp_path: Path) -> None:
    render = RenderFrames(tmp_path / "x.mp4", source="cam")
    for seq in range(6):
        render.see(frame(seq))
    for seq in (1, 4):
        render.write(found(seq, 50))
    assert [stamp.seq for stamp in render._waiting] == [5]  # nothing waits behind what was drawn
    render.write(found(0, 50))  # too late
    render.close()
    assert [column is not None for column in columns(tmp_path / "x.mp4")] == [
        *(False, True, False),
        *(False, True, False),
    ]


def test_all_pipelines_of_a_frame_are_waited_for(tmp_path: Path) -> None:
    render = RenderFrames(tmp_path / "x.mp4", source="cam", pipelines=2)
    for seq in range(4):
        render.see(frame(seq))
        render.write(found(seq, 10))
    for seq in range(4):
        render.write(found(seq, 110, "other"))
    render.close()
    assert columns(tmp_path / "x.mp4") == pytest.approx([74.5] * 4, abs=3)


def test_results_that_never_come_hold_only_so_many_frames(tmp_path: Path) -> None:
    render = RenderFrames(tmp_path / "x.mp4", source="cam")
    for seq in range(HELD + 20):
        render.see(frame(seq))
    assert len(render._waiting) == HELD
    render.close()
    assert len(columns(tmp_path / "x.mp4")) == HELD + 20


def test_replay_draws_what_a_detector_finds_in_a_video(tmp_path: Path) -> None:
    recording, out = tmp_path / "in.avi", tmp_path / "out.mp4"
    writer = cv2.VideoWriter(str(recording), cv2.VideoWriter.fourcc(*"MJPG"), 20, (320, 240))
    for k in range(12):
        writer.write(np.full((240, 320, 3), 10 * k, np.uint8))
    writer.release()
    plan = replay_plan(
        recording, model="finder-twin", app=None, out=None, listen=None, max_gap_s=None, sensor={}
    )
    played = replay(plan, speed=None, out=None, console=Console(quiet=True), render=out)
    assert played.error is None
    video = cv2.VideoCapture(str(out))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20, rel=0.05)
