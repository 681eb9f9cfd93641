"""Video files and live streams by OpenCV."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeperc.drivers.formats.packets import UntilError
from edgeperc.drivers.opencv import Video
from edgeperc.errors import ConfigError, DataError, DeviceError
from edgeperc.packet import Frame

Real = Callable[[str], Path]
COUNT, RATE_HZ = 12, 25
RED = (250, 20, 10)


def record(path: Path) -> Path:
    """Red pictures that grow brighter, written in OpenCV's order of channels."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (64, 48))
    for k in range(COUNT):
        bgr = np.array(RED[::-1]) * (k + 1) / COUNT
        writer.write(np.full((48, 64, 3), bgr, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv"])
def test_a_file_gives_rgb_frames_at_their_times(name: str, tmp_path: Path) -> None:
    frames = list(Video(str(record(tmp_path / name)), name="cam").packets())
    assert [frame.stamp.end_ns // 1_000_000 for frame in frames] == [k * 40 for k in range(COUNT)]
    assert [(frame.stamp.source, frame.stamp.seq) for frame in frames] == [
        ("cam", k) for k in range(COUNT)
    ]
    last = frames[-1]
    assert isinstance(last, Frame)
    assert last.image.shape == (48, 64, 3)
    assert np.abs(last.image.mean(axis=(0, 1)) - RED).max() < 8


def test_a_cut_file_yields_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (64, 48))
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    for picture in noise:
        writer.write(picture)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames = UntilError(Video(str(path)).packets())
    count = len(list(frames))
    assert 20 < count < 28
    with pytest.raises(DataError, match=rf"clip.mkv: it ends after {count} of 40 frames"):
        frames.reraise()


def test_mistakes_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.mp4: no such file"):
        Video("nowhere.mp4")
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(DataError, match=r"text.mp4: it cannot be opened as a video"):
        list(Video(str(tmp_path / "text.mp4")).packets())


def test_a_live_stream_until_it_is_closed(stream: Any) -> None:
    video = Video(stream.url, name="door")
    frames: list[Frame] = []
    three = threading.Event()

    def consume() -> None:
        for packet in video.packets():
            assert isinstance(packet, Frame)
            frames.append(packet)
            if len(frames) == 3:
                three.set()

    thread = threading.Thread(target=consume)
    thread.start()
    assert three.wait(30)
    video.close()
    thread.join(30)
    assert not thread.is_alive()
    times_ns = [frame.stamp.end_ns for frame in frames]
    assert times_ns == sorted(set(times_ns))
    assert np.abs(frames[0].image.mean(axis=(0, 1)) - stream.rgb).max() < 8


def test_a_stream_that_ends_is_a_lost_device(stream: Any) -> None:
    packets = Video(stream.url).packets()
    next(packets)
    stream.end()
    with pytest.raises(DeviceError, match=r"/live: the camera sends no more pictures"):
        list(packets)


RTSP_SERVER = """
import sys
sys.path.append("/usr/lib/python3/dist-packages")
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if not all(map(Gst.ElementFactory.find, ("videotestsrc", "jpegenc", "rtpjpegpay"))):
    raise ImportError("elements are missing")
server = GstRtspServer.RTSPServer(service="0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=red"
    " ! video/x-raw,format=I420,width=64,height=48,framerate=25/1"
    " ! jpegenc ! rtpjpegpay name=pay0 )"
)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@pytest.fixture
def rtsp() -> Iterator[subprocess.Popen[str]]:
    """A server of a red picture by RTSP, in a process that first prints its port."""
    with subprocess.Popen(
        [sys.executable, "-c", RTSP_SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        yield server
        server.kill()


def test_a_camera_by_rtsp_until_it_is_gone(rtsp: Any) -> None:
    port = rtsp.stdout.readline().strip()
    if not port:
        packages = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
        pytest.skip(f"no RTSP server is here: apt-get install {packages}")
    packets = Video(f"rtsp://127.0.0.1:{port}/live", name="door").packets()
    frames = [next(packets) for _ in range(5)]
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.stamp.seq for frame in frames] == list(range(5))
    assert np.abs(frames[-1].image.mean(axis=(0, 1)) - (255, 0, 0)).max() < 25
    rtsp.kill()
    with pytest.raises(DeviceError, match=r"/live: the camera sends no more pictures"):
        list(packets)


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1:9/nothing", 63, "/dev/video63"])
def test_what_does_not_open_is_a_device_error_with_a_hint(source: str | int) -> None:
    with pytest.raises(DeviceError, match="the camera does not open") as caught:
        list(Video(source).packets())
    assert str(source) in str(caught.value)
    assert "/dev/video63" in caught.value.hint or "address" in caught.value.hint


def test_a_real_clip(real: Real) -> None:
    frames = list(Video(str(real("video/bedroom.mp4"))).packets())
    assert len(frames) == 200
    assert frames[-1].stamp.end_ns == pytest.approx(199e9 / 30, abs=1e6)


def test_a_camera_whose_link_is_gone_is_a_lost_device() -> None:
    with pytest.raises(DeviceError, match="no such camera"):
        Video("/dev/v4l/by-id/usb-nobody-video-index0")
