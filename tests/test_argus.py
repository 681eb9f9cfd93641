"""CSI cameras of a Jetson, as far as that goes without one: what GStreamer is told, and errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeperc.drivers.argus import Argus, gstreamer
from edgeperc.errors import ConfigError
from edgeperc.plugin import prepare

HAS_GSTREAMER = bool(re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()))
USUAL = {"sensor_id": 0, "width_px": 1280, "height_px": 720, "rate_hz": 120}


def test_what_gstreamer_is_told() -> None:
    assert gstreamer(**USUAL) == (
        "nvarguscamerasrc sensor-id=0"
        " ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=120/1,format=NV12"
        " ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
        " ! appsink drop=true max-buffers=1 sync=false"
    )


def test_light_and_flip_stand_in_it() -> None:
    keys = {**USUAL, "sensor_id": 1}
    told = gstreamer(**keys, exposure_us=(13.0, 8000.5), gain=(1.0, 10.625), flip="rotate-180")
    assert told.startswith(
        'nvarguscamerasrc sensor-id=1 exposuretimerange="13000 8000500" gainrange="1 10.625" ! '
    )
    assert " ! nvvidconv flip-method=2 ! " in told


def test_it_is_a_pipeline_that_plays(tmp_path: Path) -> None:
    """With stand-ins for what a Jetson alone has: caps are agreed on and pictures come out."""
    launch, look = shutil.which("gst-launch-1.0"), ["gst-inspect-1.0", "--exists", "videotestsrc"]
    if not launch or subprocess.run(look, check=False).returncode:
        packages = "gstreamer1.0-tools gstreamer1.0-plugins-base"
        pytest.skip(f"GStreamer is not here: apt-get install {packages}")
    told = gstreamer(**USUAL, exposure_us=(13.0, 8000.0))
    assert told.count("nvarguscamerasrc") == told.count("nvvidconv") == 1
    played = re.sub(r"nvarguscamerasrc [^!]*", "videotestsrc num-buffers=3 ", told)
    played = played.replace("(memory:NVMM)", "").replace("nvvidconv", "videoconvert")
    out = tmp_path / "bgr"
    played = re.sub(r"appsink .*", f"filesink location={out}", played)
    subprocess.run([launch, "-q", *played.split()], check=True, timeout=60)
    assert out.stat().st_size == 3 * 720 * 1280 * 3


@pytest.mark.skipif(HAS_GSTREAMER, reason="this OpenCV has GStreamer")
def test_an_opencv_without_gstreamer_says_so() -> None:
    with pytest.raises(ConfigError, match=r"CSI camera 0: the OpenCV .* without GStreamer") as told:
        list(Argus(name="csi").packets())
    assert "--system-site-packages" in told.value.hint


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"gain": [4.0, 1.0]}, r"gain is \[4.0, 1.0\], must be lowest and highest, above 0"),
        ({"exposure_us": [0.0, 10.0]}, r"exposure_us is \[0.0, 10.0\]"),
        ({"flip": "sideways"}, "flip: invalid enum value"),
        ({"exposure_us": [1.0]}, "exposure_us"),
    ],
)
def test_mistakes_in_a_rig(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"rig.toml \[sensors.csi\].*{complaint}"):
        made(keys)
    camera = made({"gain": [1.0, 4.0], "flip": "none"})
    camera.close()
    camera.close()
    assert list(camera.packets()) == []


def made(keys: dict[str, Any]) -> Any:
    injected = {"name": "csi", "clock": None}
    where, table = "rig.toml [sensors.csi]", {"driver": "argus", **keys}
    return prepare(table, kind="driver", where=where, folder=Path(), injected=injected)()
