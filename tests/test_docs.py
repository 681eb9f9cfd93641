"""What the docs show works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeperc import plugin
from edgeperc.clock import ReplayClock
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The driver of docs/drivers.md, and pictures for it."""
    text = (DOCS / "drivers.md").read_text()
    (source,) = re.findall(r'```python\n("""my_folder.*?)```', text, re.DOTALL)
    (tmp_path / "my_folder.py").write_text(source)
    (tmp_path / "pictures").mkdir()
    for grey in range(4):
        picture = np.full((6, 8), 10 * grey, np.uint8)
        cv2.imwrite(str(tmp_path / f"pictures/{grey}.png"), picture)
    return tmp_path


def test_the_driver_of_the_docs_is_about_thirty_lines_and_drives(folder: Path) -> None:
    source = (folder / "my_folder.py").read_text()
    body = source[source.index("class Folder") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 30
    sensor = make(folder, path=str(folder / "pictures"), rate_hz=20.0)
    frames = list(sensor.packets())
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.stamp.seq for frame in frames] == [0, 1, 2, 3]
    assert [frame.stamp.end_ns for frame in frames] == [k * 50_000_000 for k in (1, 2, 3, 4)]
    assert [int(frame.image[0, 0]) for frame in frames] == [0, 10, 20, 30]
    sensor.close()
    sensor.close()
    assert list(sensor.packets()) == []


def test_its_mistakes_are_said_as_those_of_a_built_in_driver(folder: Path) -> None:
    with pytest.raises(DeviceError, match=r"\[sensors.front\].*no pictures"):
        make(folder, path=str(folder))
    with pytest.raises(ConfigError, match="unknown key 'rate'; did you mean 'rate_hz'"):
        make(folder, path=".", rate=3.0)
    with pytest.raises(ConfigError, match=r"rate_hz.*> 0"):
        make(folder, path=".", rate_hz=0.0)


def make(folder: Path, **options: object) -> Any:
    construct = plugin.prepare(
        {"driver": "./my_folder.py:Folder", **options},
        kind="driver",
        where="rig.toml [sensors.front]",
        folder=folder,
        injected={"name": "front", "clock": ReplayClock(None), "now_ns": lambda: 0},
    )
    return construct()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
