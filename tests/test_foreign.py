"""What may not come over the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeperc.errors import ConfigError
from edgeperc.foreign import LONGEST_TOML, check_foreign
from edgeperc.plan import Plan

APP = 'rig = "twin"\n[[pipelines]]\nname = "a"\ninput = "dvs"\nmodel = "sltnet-twin"\n'
GRPC = '[[sinks]]\nkind = "grpc"\nlisten = "127.0.0.1:0"\n'


@pytest.fixture
def own(tmp_path: Path) -> Plan:
    path = tmp_path / "app.toml"
    path.write_text(APP + '[[sinks]]\nkind = "./mine.py:Mine"\n' + GRPC)
    return Plan.load(str(path))


@pytest.mark.parametrize(
    "text",
    [
        APP,
        APP.replace("sltnet-twin", "another"),
        APP + GRPC,
        APP + '[[sinks]]\nkind = "./mine.py:Mine"\n',  # the operator's own
        APP + '[search]\ngaze = "a"\nscheduler = "bayes"\n',
    ],
)
def test_what_is_installed_may_be_chosen(text: str, own: Plan) -> None:
    check_foreign(text, own)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (APP + '[[sinks]]\nkind = "os:system"\n', "[[sinks]] #1"),
        (APP + GRPC + '[[sinks]]\nkind = "./f.py:F"\n', "[[sinks]] #2"),
        (APP + GRPC + "insecure = true\n", "[[sinks]] #1"),
        (APP + GRPC.replace("127.0.0.1", "0.0.0.0"), "[[sinks]] #1"),
        (APP + '[[sinks]]\nkind = "file"\nfolder = "/etc/cron.d"\n', "[[sinks]] #1"),
        (APP + '[search]\ngaze = "a"\nscheduler = "a.b:C"\n', "[search] scheduler"),
        (APP.replace('"twin"', '"./rig.toml"'), "rig"),
        (APP.replace('"twin"', '"/etc/rig.toml"'), "rig"),
        (APP.replace('"twin"', '"rig.toml"'), "rig"),
        (APP.replace("sltnet-twin", "/tmp/model"), "[[pipelines]] #1 model"),
        (APP.replace("sltnet-twin", "../model"), "[[pipelines]] #1 model"),
        (APP.replace("sltnet-twin", ".."), "[[pipelines]] #1 model"),
        (APP.replace("sltnet-twin", "model.toml"), "[[pipelines]] #1 model"),
    ],
)
def test_code_and_files_are_refused(text: str, where: str, own: Plan) -> None:
    with pytest.raises(ConfigError) as refused:
        check_foreign(text, own)
    assert str(refused.value).startswith(f"{where}: ")
    assert "network" in str(refused.value)


@pytest.mark.parametrize("text", ["rig = ", "x" * (LONGEST_TOML + 1)])
def test_what_is_no_app_at_all_is_refused(text: str, own: Plan) -> None:
    with pytest.raises(ConfigError):
        check_foreign(text, own)


def test_a_model_in_a_folder_beside_the_daemon_is_no_installed_one(
    own: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "model.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="model: 'planted'"):
        check_foreign(APP.replace("sltnet-twin", "planted"), own)
