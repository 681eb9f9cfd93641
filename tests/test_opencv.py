"""Video files and live streams by OpenCV."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


@pytest.fixture
def stream() -> Iterator[str]:
    """The address of a live MJPEG stream, as cheap network cameras have it."""
    picture = cv2.imencode(".jpg", np.full((48, 64, 3), RED[::-1], np.uint8))[1].tobytes()
    part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"
    over = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            limit = 20 if self.path == "/short" else 10_000
            try:
                for _ in range(limit):
                    self.wfile.write(part % (len(picture), picture))
                    if over.wait(0.02):
                        return
            except (BrokenPipeError, ConnectionResetError):
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_live_stream_until_it_is_closed(stream: str) -> None:
    video = Video(f"{stream}/live", name="door")
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
    thread.join(5)
    assert not thread.is_alive()
    times_ns = [frame.stamp.end_ns for frame in frames]
    assert times_ns == sorted(set(times_ns))
    assert np.abs(frames[0].image.mean(axis=(0, 1)) - RED).max() < 8


def test_a_stream_that_ends_is_a_lost_device(stream: str) -> None:
    with pytest.raises(DeviceError, match=r"/short: the camera sends no more pictures"):
        list(Video(f"{stream}/short").packets())


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
