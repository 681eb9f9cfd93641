from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeperc import plugin
from edgeperc.errors import ConfigError

LIDAR = """
from typing import Annotated
import msgspec

Rate = Annotated[float, msgspec.Meta(gt=0)]

class Lidar:
    def __init__(self, *, name: str, port: str, rate_hz: Rate = 10.0):
        self.name, self.port, self.rate_hz = name, port, rate_hz
"""


def build(table: dict[str, Any], folder: Path) -> Any:
    return plugin.prepare(
        table,
        kind="driver",
        where="devices/rig.toml [sensors.top]",
        folder=folder,
        injected={"name": "top", "clock": object()},
    )()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_lidar.py").write_text(LIDAR)
    return tmp_path


def test_a_class_in_a_file_beside_the_toml(folder: Path) -> None:
    lidar = build({"driver": "./my_lidar.py:Lidar", "port": "/dev/a", "rate_hz": 20.0}, folder)
    assert (lidar.name, lidar.port, lidar.rate_hz) == ("top", "/dev/a", 20.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"port": "a", "rat_hz": 1.0}, "unknown key 'rat_hz'; did you mean 'rate_hz'?"),
        ({"port": "a", "rate_hz": 0.0}, "rate_hz: expected `float` > 0"),
        ({"port": 5}, "port: expected `str`, got `int`"),
        ({}, "key 'port' is missing"),
        ({"port": "a", "name": "mine"}, "unknown key 'name'"),
    ],
)
def test_the_constructor_is_the_schema(
    folder: Path, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build({"driver": "./my_lidar.py:Lidar", **options}, folder)
    assert str(caught.value).startswith("devices/rig.toml [sensors.top]")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, "driver: must name one of"),
        ({"driver": "lidr"}, "unknown driver 'lidr'"),
        ({"driver": "./missing.py:Lidar"}, "no such file"),
        ({"driver": "./my_lidar.py:Radar"}, "cannot load"),
        ({"driver": "no_such_package_xyz:Radar"}, "needs no_such_package_xyz"),
    ],
)
def test_a_name_that_leads_nowhere(folder: Path, table: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        build(table, folder)


def test_a_missing_vendor_library_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "needy.py").write_text("import a_vendor_library\n")
    needy = plugin.Builtin(f"{folder}/needy.py:Camera", "", extra="cameras")
    monkeypatch.setitem(plugin.DRIVERS, "needy", needy)
    with pytest.raises(ConfigError, match="driver 'needy' needs a_vendor_library") as caught:
        build({"driver": "needy"}, folder)
    assert "edgeperc[cameras]" in caught.value.hint


@pytest.mark.parametrize("kind", ["driver", "sink"])
def test_every_built_in_resolves(kind: plugin.Kind) -> None:
    for name in plugin.TABLES[kind]:
        assert callable(plugin.resolve(name, kind=kind, where="", folder=Path()))


def test_a_name_is_checked_without_importing_what_it_names() -> None:
    where = "app.toml [search]"
    plugin.check_name("bayes", "scheduler", where)
    plugin.check_name("nowhere.at_all:Scheduler", "scheduler", where)
    with pytest.raises(ConfigError, match=r"\[search\] scheduler: unknown scheduler 'guess'"):
        plugin.check_name("guess", "scheduler", where)
