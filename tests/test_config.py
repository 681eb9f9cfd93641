from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeperc.config import App, ModelCard, Rig, load
from edgeperc.errors import ConfigError

PIPELINE = '[[pipelines]]\nname = "a"\ninput = "dvs"\nmodel = "m"\n'
CARD = """
name = "net"
task = "semantic"
summary = ""
licence = "MIT"
source = ""
classes = ["a", "b"]
[input]
kind = "events"
represent = "voxel-grid"
width_px = 8
height_px = 8
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.toml"
    path.write_text(text)
    return path


def test_reads_an_app_with_its_defaults(tmp_path: Path) -> None:
    app = load(write(tmp_path, f'rig = "twin"\n{PIPELINE}'), App)
    assert app.rig == "twin"
    assert app.pipelines[0].engine == "auto"
    assert app.validate.policy == "drop"


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (App, f'rig = "t"\n{PIPELINE}windw_us = 5\n', "[[pipelines]] #1: unknown key 'windw_us'"),
        (App, f'rig = "t"\n{PIPELINE}windw_us = 5\n', "did you mean 'window_us'?"),
        (App, f'rig = "t"\n{PIPELINE}window_us = 0\n', "[[pipelines]] #1 window_us: expected"),
        (App, f'rig = "t"\n{PIPELINE}{PIPELINE}threads = "2"\n', "[[pipelines]] #2 threads:"),
        (App, f"{PIPELINE}", "key 'rig' is missing"),
        (App, f'rig = "t"\n{PIPELINE}[validate]\npolicy = "x"\n', "[validate] policy:"),
        (App, "rig = 3\n", "rig: expected `str`, got `int`"),
        (App, "rig = \n", "Invalid value"),
        (App, f"rig = {'[' * 2000}", "too deep"),
        (App, f'rig = "t"\n{PIPELINE}window_us = {1 << 63}\n', "has more than 64 bits"),
        (App, f'rig = "t"\n{PIPELINE}threads = 4096\n', "[[pipelines]] #1 threads: expected"),
        (App, f'rig = "t"\n{PIPELINE}rate_hz = 1e-308\n', "[[pipelines]] #1 rate_hz: expected"),
        (App, f'rig = "t"\n{PIPELINE.replace(chr(34) + "a", chr(34))}', "name: a name is 1 to"),
        (Rig, '[sensors."a/b"]\ndriver = "twin"\n', "a name is 1 to 64 characters"),
        (App, 'rig = "t"\npipelines = []\n', "pipelines: expected"),
        (Rig, "[sensors]\n", "sensors: expected"),
        (Rig, "[sensors]\ndvs = 3\n", "sensors: expected `object`"),
        (ModelCard, CARD.replace("width_px = 8", "width_px = -1"), "[input] width_px:"),
        (ModelCard, CARD + '[[files]]\npath = "a"\nsha256 = "12"\n', "[[files]] #1 sha256:"),
    ],
)
def test_a_mistake_is_one_line_with_file_table_and_key(
    tmp_path: Path, kind: type, text: str, expected: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, kind)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml: no such file"):
        load(tmp_path / "nowhere.toml", App)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00rig")
    with pytest.raises(ConfigError, match="binary.toml"):
        load(path, App)


def test_what_is_no_text_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "noise.toml").write_bytes(b"rig = '\xff'")
    for name, expected in (
        ("pipe", "is no file"),
        ("noise", "is no text in UTF-8, at byte 7"),
        ("gone", "no such file"),
    ):
        with pytest.raises(ConfigError, match=f"{name}.toml: {expected}"):
            load(tmp_path / f"{name}.toml", App)
