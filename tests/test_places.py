from __future__ import annotations

from pathlib import Path

import pytest

from edgeperc import places
from edgeperc.errors import ConfigError, ModelError

CARD = """
name = "net"
task = "semantic"
summary = ""
licence = "MIT"
source = "https://example.org"
classes = ["a"]
[input]
kind = "events"
represent = "voxel-grid"
width_px = 8
height_px = 8
"""
CHECKPOINT = '[checkpoint]\narchitecture = "sltnet"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, with `home` as $EDGEPERC_HOME."""
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def put_card(root: Path, text: str) -> Path:
    folder = root / "models" / "net"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(text)
    return folder


def test_a_card_without_files_gives_way_to_a_complete_one(home: Path) -> None:
    put_card(Path.cwd(), CARD + CHECKPOINT)
    with pytest.raises(ModelError, match="not here yet") as caught:
        places.find_model("net")
    assert "edgeperc models import net" in caught.value.hint
    assert not places.find_card("net").complete

    folder = put_card(home, CARD + CHECKPOINT + '[[files]]\npath = "net.onnx"\n')
    (folder / "net.onnx").write_bytes(b"network")
    assert places.find_model("net").folder == folder
    assert places.find_model("net").file("network") == folder / "net.onnx"
    assert places.find_model("net").file("front") is None


def test_a_changed_file_is_refused(home: Path) -> None:
    entry = f'[[files]]\npath = "net.onnx"\nsha256 = "{"0" * 64}"\n'
    folder = put_card(home, CARD + entry)
    (folder / "net.onnx").write_bytes(b"network")
    with pytest.raises(ModelError, match="sha256"):
        places.find_model("net").file("network")


def test_a_url_is_what_the_hint_names(home: Path) -> None:
    put_card(home, CARD + '[[files]]\npath = "net.onnx"\nurl = "https://example.org/net.onnx"\n')
    with pytest.raises(ModelError) as caught:
        places.find_model("net")
    assert caught.value.hint == "edgeperc models pull net"


def test_a_model_by_the_path_of_its_folder(home: Path, tmp_path: Path) -> None:
    folder = put_card(tmp_path / "elsewhere", CARD + '[[files]]\npath = "net.onnx"\n')
    (folder / "net.onnx").write_bytes(b"network")
    assert places.find_model(str(folder)).folder == folder


def test_an_unknown_name_is_answered_with_the_known_ones(home: Path) -> None:
    put_card(home, CARD)
    with pytest.raises(ConfigError, match="unknown model 'nett'; did you mean 'net'"):
        places.find_model("nett")
    with pytest.raises(ConfigError, match="unknown app 'nothing'"):
        places.find_app("nothing")
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file"):
        places.find_app("gone.toml")
    for find in (places.find_app, places.find_rig, places.find_model):
        with pytest.raises(ConfigError, match="unknown"):
            find("x" * 5000)


def test_a_rig_file_is_found_beside_the_app(home: Path, tmp_path: Path) -> None:
    (tmp_path / "rig.toml").write_text('[sensors.a]\ndriver = "twin"\n')
    rig, _ = places.find_rig("rig.toml", beside=tmp_path / "app.toml")
    assert list(rig.sensors) == ["a"]


def test_what_ships_with_the_package_is_found(home: Path) -> None:
    app, path = places.find_app("events")
    assert app.rig == "twin"
    assert path.parent.parent == places.share()


def test_a_file_that_belongs_to_a_rig_is_no_rig(home: Path) -> None:
    (Path.cwd() / "devices").mkdir()
    for name in ("mine.toml", "mine.calibration.toml"):
        (Path.cwd() / "devices" / name).write_text("")
    assert "mine" in places.names("devices")
    assert "mine.calibration" not in places.names("devices")
